"""Which centroid each weight gets, for several quantizers at once.

A step on a GPU is bound by the number of kernels, not by their work. So functions take quantizers
with weights that are alike, as `alike` groups them, and run one operation where there were n.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .quantizer import Quantizer

STORED = torch.float16  # the precision of centroids in files, and therefore in the model

Pair = Tuple["Quantizer", Tensor]


def alike(pairs: Sequence[Pair]) -> List[List[Pair]]:
    """Groups quantizers whose weights differ in nothing but numbers; on a CPU each is alone."""
    groups: Dict[object, List[Pair]] = {}
    for quantizer, weight in pairs:
        kind = (quantizer.bits, quantizer.options.normalize, quantizer.dtype)
        key = (kind, weight.shape, weight.dtype, weight.device)
        groups.setdefault(key if weight.is_cuda else id(quantizer), []).append((quantizer, weight))
    return list(groups.values())


@torch.no_grad()
def encode(pairs: Sequence[Pair]) -> Tuple[Tensor, Tensor]:
    """Indices (n, *shape), int32, and half-precision centroids (n, 2^bits) in the dtype read."""
    indices, centroids = _assign(pairs)
    return indices.view(len(pairs), *pairs[0][1].shape), stored(centroids, pairs[0][0].dtype)


@torch.no_grad()
def quantize(pairs: Sequence[Pair]) -> Tensor:
    """Nearest centroids (n, *shape) in the dtype read, without a gradient."""
    indices, centroids = encode(pairs)
    values = centroids.to(pairs[0][0].dtype).reshape(-1)
    return values.index_select(0, _numbered(indices, centroids)).view_as(indices)


@torch.no_grad()
def histograms(pairs: Sequence[Pair]) -> Tensor:
    """Number of weights at each index, int64, shape (n, 2^bits)."""
    indices, centroids = _assign(pairs)
    numbers = _numbered(indices, centroids)
    counts = torch.zeros(centroids.numel(), dtype=torch.int64, device=indices.device)
    ones = counts.new_ones(1).expand_as(numbers)
    # bincount would let the host wait for a GPU
    return counts.index_add_(0, numbers, ones).view_as(centroids)


@contextmanager
def at_once(pairs: Sequence[Pair]) -> Iterator[None]:
    """Within this context parameters that are read take values that were computed in groups.

    Weights and codebooks must not change in it.
    """
    groups = [group for group in alike(pairs) if len(group) > 1]
    for group in groups:
        for i, values in enumerate(quantize(group)):
            group[i][0].known = values
    try:
        yield
    finally:
        for group in groups:
            for quantizer, _ in group:
                quantizer.known = None


def moments(weights: Tensor, normalize: bool) -> Tuple[Tensor, Tensor]:
    """Mean and standard deviation (1 for 0) of each row, (n, N), in double precision (n, 1).

    Or 0 and 1; but NaN in a row of which a weight is NaN or infinite.
    """
    if not normalize:
        mu = (weights * 0).sum(1, keepdim=True, dtype=torch.float64)
        return mu, torch.ones_like(mu)
    mu = weights.mean(1, keepdim=True, dtype=torch.float64)
    spread = (weights - mu.float()).square_().mean(1, keepdim=True, dtype=torch.float64)
    sigma = spread.sqrt_()
    return mu, sigma + (sigma == 0)


def stored(centroids: Tensor, dtype: torch.dtype) -> Tensor:
    """Half-precision numbers that `dtype` also holds exactly; -0.0 becomes 0.0."""
    return centroids.to(dtype).to(STORED) + 0.0


def number_below(bounds: Tensor, x: Tensor) -> Tensor:
    """For each number in `x`, how many bounds of its row are below it: its index in a codebook.

    What torch.searchsorted returns, which does it at once on a GPU. On a CPU it mispredicts its
    branches; a search without any, one comparison for each bit, takes a third of the time.

    Args:
        bounds: (n, 2^b - 1), ascending numbers.
        x: (n, N), of the same dtype.

    Returns:
        int32, shape of `x`.
    """
    if x.is_cuda or len(x) > 1:
        return torch.searchsorted(bounds, x, out_int32=True)
    row, half = bounds[0], (bounds.shape[1] + 1) // 2
    below = (x[0] > row[half - 1]).int()
    while half > 1:
        half //= 2
        right = x[0] > row[half - 1 :: 2 * half].index_select(0, below)
        below.mul_(2).add_(right)
    return below[None]


def _assign(pairs: Sequence[Pair]) -> Tuple[Tensor, Tensor]:
    """Indices (n, N), and centroids (n, 2^bits) of the weights in double precision."""
    weights = _stack([weight for _, weight in pairs]).flatten(1).float()
    mu, sigma = moments(weights, pairs[0][0].options.normalize)
    centroids = _stack([quantizer.codebook for quantizer, _ in pairs]) * sigma + mu
    midpoints = ((centroids[:, 1:] + centroids[:, :-1]) / 2).float()
    return number_below(midpoints, weights), centroids


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def _numbered(indices: Tensor, centroids: Tensor) -> Tensor:
    """Where the centroid of each weight stands among those of all rows: int32 (n N,)."""
    n, k = centroids.shape
    if n > 1:
        first = torch.arange(0, n * k, k, dtype=indices.dtype, device=indices.device)
        indices = indices + first.view(-1, *[1] * (indices.dim() - 1))
    return indices.reshape(-1)
