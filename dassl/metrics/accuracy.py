"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def compute_accuracy(
    output: torch.Tensor | Sequence[torch.Tensor],
    target: torch.Tensor,
    topk: Sequence[int] = (1,),
) -> list[torch.Tensor]:
    """Return the percentage of targets among the k largest scores, for each k.

    Args:
        output: scores (batch, classes), or a sequence whose first entry they are.
        target: labels (batch,).
        topk: the values of k; at most the number of classes counts.

    Returns:
        A tensor of shape (1,) for each k.
    """
    if not isinstance(output, torch.Tensor):
        output = output[0]
    k = min(max(topk), output.shape[1])
    hits = output.topk(k, dim=1).indices == target.view(-1, 1)
    return [hits[:, :k].any(dim=1).float().mean(dim=0, keepdim=True) * 100 for k in topk]
