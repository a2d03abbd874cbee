"""Constrained adaptive clustering (CAC): when a codebook is fitted again.

QPrompt (arXiv:2407.10704), section on constrained adaptive clustering.
"""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

import torch
from torch import Tensor

from .assignment import Pair, alike, histograms
from .quantizer import Quantizer


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats of two histograms, sum_i p_i log(p_i / q_i).

    One is added to every count, so that a bin that was empty does not make it infinite.

    Args:
        p, q: counts, shape (..., k).

    Returns:
        Shape (...).
    """
    p, q = p.double() + 1, q.double() + 1
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    return (p * (p / q).log()).sum(-1)


@torch.no_grad()
def adapt_(pairs: Sequence[Pair]) -> int:
    """Counts one training step and fits those codebooks again for which CAC asks it.

    It does when both hold: at least `interval` steps have passed since the last fit, and
    KL(p || q) > `kl_threshold` for the histograms p of the current and q of the last fitted
    weights over the indices of the current codebook.

    Args:
        pairs: quantizers and their latent weights.

    Returns:
        Number of codebooks that were fitted.

    Raises:
        InvalidWeightsError: weights cannot be fitted.
    """
    groups: Dict[Tuple[int, torch.device], List[Pair]] = {}
    if pairs:
        Quantizer.count_step_([quantizer for quantizer, _ in pairs])
    for quantizer, weight in pairs:
        if quantizer.steps_since_fit >= quantizer.options.interval:
            key = (quantizer.bits, weight.device)
            groups.setdefault(key, []).append((quantizer, weight))
    return sum(_fit_drifted(group) for group in groups.values())


def _fit_drifted(due: Sequence[Pair]) -> int:
    groups = alike(due)
    due = [pair for group in groups for pair in group]
    now = torch.cat([histograms(group) for group in groups])
    then = torch.stack([quantizer.counts for quantizer, _ in due])
    kl = kl_divergence(now, then).tolist()  # a GPU answers for all of them at once
    drifted = [pair for i, pair in enumerate(due) if kl[i] > pair[0].options.kl_threshold]
    for quantizer, weight in drifted:
        quantizer.fit_(weight)
    return len(drifted)
