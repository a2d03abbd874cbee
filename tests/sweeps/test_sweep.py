"""Sweeps of train.py in one process: they equal single runs, go on, and report what failed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from sweeps.grid import read_grids
from sweeps.jobs import expand

REPOSITORY = Path(__file__).parents[2]


def folders(output, *grids):
    jobs = expand(read_grids(json.dumps(grids)), "DATA", str(output))
    return [run.folder for job in jobs for run in job.runs]


def flat(node, prefix=""):
    """Leaves of nested dicts and lists, by their path."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def assert_same(first, second):
    first, second = dict(flat(first)), dict(flat(second))
    assert first.keys() == second.keys()
    for key, value in first.items():
        other = second[key]
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        assert same, key


def assert_same_run(folder, other):
    """Everything that two runs leave agrees, but for times, memory and where they are."""
    records = []
    for place in (folder, other):
        record = dict(flat(json.loads((place / "results.json").read_text())))
        for key in ("wall_time_s", "peak_memory_bytes", "weights"):
            del record[key]
        records.append({k: v for k, v in record.items() if not k.endswith("OUTPUT_DIR")})
    assert_same(*records)
    for path in folder.rglob("model.pth.tar*"):
        twin = other / path.relative_to(folder)
        assert_same(*(torch.load(file, weights_only=True) for file in (path, twin)))
    for path in folder.rglob("*.safetensors"):
        assert_same(load_file(path), load_file(other / path.relative_to(folder)))
    names = [
        {path.name for path in place.rglob("*") if not path.name.startswith((".", "events"))}
        for place in (folder, other)
    ]
    assert names[0] == names[1]


def test_runs_of_a_sweep_equal_runs_of_their_own_bit_for_bit(
    sweep, process, quick, data_root, tmp_path
):
    """Also those that come late in the process, after runs of other trainers and data sets."""
    grids = [
        quick("few_shot", trainers=["CoOp"], datasets=["characters"]),
        quick("base2new", trainers=["QCoOp", "MaPLe"], datasets=["digits"], seeds=[1, 2]),
    ]
    assert sweep(tmp_path / "sweep", *grids, together=1) == 0
    jobs = expand(read_grids(json.dumps(grids)), str(data_root), str(tmp_path / "alone"))
    late = [job for job in jobs if job.training.folder.name == "seed2"]
    assert len(late) == 2
    for job in late:
        done = process(*job.training.argv)
        assert done.returncode == 0, done.stderr
        (evaluation,) = job.evaluations
        train.main(evaluation.argv)
        for run in job.runs:
            twin = tmp_path / "sweep" / run.folder.relative_to(tmp_path / "alone")
            assert_same_run(run.folder, twin)


def test_runs_that_train_together_equal_single_ones_and_themselves(sweep, quick, tmp_path):
    """Single ones up to rounding, themselves from one start to the next bit for bit."""
    trainers = ["CoOp", "QCoOp", "CoCoOp", "QMaPLe"]
    grid = quick("base2new", datasets=["digits"], trainers=trainers, bits=[2], seeds=[1, 2])
    first, again, alone = (tmp_path / name for name in ("first", "again", "alone"))
    assert sweep(first, grid) == sweep(again, grid) == sweep(alone, grid, together=1) == 0
    for folder in folders(first, grid):
        assert_same_run(folder, again / folder.relative_to(first))
        single = alone / folder.relative_to(first)
        texts = [(place / "log.txt").read_text() for place in (folder, single)]
        assert len(texts[0].splitlines()) == len(texts[1].splitlines())
        for path in folder.rglob("model.pth.tar*"):
            states = [
                torch.load(p, weights_only=True)["state_dict"]
                for p in (path, single / path.relative_to(folder))
            ]
            for name, tensor in states[0].items():
                if not name.endswith("checksum"):
                    torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-4)


