"""Statistics of weights and codebooks against SciPy's."""

import csv

import pytest
import torch
from scipy import stats

from qprompt import quantize_, step_
from qprompt.statistics import record_statistics, weight_statistics


def test_distribution_is_that_of_the_latent_weights(learner):
    rows = {row["parameter"]: row for row in weight_statistics(learner)}
    assert rows.keys() == {"ctx", "deep.0", "deep.1", "deep.2", "proj.weight"}
    values = learner.ctx.detach().flatten().double().numpy()
    row = rows["ctx"]
    assert row["mean"] == pytest.approx(values.mean(), abs=1e-8)
    assert row["std"] == pytest.approx(values.std(), rel=1e-5)
    assert row["kurtosis"] == pytest.approx(stats.kurtosis(values, fisher=False), rel=1e-5)
    assert row["outliers"] == pytest.approx((abs(stats.zscore(values)) > 3).mean())
    assert row["q25"] == pytest.approx(stats.scoreatpercentile(values, 25), abs=1e-3)
    assert "codebook" not in row


def test_quantization_is_told_by_error_entropy_divergence_and_codebook(learner, train):
    quantize_(learner, bits=2, params="ctx")
    latent = learner.parametrizations.ctx.original
    at_fit, *_ = weight_statistics(learner)
    assert at_fit["kl"] == 0 and at_fit["fits"] == 1
    train(learner, 20, after=lambda: step_(learner))
    row, *_ = weight_statistics(learner)
    error = (learner.ctx - latent).detach().square().mean().sqrt()
    levels, counts = learner.ctx.detach().unique(return_counts=True)
    assert row["error"] == pytest.approx(float(error), rel=1e-5)
    assert row["entropy"] == pytest.approx(stats.entropy(counts.numpy(), base=2), rel=1e-5)
    assert [float(x) for x in row["codebook"].split()] == pytest.approx(levels.tolist(), rel=1e-4)
    quantizer = learner.parametrizations.ctx[0]
    now, then = (n.numpy() + 1 for n in (quantizer.histogram(latent), quantizer.counts))
    assert row["kl"] == pytest.approx(stats.entropy(now, then), abs=1e-9)


def test_equal_weights_are_no_division_by_zero():
    module = torch.nn.Linear(3, 2)
    torch.nn.init.ones_(module.weight)
    (row,) = weight_statistics(quantize_(module))
    assert (row["mean"], row["std"], row["outliers"], row["error"]) == (1, 0, 0, 0)


def test_an_interrupted_epoch_is_recorded_once(learner, tmp_path):
    path = str(tmp_path / "model" / "weights.csv")
    for epoch in (0, 1, 2, 1):
        record_statistics(learner, path, epoch)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows if row["parameter"] == "ctx"] == ["0", "1"]
