"""K-Means in one dimension: fit and assignment against scikit-learn and kmeans1d."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import kmeans1d
import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import qprompt
from benchmarks.measure import Row, compare

SECTION = "K-Means, fit and assignment"
N = 768 * 512  # one projection of MaPLe


def measure() -> Iterator[Row]:
    """Yield a row for each number of centroids and each other implementation."""
    weights = torch.randn(N, generator=torch.Generator().manual_seed(0))
    numbers = weights.double().numpy()
    for k in (2, 16, 256):
        ours = _ours(weights, k)
        others = {
            "scikit-learn": lambda k=k: KMeans(k, n_init=1, random_state=0).fit(numbers[:, None]),
            "kmeans1d": lambda k=k: kmeans1d.cluster(numbers, k),
        }
        for name, other in others.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sides = {name: other, "qprompt": lambda k=k: _ours(weights, k)}
                measured = compare(sides, repeats=3, seconds=60, warm_up=False)
                found = other()
            centroids = found.centroids if name == "kmeans1d" else found.cluster_centers_.ravel()
            squares = _squares(weights, ours) / _squares(weights, torch.tensor(centroids))
            note = f"sum of squares {squares:.5f} of that of {name}"
            yield Row(SECTION, f"{N:,} numbers, {k} centroids", measured, note)


def _ours(weights: Tensor, k: int) -> Tensor:
    centroids = qprompt.kmeans_1d(weights, k)
    torch.bucketize(weights, (centroids[1:] + centroids[:-1]) / 2)
    return centroids


def _squares(weights: Tensor, centroids: Tensor) -> float:
    centroids = np.sort(centroids.double().numpy())
    nearest = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, weights.double().numpy())
    return float(np.square(weights.double().numpy() - centroids[nearest]).sum())
