"""Functions that trainers on pseudo-labels use."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def create_onehot(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Turn labels (n,) into rows (n, num_classes) of zeros with a one."""
    return F.one_hot(label, num_classes).float()


def sharpen_prob(p: torch.Tensor, temperature: float = 2.0) -> torch.Tensor:
    """Raise the probabilities in each row to the power of ``temperature``, and normalise them."""
    return F.normalize(p.pow(temperature), p=1, dim=1)


def sigmoid_rampup(current: float, rampup_length: float) -> float:
    """Return exp(-5 (1 - t)^2) with t = current / rampup_length, within 0 and 1."""
    t = min(max(current / rampup_length, 0.0), 1.0) if rampup_length else 1.0
    return math.exp(-5 * (1 - t) ** 2)


def linear_rampup(current: float, rampup_length: float) -> float:
    """Return current / rampup_length, within 0 and 1."""
    return min(max(current / rampup_length, 0.0), 1.0)


@torch.no_grad()
def ema_model_update(model: nn.Module, ema_model: nn.Module, alpha: float) -> None:
    """Move the parameters of ``ema_model`` towards those of ``model``: alpha of them stays."""
    for average, parameter in zip(ema_model.parameters(), model.parameters(), strict=True):
        average.lerp_(parameter, 1 - alpha)
