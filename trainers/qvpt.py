"""QVPT: VPT whose prompts live on codebooks while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.vpt import VPT


@TRAINER_REGISTRY.register()
class QVPT(Quantized, VPT):
    """VPT with K-Means-quantized image prompts (arXiv:2407.10704)."""
