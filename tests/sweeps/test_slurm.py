"""Job arrays: what is submitted to Slurm, and that the jobs do their work."""

import json
import os
import sys
from pathlib import Path

import pytest

from sweeps import SweepError, records, slurm
from sweeps import __main__ as program
from sweeps.grid import read_grids

REPOSITORY = Path(__file__).parents[2]

pytest.importorskip("submitit")


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A folder of stand-ins for Slurm's programs; sbatch keeps what it is given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in (("sbatch", f'cp "$1" {tmp_path}/submitted; echo job 7'), ("srun", "true")):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path / "submitted"


def submit(output, *flags):
    arguments = ["base2new", "QCoOp", "digits", "1", "1", "2", "--config", "tiny"]
    options = ["--root", "DATA", "--output", str(output), "--launcher", "slurm", *flags]
    return program.launch(program.parse_args([*arguments, *options]))


def test_one_array_element_for_each_job_that_is_left(cluster, tmp_path, capsys):
    flags = ("--partition", "big", "--minutes", "90", "--gpus", "2", "--jobs", "8")
    assert submit(tmp_path / "out", *flags)
    script = cluster.read_text()
    for line in ("partition=big", "time=90", "gpus-per-node=2", "array=0-1%2", "cpus-per-task=8"):
        assert f"#SBATCH --{line}" in script, line
    assert "2 of 2 jobs submitted" in capsys.readouterr().out

    for half in ("train_base", "test_new"):
        done = tmp_path / "out/base2new" / half / "digits/shots_16/QCoOp/tiny_1bit/seed1"
        done.mkdir(parents=True)
        (done / "results.json").write_text("{}")
    cluster.unlink()
    assert submit(tmp_path / "out", "--gpus", "0")
    assert "1 of 2 jobs submitted" in capsys.readouterr().out
    assert "--array=" not in cluster.read_text() and "--gpus" not in cluster.read_text()


def test_elements_do_what_the_sweep_file_said_when_it_was_submitted(monkeypatch, tmp_path):
    submitted = []
    monkeypatch.setattr(slurm, "submit", lambda command, *_, **__: submitted.extend(command))
    file = tmp_path / "sweep.yaml"
    file.write_text("{protocol: few_shot, trainers: [CoOp], datasets: [digits], seeds: [4]}")
    grids = read_grids(str(file))
    arguments = ["file", str(file), "--output", str(tmp_path / "out"), "--launcher", "slurm"]
    assert program.launch(program.parse_args(arguments))
    file.unlink()
    assert read_grids(submitted[submitted.index("--sweep") + 1]) == grids


def test_nothing_is_submitted_when_all_is_finished(monkeypatch, cluster, tmp_path, capsys):
    monkeypatch.setattr(records, "is_finished", lambda run: True)
    assert submit(tmp_path / "out")
    assert "0 of 2 jobs submitted" in capsys.readouterr().out
    assert not cluster.exists()


def test_without_slurm_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match="--launcher slurm: .*srun"):
        submit(tmp_path / "out")


def test_what_slurm_refuses_is_said_in_its_words(cluster, tmp_path):
    refusing = tmp_path / "bin/sbatch"
    refusing.write_text("#!/bin/sh\necho 'invalid partition specified: big' >&2; exit 1\n")
    with pytest.raises(SweepError, match="invalid partition specified: big"):
        submit(tmp_path / "out", "--partition", "big")


def test_without_submitit_the_message_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SweepError, match=r'pip install "clip-qprompt\[slurm\]"'):
        submit(tmp_path / "out")


def test_submitted_jobs_are_those_of_the_sweep(monkeypatch, data_root, tmp_path):
    """With submitit's local executor: processes on this machine."""
    monkeypatch.chdir(REPOSITORY)
    sweep = {"protocol": "few_shot", "trainers": ["ZeroshotCLIP", "CoOp"], "datasets": ["digits"]}
    sweep |= {"config": "tiny", "seeds": [1], "shots": [1], "opts": {"OPTIM.MAX_EPOCH": 1}}
    command = [sys.executable, "train.py", "--root", str(data_root)]
    command += ["--output-dir", str(tmp_path / "out"), "--sweep", json.dumps(sweep)]
    jobs = slurm.submit([*command, "--sweep-job"], [1], tmp_path / "slurm", "local", timeout_min=5)
    (result,) = (job.result() for job in jobs)
    assert "digits/CoOp/tiny_1shots/nctx4_cscFalse_ctpend/seed1: accuracy" in result[0]
    found = [path.parents[3].name for path in tmp_path.rglob("results.json")]
    assert found == ["CoOp"]
