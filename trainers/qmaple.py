"""QMaPLe: MaPLe whose prompts and projections live on codebooks while they train."""

from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers.maple import MaPLe


@TRAINER_REGISTRY.register()
class QMaPLe(Quantized, MaPLe):
    """MaPLe with K-Means-quantized prompts and projections (arXiv:2407.10704)."""
