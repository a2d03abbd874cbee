"""Distances between rows."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dassl.utils import check_choice


def compute_distance_matrix(
    input1: torch.Tensor, input2: torch.Tensor, metric: str = "euclidean"
) -> torch.Tensor:
    """Return the distances of rows (n, features) and (m, features): (n, m).

    Args:
        input1, input2: the rows.
        metric: "euclidean", which is squared, or "cosine".
    """
    check_choice("metric", metric, ("euclidean", "cosine"))
    distance = cosine_distance if metric == "cosine" else euclidean_squared_distance
    return distance(input1, input2)


def euclidean_squared_distance(input1: torch.Tensor, input2: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean distances (n, m)."""
    return (input1[:, None] - input2).square().sum(dim=2)


def cosine_distance(input1: torch.Tensor, input2: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine similarity (n, m)."""
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()
