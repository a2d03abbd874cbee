"""Constrained adaptive clustering (CAC): when a codebook is fitted again.

QPrompt (arXiv:2407.10704), section on constrained adaptive clustering.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantizer import Quantizer

# The paper names both constants and gives no value. These are ours: an interval of a few epochs
# of few-shot training, and about the divergence that two samples of one distribution show by
# chance for 2048 weights and two bins, (k - 1) / N = 0.0005, doubled.
INTERVAL = 50
KL_THRESHOLD = 0.001


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats of two histograms, sum_i p_i log(p_i / q_i).

    One is added to every count, so that a bin that was empty does not make it infinite.

    Args:
        p, q: counts, shape (k,).
    """
    p, q = p.double() + 1, q.double() + 1
    p, q = p / p.sum(), q / q.sum()
    return (p * (p / q).log()).sum()


@torch.no_grad()
def adapt_(quantizer: Quantizer, weight: Tensor) -> bool:
    """Counts one training step and fits the codebook again when CAC asks for it.

    It does when both hold: at least `interval` steps have passed since the last fit, and
    KL(p || q) > `kl_threshold` for the histograms p of the current and q of the last fitted
    weights over the indices of the current codebook.

    Returns:
        Whether the codebook was fitted.

    Raises:
        NonFiniteWeightsError, HalfPrecisionOverflowError: the weights cannot be fitted.
    """
    quantizer.steps += 1
    if int(quantizer.steps) < quantizer.interval:
        return False
    counts = quantizer.histogram(weight)
    if float(kl_divergence(counts, quantizer.counts)) <= quantizer.kl_threshold:
        return False
    quantizer.fit_(weight)
    return True
