"""Tables from results.json files, checked against numbers worked out by hand."""

import json
import subprocess
import sys

import pytest

from reporting.__main__ import write_report
from reporting.base_to_new import comparisons, pair_runs, summarise
from reporting.results import UnreadableResultError, read_results


def write_result(folder, trainer, half, seed, accuracy, bits=None, stored_bytes=1024, **fields):
    path = folder / half / f"{trainer}{bits or ''}" / f"seed{seed}" / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "format_version": 1,
        "trainer": trainer,
        "dataset": "Digits",
        "backbone": "ViT-B/16",
        "seed": seed,
        "num_shots": 16,
        "subsample_classes": half,
        "metrics": {"accuracy": accuracy},
        "stored_bytes": stored_bytes,
        **({"bits": bits} if bits else {}),
        **fields,
    }
    path.write_text(json.dumps(result))
    return path


@pytest.fixture
def folder(tmp_path):
    for seed, base, new in ((1, 80.0, 60.0), (2, 90.0, 50.0)):
        write_result(tmp_path, "CoOp", "base", seed, base)
        write_result(tmp_path, "CoOp", "new", seed, new)
        write_result(tmp_path, "QCoOp", "base", seed, base - 2, bits=1, stored_bytes=68)
        write_result(tmp_path, "QCoOp", "new", seed, new + 10, bits=1, stored_bytes=68)
    write_result(tmp_path, "ZeroshotCLIP", "base", 1, 70.0, stored_bytes=0)
    return tmp_path


def test_means_deviations_and_harmonic_mean_of_the_means(folder):
    summary = summarise(pair_runs(read_results(folder))).set_index("trainer")
    coop = summary.loc["CoOp"]
    assert (coop["base_mean"], coop["new_mean"]) == (85.0, 55.0)
    assert coop["base_std"] == pytest.approx(50**0.5)
    assert coop["h_mean"] == pytest.approx(2 * 85 * 55 / 140)
    hs = [2 * 80 * 60 / 140, 2 * 90 * 50 / 140]
    assert coop["h_std"] == pytest.approx(abs(hs[0] - hs[1]) / 2**0.5)
    assert list(summary.index) == ["ZeroshotCLIP", "CoOp", "QCoOp"]


def test_report_holds_table_plot_and_honest_verdict(folder):
    printed = write_report(folder)
    report = (folder / "report.md").read_text()
    assert "85.00 ± 7.07" in report and "85.00 ± 7.07" in printed
    assert "QCoOp at 1 bit beats CoOp: base -2.00, new +10.00" in report
    plot = folder / "base_to_new_Digits_ViT-B-16_16.png"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert plot.name in report


def test_a_missing_half_is_a_gap_and_never_a_zero(folder):
    write_report(folder)
    row = next(r for r in (folder / "report.md").read_text().splitlines() if "ZeroshotCLIP" in r)
    assert [cell.strip() for cell in row.split("|")[1:6]] == [
        "ZeroshotCLIP",
        "-",
        "70.00",
        "-",
        "-",
    ]


def test_a_loss_is_reported_as_a_loss(tmp_path):
    for trainer, bits, new in (("CoOp", None, 60.0), ("QCoOp", 2, 55.0)):
        write_result(tmp_path, trainer, "base", 1, 80.0, bits=bits)
        write_result(tmp_path, trainer, "new", 1, new, bits=bits)
    (sentence,) = comparisons(pair_runs(read_results(tmp_path)))
    assert "QCoOp at 2 bits does not beat CoOp" in sentence
    assert "new -5.00" in sentence


def test_unpaired_seeds_do_not_enter_the_means(folder):
    for seed in (3, 4):
        write_result(folder, "QCoOp", "base", seed, 10.0, bits=1, stored_bytes=68)
    pairs = pair_runs(read_results(folder))
    row = summarise(pairs).set_index("trainer").loc["QCoOp"]
    assert (row["base_mean"], row["new_mean"], row["seeds"]) == (83.0, 65.0, 2)
    assert "over 2 runs" in comparisons(pairs)[0]


def test_no_verdict_without_whole_pairs(tmp_path):
    write_result(tmp_path, "CoOp", "base", 1, 80.0)
    write_result(tmp_path, "QCoOp", "base", 1, 82.0, bits=1)
    assert comparisons(pair_runs(read_results(tmp_path))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no complete result"),
        ('{"format_version": 1}', "no complete result"),
        ('{"format_version": 9}', "format version 9, this program reads 1"),
    ],
)
def test_unreadable_results_are_named(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UnreadableResultError, match=message) as error:
        read_results(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value)


def test_the_same_run_twice_counts_once_or_is_named(folder):
    write_result(folder / "copy", "CoOp", "base", 1, 80.0)
    assert "85.00 ± 7.07" in write_report(folder)
    write_result(folder / "copy", "CoOp", "base", 1, 99.0)
    with pytest.raises(ValueError, match="two different results for one run.*move one away"):
        write_report(folder)


def test_empty_folder_ends_with_a_message(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "reporting", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no results.json below")
