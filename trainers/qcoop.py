"""QCoOp: CoOp whose context vectors live on a codebook while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.coop import CoOp


@TRAINER_REGISTRY.register()
class QCoOp(Quantized, CoOp):
    """CoOp with K-Means-quantized context vectors (arXiv:2407.10704)."""
