"""QCoCoOp: CoCoOp whose context and meta-network live on codebooks while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.cocoop import CoCoOp


@TRAINER_REGISTRY.register()
class QCoCoOp(Quantized, CoCoOp):
    """CoCoOp with K-Means-quantized context and meta-network (arXiv:2407.10704)."""
