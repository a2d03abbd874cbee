"""All sections but the sweep in small sizes: what they find, not how long it takes."""

import gc
import json
from pathlib import Path

import pytest

from benchmarks import kmeans, together
from benchmarks.__main__ import main

REPOSITORY = Path(__file__).parents[2]
SECTIONS = ("kmeans", "step", "together", "evaluation", "text")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The folder of a finished run with the tiny model."""
    folder = tmp_path_factory.mktemp("benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(kmeans, "N", 2**14)
        patch.setattr(together, "RUNS", (1, 3))
        arguments = ["--architecture", "tiny", "--classes", "5", "--output", str(folder)]
        main([*arguments, "--only", *SECTIONS])
    yield folder
    gc.unfreeze()


@pytest.fixture(scope="module")
def rows(output):
    return json.loads((output / "benchmarks.json").read_text())["rows"]


def numbers(rows, name):
    """The numbers of the rows that have one of this name."""
    found = [row["numbers"] for row in rows if name in row["numbers"]]
    assert found
    return found


def test_rows_compare_two_sides(rows):
    assert len({row["section"] for row in rows}) == len(SECTIONS)
    for row in rows:
        repeats = [
            len(side[unit])
            for side in row["sides"].values()
            for unit in ("seconds", "user_seconds", "system_seconds")
        ]
        assert len(repeats) == 6 and len(set(repeats)) == 1, row


def test_report_names_machine_and_rows(output, rows):
    report = (output / "benchmarks.md").read_text()
    for key in ("command", "commit", "date", "precision of trainers", "processor"):
        assert f"- {key}: " in report
    for row in rows:
        for side in [*row["sides"], "ratio"]:
            assert f"\n| {row['name']} | {side} | " in report


def test_shared_text_encoding_is_exact_and_keeps_less(rows):
    for found in numbers(rows, "relative_difference"):
        assert found["relative_difference"] < 1e-5
        assert found["shared_saved_bytes"] < found["full_saved_bytes"]


def test_kmeans_is_no_worse_than_others(rows):
    for found in numbers(rows, "squares_ratio"):
        assert found["squares_ratio"] < 1.001


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--names", "nowhere.txt"], "nowhere.txt"),
        (["--classes", "1001"], "1000 class names, not 1001"),
        (["--threads", "0"], "argument --threads: 0 is not positive"),
        (["--precision", "fp23"], "invalid choice: 'fp23'"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    line = error.value.code if isinstance(error.value.code, str) else capsys.readouterr().err
    assert message in line.splitlines()[-1]
