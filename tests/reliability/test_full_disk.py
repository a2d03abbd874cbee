"""A disk that fills up: one line says what to do, nothing is damaged, the run goes on later."""

import contextlib
import errno
import io
import json
import os
import re
import resource
import sys
from pathlib import Path

import pytest

import train
from dassl.utils import OutputDirError
from dassl.utils.scalars import ScalarWriter
from reporting.__main__ import main as report

REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def files_of_at_most(size):
    """Let each file end after some bytes, as on a full disk; what is printed goes nowhere."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full(monkeypatch):
    """Return a context in which the files of a name do not fit on the disk."""

    @contextlib.contextmanager
    def full(name):
        replace = os.replace

        def refuse(source, target, **options):
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            yield

    return full


def files(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def check_line(line, name):
    """The line names file, bytes and remedy; nothing else is said."""
    assert re.search(r"[\d,]+ bytes are needed.*free space there", line), line
    assert line.startswith("error: ") and "\n" not in line
    assert re.search(rf"/{name}['\"]", line), line


def test_each_file_of_a_run_may_be_the_one_that_does_not_fit(main, result, full, tmp_path):
    main("QCoOp", tmp_path / "quiet")
    folder = tmp_path / "run"
    for name in ("config.json", "model.pth.tar-2", "checkpoint", "prompt.safetensors"):
        before = files(folder)
        with full(name), pytest.raises(SystemExit) as end:
            main("QCoOp", folder)
        check_line(end.value.code, name)
        now = files(folder)
        assert all(now[path] == content for path, content in before.items())
        assert not [path for path in now if re.fullmatch(r"\.(?!lock$).*|.*\.tmp", path.name)]
    with full("results.json"), pytest.raises(SystemExit) as end:
        main("QCoOp", folder)
    check_line(end.value.code, "results.json")
    main("QCoOp", folder)
    assert result(folder)["metrics"] == result(tmp_path / "quiet")["metrics"]


@pytest.mark.parametrize(("size", "name"), [(10, "log.txt"), (20_000, "model.pth.tar-2")])
def test_log_and_checkpoint_on_a_full_disk(main, tmp_path, size, name):
    main("CoOp", tmp_path / "quiet")  # its image features are kept
    stdout = sys.stdout
    with files_of_at_most(size), pytest.raises(SystemExit) as end:
        main("CoOp", tmp_path / "run")
    assert re.fullmatch(f'error: Cannot write ".*/{name}" .*free space there.*', end.value.code)
    assert sys.stdout is stdout
    main("CoOp", tmp_path / "run")


def test_curves_on_a_full_disk(tmp_path):
    writer = ScalarWriter(tmp_path)
    with files_of_at_most(10), pytest.raises(OutputDirError, match=r"tfevents.* bytes are needed"):
        writer.close()
    writer.close()


def test_sweep_on_a_full_disk(full, data_root, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(REPOSITORY)
    grid = {"protocol": "few_shot", "trainers": ["CoOp"], "datasets": ["digits"], "shots": [1]}
    grid |= {"config": "tiny", "seeds": [1], "opts": {"OPTIM.MAX_EPOCH": 1}}
    flags = ["--root", str(data_root), "--output-dir", str(tmp_path), "--sweep", json.dumps(grid)]
    with full("results.json"), pytest.raises(SystemExit) as end:
        train.main(flags)
    assert end.value.code == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "failed" in line)
    check_line("error: " + line.split("failed: ")[1], "results.json")
    train.main(flags)


def test_report_on_a_full_disk(main, full, monkeypatch, tmp_path):
    main("ZeroshotCLIP", tmp_path / "runs")
    monkeypatch.setattr(sys, "argv", ["reporting", str(tmp_path), "--output", f"{tmp_path}/report"])
    with full("report.html"), pytest.raises(SystemExit) as end:
        report()
    check_line(end.value.code, "report.html")
    assert files(tmp_path / "report") == {}
    report()
    assert (tmp_path / "report/report.html").exists()