def test_finished_runs_are_skipped_and_others_of_their_name_refused(sweep, quick, tmp_path, capsys):
    grid = quick("base2new", datasets=["digits"])
    assert sweep(tmp_path, grid) == 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    times = {path: time for path, time in times.items() if path.name != ".lock"}
    capsys.readouterr()
    assert sweep(tmp_path, grid) == 0
    assert capsys.readouterr() == ("", "2 of 2 runs finished\n")
    assert times == {path: path.stat().st_mtime_ns for path in times}

    trained, _ = folders(tmp_path, grid)
    record = json.loads((trained / "results.json").read_text())
    evaluated = {**record, "weights": "other/prompt_learner/model.pth.tar-1"}
    (trained / "results.json").write_text(json.dumps(evaluated))
    assert sweep(tmp_path, grid) == 1
    assert "differs in weights ('other/prompt_learner/" in capsys.readouterr().err
    (trained / "results.json").write_text(json.dumps(record))
    times[trained / "results.json"] = (trained / "results.json").stat().st_mtime_ns

    changed = quick("base2new", datasets=["digits"], opts={"OPTIM.MAX_EPOCH": 3})
    assert sweep(tmp_path, changed) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("0 of 2 runs finished\n")
    for text in captured:
        assert text.count("differs in OPTIM.MAX_EPOCH (2 -> 3)") == 2
    assert not list(tmp_path.rglob("error.txt"))

    assert sweep(tmp_path, grid) == 0
    assert capsys.readouterr() == ("", "2 of 2 runs finished\n")
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_processes_side_by_side_see_results_of_another_run(sweep, quick, data_root, tmp_path):
    """Their launcher sees nothing but folders, in which everything looks finished."""
    output, file = tmp_path / "out", tmp_path / "sweep.yaml"
    grid = quick("few_shot", trainers=["ZeroshotCLIP"], datasets=["digits"])
    assert sweep(output, grid) == 0
    file.write_text(json.dumps(grid | {"opts": {"OPTIM.MAX_EPOCH": 3}}))
    launch = [sys.executable, "-m", "sweeps", "file", str(file), "--root", str(data_root)]
    launch += ["--output", str(output), "--jobs", "2"]
    done = subprocess.run(launch, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("0 of 1 runs finished\n")
    assert "differs in OPTIM.MAX_EPOCH (2 -> 3)" in done.stderr


def test_failing_runs_are_recorded_and_do_not_stop_the_rest(sweep, quick, tmp_path, capsys):
    grid = quick("base2new", datasets=["eurosat", "digits"])
    assert sweep(tmp_path, grid) == 1
    eurosat_base, eurosat_new, base, new = folders(tmp_path, grid)
    captured = capsys.readouterr()
    assert "2 of 4 runs finished" in captured.err
    assert "EuroSAT expects its images under" in captured.err
    for folder in (base, new):
        assert (folder / "results.json").exists()
    assert not eurosat_new.exists()
    assert "Traceback" in (eurosat_base / "error.txt").read_text()
    assert "DatasetNotFoundError: EuroSAT" in (eurosat_base / "log.txt").read_text()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ({"OPTIM.LRR": 1}, 'Unknown config key "OPTIM.LRR".*did you mean "OPTIM.LR"'),
        ({"OPTIM.LR": "high"}, '"OPTIM.LR" in the command line must be a float'),
        ({"TRAINER.QPROMPT.INTERVAL": 0}, "TRAINER.QPROMPT: interval must be .* got 0"),
    ],
)
def test_a_wrong_configuration_is_found_before_the_first_run(sweep, quick, tmp_path, opts, message):
    grids = [quick("base2new", datasets=["digits"]), quick("few_shot", opts=opts)]
    assert re.match(f"error: .*{message}", sweep(tmp_path / "out", *grids))
    assert not (tmp_path / "out").exists()


def test_one_job_of_a_sweep_is_a_job_that_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sweep = "{protocol: few_shot, trainers: [CoOp], datasets: [dtd], config: tiny, seeds: [1, 2]}"
    flags = ["--root", "DATA", "--output-dir", str(tmp_path / "out"), "--sweep", sweep]
    for job in ("2", "-1"):
        with pytest.raises(SystemExit, match=f"^error: --sweep-job must be from 0 to 1, got {job}"):
            train.main([*flags, "--sweep-job", job])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--root", "x", "--sweep", "[]"], "names no grid"),
        (["--root", "x", "--sweep-job", "0"], "--sweep-job .* give --sweep"),
        (["--root", "x", "--sweep", "[]", "--seed", "1"], "seed.*belong"),
        (["--root", "x", "--sweep", "[]", "OPTIM.LR", "1"], "opts.*belong"),
        (["--sweep", "[]"], "--sweep needs --root"),
        (["--root", "x", "--sweep", "[]", "--together", "0"], "--together is auto or .*got 0"),
        (["--root", "x", "--sweep", "[]", "--jobs", "two"], "--jobs is auto or .*got two"),
        (["--root", "x", "--sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["--root", "x", "--sweep", "{protocol: few_shot}"], "trainers is missing"),
    ],
)
def test_a_wrong_command_ends_in_one_line(flags, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        train.main(flags)


def test_a_sweep_is_no_task_for_torchrun(sweep, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert "without torchrun" in sweep(tmp_path, quick("few_shot", datasets=["digits"]))


# ---- single runs


def test_errors_of_the_user_are_one_line_with_the_traceback_in_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    flags = [
        *("--root", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")),
        *("--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny.yaml"),
        *("--dataset-config-file", "configs/datasets/eurosat.yaml"),
    ]
    with pytest.raises(SystemExit, match="^error: EuroSAT expects its images under") as end:
        train.main(flags)
    assert "\n" not in end.value.code
    log = (tmp_path / "run/log.txt").read_text()
    assert "Traceback" in log and "DatasetNotFoundError" in log


def test_mistakes_in_the_program_keep_their_traceback(monkeypatch, tmp_path):
    def mistake(cfg, cache):
        raise AttributeError("no such thing")

    monkeypatch.setattr(train, "build_trainer", mistake)
    stdout = sys.stdout
    with pytest.raises(AttributeError):
        train.main(["--output-dir", str(tmp_path)])
    assert sys.stdout is stdout
    assert "AttributeError: no such thing" in (tmp_path / "log.txt").read_text()


def test_ctrl_c_is_answered_with_what_to_do(monkeypatch, tmp_path, capsys):
    def interrupted(cfg, cache):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "build_trainer", interrupted)
    with pytest.raises(SystemExit) as end:
        train.main(["--output-dir", str(tmp_path)])
    assert end.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
