"""QKgCoOp: KgCoOp whose context vectors live on a codebook while it trains."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.kgcoop import KgCoOp


@TRAINER_REGISTRY.register()
class QKgCoOp(Quantized, KgCoOp):
    """KgCoOp with K-Means-quantized context vectors (arXiv:2407.10704)."""
