"""QDePT: DePT whose context and classifier live on codebooks while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.dept import DePT


@TRAINER_REGISTRY.register()
class QDePT(Quantized, DePT):
    """DePT with K-Means-quantized context vectors and classifier (arXiv:2407.10704)."""
