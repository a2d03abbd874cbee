"""K-Means in one dimension: fit and assignment against scikit-learn and kmeans1d."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import kmeans1d
import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import qprompt
from benchmarks.measure import Row, compare

SECTION = "K-Means, fit and assignment"
N = 768 * 512  # one projection of MaPLe


def measure(device: torch.device) -> Iterator[Row]:
    """Yield a row for each number of centroids and other implementation, and for a GPU."""
    weights = torch.randn(N, generator=torch.Generator().manual_seed(0))
    numbers = weights.double().numpy()
    for k in (2, 16):
        for name, cluster in OTHERS.items():
            sides = {name: partial(cluster, numbers, k), "qprompt": partial(_ours, weights, k)}
            measured, centroids = compare(sides, repeats=9, seconds=30)
            squares = _squares(numbers, centroids["qprompt"]) / _squares(numbers, centroids[name])
            note = f"sum of squares {squares:.5f} of that of {name}"
            what = f"{N:,} numbers, {k} centroids"
            yield Row(SECTION, what, measured, note, {"squares_ratio": squares})
        if device.type == "cuda":
            sides = {side: partial(_ours, weights.to(side), k) for side in ("cpu", "cuda")}
            yield Row(SECTION, what, compare(sides, repeats=9, seconds=30)[0])


def _scikit_learn(numbers: np.ndarray, k: int) -> Tensor:
    fitted = KMeans(k, n_init=1, random_state=0).fit(numbers[:, None])
    return torch.from_numpy(fitted.cluster_centers_.ravel())


def _kmeans1d(numbers: np.ndarray, k: int) -> Tensor:
    return torch.tensor(kmeans1d.cluster(numbers, k).centroids)


OTHERS = {"scikit-learn": _scikit_learn, "kmeans1d": _kmeans1d}


def _ours(weights: Tensor, k: int) -> Tensor:
    centroids = qprompt.kmeans_1d(weights, k)
    torch.bucketize(weights, (centroids[1:] + centroids[:-1]) / 2)
    return centroids


def _squares(numbers: np.ndarray, centroids: Tensor) -> float:
    centroids = np.sort(centroids.double().numpy())
    nearest = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, numbers)
    return float(np.square(numbers - centroids[nearest]).sum())
