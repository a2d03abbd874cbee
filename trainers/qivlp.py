"""QIVLP: IVLP whose prompts live on codebooks while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.ivlp import IVLP


@TRAINER_REGISTRY.register()
class QIVLP(Quantized, IVLP):
    """IVLP with K-Means-quantized prompts (arXiv:2407.10704)."""
