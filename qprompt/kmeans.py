"""K-Means of scalars as pure functions.

In one dimension clusters are intervals of the sorted numbers, so a clustering is a choice of
`k - 1` splits, and the cost of any interval follows from three prefix sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import InvalidOptionError, InvalidWeightsError

# The dynamic programme chooses among this many splits (all of them, where there are no more).
CANDIDATES = 1024
MAX_CENTROIDS = CANDIDATES // 4  # so that each cluster has several splits to choose from
LLOYD_STEPS = 200
GPU_STEPS = 16  # after which the host asks whether they have ended, and waits for the answer


def require_clusterable(x: Tensor, name: str) -> None:
    """Raises InvalidWeightsError for a tensor that is empty or holds NaN or infinity."""
    if x.numel() == 0:
        raise InvalidWeightsError(f"{name} has no elements; there is nothing to cluster")
    finite = torch.isfinite(x)
    if not finite.all():
        bad = int(x.numel() - finite.sum())
        raise InvalidWeightsError(
            f"{name} holds {bad} NaN or infinite values out of {x.numel()}; "
            "lower the learning rate or look at the data that produced them"
        )


@torch.no_grad()
def kmeans_1d(x: Tensor, k: int) -> Tensor:
    """Sorted centroids of the numbers in `x` that minimise the sum of squared errors.

    Exact for `k <= 2` and wherever `x` has at most `CANDIDATES` distinct values. Otherwise a
    dynamic programme over well-placed splits, Lloyd's algorithm on all numbers, and both once
    more around the result. Deterministic, on the device of `x`.

    Args:
        x: numbers, any shape and real dtype; clustered in float32.
        k: number of centroids, 1 to 256.

    Returns:
        float32 tensor of shape (k,), ascending. Where `x` has at most `k` distinct values, each
        of them is a centroid and the largest is repeated.

    Raises:
        InvalidOptionError: `k` is out of range.
        InvalidWeightsError: `x` cannot be clustered.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_CENTROIDS:
        raise InvalidOptionError(f"k must be an integer from 1 to {MAX_CENTROIDS}, got {k!r}")
    numbers = x.detach().reshape(-1).float()
    require_clusterable(numbers, "x")
    values, counts = torch.unique_consecutive(numbers.sort().values, return_counts=True)
    if len(values) <= k:
        return torch.cat([values, values[-1:].expand(k - len(values))])
    origin = values[len(values) // 2].double()  # keeps the squares small
    points = _Points.of(values.double() - origin, counts)
    if k <= 2:
        edges = _lloyd(points, points.edges(_best_split(points)[: k - 1]))
    else:
        edges = _lloyd(points, _best_edges(points, _candidates(points), k))
        if len(values) > CANDIDATES:
            edges = _lloyd(points, _best_edges(points, _subdivided(edges), k))
    centroids: Tensor = points.means(edges) + origin
    return centroids.float()


class _Points(NamedTuple):
    """Sorted distinct values, and prefix sums of how many, of the numbers and of their squares.

    `ends` holds the first and the last edge, (2,), so that a GPU need not be told them again.
    """

    values: Tensor
    ends: Tensor
    number: Tensor
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor, counts: Tensor) -> _Points:
        middle = len(values) // 2

        def prefix(terms: Tensor) -> Tensor:  # from the middle, so that outliers drown no others
            below, above = terms[:middle].flip(0).cumsum(0).flip(0), terms[middle:].cumsum(0)
            return torch.cat([-below, terms.new_zeros(1), above])

        total = counts * values
        ends = torch.tensor([0, len(values)], device=values.device)
        return cls(values, ends, prefix(counts.to(values)), prefix(total), prefix(total * values))

    def edges(self, splits: Tensor) -> Tensor:
        """The splits between the two ends."""
        return torch.cat([self.ends[:1], splits, self.ends[1:]])

    def means(self, edges: Tensor) -> Tensor:
        return self.total[edges].diff() / self.number[edges].diff()

    def cost(self, start: Tensor | slice, end: Tensor | slice) -> Tensor:
        """Sum of squared errors around the mean of the non-empty intervals [start, end)."""
        number = self.number[end] - self.number[start]
        total = self.total[end] - self.total[start]
        squares = self.squares[end] - self.squares[start]
        return squares.sub_(total.square_().div_(number)).clamp_(min=0)


def _best_split(points: _Points) -> Tensor:
    """The split into two intervals of least total cost, among all; shape (1,)."""
    first, inner, last = slice(0, 1), slice(1, -1), slice(-1, None)
    return (points.cost(first, inner) + points.cost(inner, last)).argmin()[None] + 1


def _best_edges(points: _Points, candidates: Tensor, k: int) -> Tensor:
    """Edges of the k intervals of least total cost that candidate splits can form."""
    edges = points.edges(candidates)
    start, end = edges[None, :], edges[:, None]
    cost = points.cost(start, end).masked_fill_(start >= end, float("inf"))
    scratch, best, bests = torch.empty_like(cost), cost[:, 0], []
    for _ in range(k - 1):  # best[j]: least cost of the values before edge j with one more cluster
        bests.append(best)
        best = torch.add(cost, best, out=scratch).amin(dim=1)
    path = [edges.new_full((1,), len(edges) - 1)]
    for best in reversed(bests):
        path.append((cost.index_select(0, path[-1]) + best).argmin(dim=1))
    return edges[torch.cat([torch.zeros_like(path[0]), *path[::-1]])]


def _candidates(points: _Points) -> Tensor:
    """At most `CANDIDATES` splits among which a near-optimal choice exists.

    A quarter stand in the widest gaps, which isolates outliers. The others follow the density of
    optimal quantizer levels, the cube root of that of the numbers (Panter and Dite 1951).
    """
    gaps = points.values.diff()
    if len(gaps) <= CANDIDATES:
        return torch.arange(1, len(gaps) + 1, device=gaps.device)
    gaps = (gaps / gaps.max()).float()
    widest = gaps.topk(CANDIDATES // 4).indices
    share = ((points.number[2:] - points.number[:-2]).float() * gaps**2) ** (1 / 3)
    share[widest] = 0
    mass = share.double().cumsum(0)
    levels = torch.linspace(0, 1, CANDIDATES - len(widest) + 2).to(mass)[1:-1]
    gap = torch.cat([widest, torch.searchsorted(mass, levels * mass[-1])])
    splits: Tensor = torch.unique(gap) + 1
    return splits


def _subdivided(edges: Tensor) -> Tensor:
    """About `CANDIDATES` splits: the inner edges and evenly spread positions between edges."""
    parts = CANDIDATES // (len(edges) - 1)
    fractions = torch.linspace(0, 1, parts + 1).to(edges.device)[:-1]
    positions = edges[:-1, None] + (edges.diff()[:, None] * fractions).long()
    splits: Tensor = torch.unique(positions)
    return splits[1:]


def _lloyd(points: _Points, edges: Tensor) -> Tensor:
    """Edges after alternating means and nearest-mean splits, at most `LLOYD_STEPS` times."""
    for step in range(1, LLOYD_STEPS + 1):
        means = points.means(edges)
        midpoints = (means[1:] + means[:-1]) / 2
        moved = points.edges(torch.searchsorted(points.values, midpoints, right=True))
        # they stay where a cluster would lose its last number
        moved = torch.where((moved.diff() == 0).any(), edges, moved)
        asks = not edges.is_cuda or step % GPU_STEPS == 0
        if asks and torch.equal(moved, edges):  # where they stay once, they stay for good
            break
        edges = moved
    return edges
