"""QCLIPAdapter: CLIPAdapter whose layers live on codebooks while it trains."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.clip_adapter import CLIPAdapter


@TRAINER_REGISTRY.register()
class QCLIPAdapter(Quantized, CLIPAdapter):
    """CLIPAdapter with K-Means-quantized layers (arXiv:2407.10704)."""
