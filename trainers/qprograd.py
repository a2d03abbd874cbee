"""QProGrad: ProGrad whose context vectors live on a codebook while it trains."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.prograd import ProGrad


@TRAINER_REGISTRY.register()
class QProGrad(Quantized, ProGrad):
    """ProGrad with K-Means-quantized context vectors (arXiv:2407.10704)."""
