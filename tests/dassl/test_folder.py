"""The folder of a run: who holds it, and what is cleared away in it."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from dassl.utils import FolderInUseError, NoLocksError, atomic_write, hold

fcntl = pytest.importorskip("fcntl")

HOLDER = """
import sys
from dassl.utils import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLDER, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_one_process_holds_a_folder_until_it_dies(tmp_path, holder):
    message = f'"{tmp_path}" is in use by process {holder.pid} on {os.uname().nodename}: wait'
    for _ in range(2):  # asking leaves the holder's name
        with pytest.raises(FolderInUseError, match=message), hold(tmp_path):
            pytest.fail("two hold it")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with hold(tmp_path):
        pass


def test_second_start_of_a_run_is_refused(main, tmp_path, holder):
    before = sorted(tmp_path.iterdir())
    for flags in ([], ["--eval-only", "--model-dir", "anywhere"]):
        with pytest.raises(SystemExit, match=f"^error: .*in use by process {holder.pid}"):
            main("ZeroshotCLIP", tmp_path, *flags)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_held_can_be_held_again(tmp_path):
    """As by a run of a sweep that holds its folder already."""
    with hold(tmp_path):
        with hold(tmp_path / "." / "below" / ".."):
            pass
        check = f"from dassl.utils import hold\nwith hold({str(tmp_path)!r}): pass"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
        assert f"in use by process {os.getpid()}" in done.stderr


@pytest.mark.parametrize("name", ["results.json", "checkpoint", "model.pth.tar-3"])
def test_files_that_are_being_written_are_known(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "replace", os.link)  # the temporary file stays
    with atomic_write(tmp_path / name, "w"):
        pass
    assert len(list(tmp_path.iterdir())) == 2
    with hold(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", name]


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path):
    model = tmp_path / "prompt_learner"
    model.mkdir()
    unfinished = [
        tmp_path / ".results.json.k2_x9ab1",
        tmp_path / ".results-val.json.k2_x9ab1",
        tmp_path / ".config.json.k2_x9ab1",
        tmp_path / ".error.txt.k2_x9ab1",
        model / ".checkpoint.k2_x9ab1",
        model / ".model.pth.tar-12.k2_x9ab1",
        model / ".model-best.pth.tar.k2_x9ab1",
        model / "prompt-best.safetensors.4711.tmp",
    ]
    kept = [
        tmp_path / ".lock",
        tmp_path / ".notes.txt.k2_x9ab1",
        tmp_path / "results.json",
        tmp_path / "mine.safetensors.4711.tmp",
        model / "model.pth.tar-12",
        model / "prompt.safetensors",
        model / "seed2" / ".results.json.k2_x9ab1",  # of another run, which may be alive
    ]
    (model / "seed2").mkdir()
    for path in unfinished + kept:
        path.touch()
    with hold(tmp_path):
        assert not [path for path in unfinished if path.exists()]
        assert all(path.exists() for path in kept)


def test_without_locks_a_run_warns_and_a_sweep_stops(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(NoLocksError, match="Function not implemented"), hold(tmp_path):
        pass
    with pytest.warns(UserWarning, match="or start nothing else"), hold(tmp_path, required=False):
        pass
