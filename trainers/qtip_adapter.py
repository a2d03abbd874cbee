"""QTipAdapterF: TipAdapterF whose keys live on a codebook while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.tip_adapter import TipAdapterF


@TRAINER_REGISTRY.register()
class QTipAdapterF(Quantized, TipAdapterF):
    """TipAdapterF with K-Means-quantized keys (arXiv:2407.10704)."""
