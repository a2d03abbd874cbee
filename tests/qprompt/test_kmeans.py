from __future__ import annotations

import kmeans1d
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from qprompt import InvalidOptionError, InvalidWeightsError, kmeans_1d
from qprompt.kmeans import CANDIDATES, _lloyd, _Points

SAMPLES = {
    "normal": lambda r, n: r.normal(size=n) * 0.02,
    "uniform": lambda r, n: r.uniform(size=n),
    "bimodal": lambda r, n: np.where(
        r.uniform(size=n) < 0.3, r.normal(-5, 0.1, n), r.normal(5, 1, n)
    ),
    "exponential": lambda r, n: r.exponential(size=n),
    "student": lambda r, n: r.standard_t(3, n),
    "cauchy": lambda r, n: r.standard_cauchy(n),
    "lognormal": lambda r, n: r.lognormal(sigma=3, size=n),
    "duplicated": lambda r, n: r.normal(size=n).round(2),
    "half": lambda r, n: (r.normal(size=n) * 0.02).astype(np.float16),
    "mostly zero": lambda r, n: np.where(r.uniform(size=n) < 0.99, 0, r.normal(size=n)),
    "outliers": lambda r, n: np.concatenate([r.normal(size=n - 2), [-1e6, 3e6]]),
    "clumps": lambda r, n: r.integers(0, 300, n) * 10 + r.normal(size=n) * 0.1,
}


def sample(name: str, n: int) -> np.ndarray:
    return SAMPLES[name](np.random.default_rng(n), n).astype(np.float32)


def sse(x: np.ndarray, centroids: np.ndarray) -> float:
    x, centroids = x.astype(np.float64), np.sort(centroids.astype(np.float64))
    nearest = centroids[np.searchsorted((centroids[1:] + centroids[:-1]) / 2, x)]
    return float(((x - nearest) ** 2).sum())


def optimum(x: np.ndarray, k: int) -> float:
    """Sum of squares of the globally optimal clustering, by an exact solver that is not ours."""
    x = x.astype(np.float64)
    return sse(x, np.array(kmeans1d.cluster(x, k).centroids))


def close_to_optimum(x: np.ndarray, k: int, factor: float) -> None:
    centroids = kmeans_1d(torch.from_numpy(x), k)
    assert centroids.shape == (k,) and centroids.dtype == torch.float32
    assert torch.equal(centroids, centroids.sort().values)
    rounding = len(x) * (np.finfo(np.float32).eps * np.abs(np.median(x))) ** 2
    assert sse(x, centroids.numpy()) <= factor * optimum(x, k) + rounding


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("n", [3, 64, 2048, 30_000])
def test_two_centroids_are_optimal(name, n):
    close_to_optimum(sample(name, n), 2, 1 + 1e-5)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("n, k", [(16, 16), (300, 3), (1000, 8), (1000, 64)])
def test_small_inputs_are_optimal(name, n, k):
    close_to_optimum(sample(name, n), k, 1 + 1e-4)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("n, k", [(2048, 4), (20_000, 16), (20_000, 64)])
def test_large_inputs_are_within_a_percent(name, n, k):
    close_to_optimum(sample(name, n), k, 1.01)


@pytest.mark.parametrize("name, k", [("normal", 16), ("cauchy", 4), ("bimodal", 2)])
def test_within_a_percent_of_400000_numbers(name, k):
    close_to_optimum(sample(name, 400_000), k, 1.01)


@pytest.mark.parametrize("name, n", [("half", 20_000), ("lognormal", 3000), ("bimodal", 257)])
def test_256_centroids(name, n):
    close_to_optimum(sample(name, n), 256, 1.007)


def test_no_worse_than_scikit_learn():
    x = sample("student", 2000)
    theirs = KMeans(8, n_init=3, random_state=0).fit(x[:, None]).cluster_centers_[:, 0]
    ours = kmeans_1d(torch.from_numpy(x), 8).numpy()
    assert sse(x, ours) <= sse(x, theirs) * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.integers(1, 9),
)
def test_every_distinct_value_counts(numbers, k):
    x = np.array(numbers, dtype=np.float32)
    centroids = kmeans_1d(torch.from_numpy(x), k)
    assert torch.isfinite(centroids).all() and len(centroids) == k
    distinct = np.unique(x)
    if len(distinct) <= k:
        assert np.array_equal(np.unique(centroids.numpy()), distinct)
    else:
        scale = len(x) * (np.finfo(np.float32).eps * max(np.abs(x).max(), 1e-30)) ** 2
        assert sse(x, centroids.numpy()) <= optimum(x, k) * (1 + 1e-3) + 4 * scale


def test_deterministic_and_independent_of_order_and_random_state():
    x = torch.from_numpy(sample("cauchy", 5000))
    first = kmeans_1d(x, 16)
    torch.manual_seed(3)
    assert torch.equal(first, kmeans_1d(x.flip(0).reshape(50, 100), 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_other_dtypes_are_clustered_in_float32(dtype):
    x = (torch.from_numpy(sample("normal", 3000)) * 1000).to(dtype)
    assert torch.equal(kmeans_1d(x, 4), kmeans_1d(x.float(), 4))


def test_constant_and_shifted_input():
    assert torch.equal(kmeans_1d(torch.full((9,), 0.1), 4), torch.full((4,), 0.1))
    x = torch.from_numpy(sample("normal", CANDIDATES))
    torch.testing.assert_close(kmeans_1d(x + 8, 4), kmeans_1d(x, 4) + 8, atol=1e-4, rtol=0)


def test_no_cluster_loses_its_last_number():
    values = torch.tensor([-11.0, -10.0, 10.0, 11.0], dtype=torch.float64)
    points = _Points.of(values, torch.tensor([9, 1, 1, 9]))
    edges = _lloyd(points, torch.tensor([0, 1, 3, 4]))
    assert (edges.diff() > 0).all() and points.means(edges).isfinite().all()


def test_input_keeps_its_graph_out():
    assert not kmeans_1d(torch.randn(10, requires_grad=True), 2).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_input(bad):
    with pytest.raises(InvalidWeightsError, match="1 NaN or infinite values out of 3"):
        kmeans_1d(torch.tensor([1.0, bad, 2.0]), 2)


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_bad_number_of_centroids(k):
    with pytest.raises(InvalidOptionError, match=f"got {k!r}"):
        kmeans_1d(torch.ones(3), k)


def test_empty_input():
    with pytest.raises(InvalidWeightsError):
        kmeans_1d(torch.ones(0), 2)
