"""Jobs in one process, with stand-ins for runs: order, failures, interruption, locks."""

import errno
import fcntl
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from dassl.utils.folder import LOCK
from sweeps import records
from sweeps.jobs import Job, Run
from sweeps.work import split, work


@pytest.fixture
def jobs(tmp_path):
    """Two jobs on two data sets, each a training run ("0a") and two evaluations ("0b", "0c")."""

    def run(name):
        return Run(tmp_path / name, (str(tmp_path / name),))

    return [Job(f"data{i}", 1, run(f"{i}a"), (run(f"{i}b"), run(f"{i}c"))) for i in range(2)]


class Runs:
    """Stands in for train.py: writes results, or raises what it was told to for a folder."""

    def __init__(self, **errors):
        self.started = []
        self.errors = errors

    def __call__(self, argv, cache):
        folder = Path(argv[0])
        if (folder / records.RESULTS).exists():
            return
        self.started.append(folder.name)
        if error := self.errors.get(f"run{folder.name}"):
            raise error
        print("what a run logs")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / records.RESULTS).write_text(json.dumps({"metrics": {"accuracy": 50.0}}))


def test_each_process_has_its_part_of_each_data_set(tmp_path):
    run = Run(tmp_path, ())
    jobs = [Job(data, seed, run, ()) for data, n in (("a", 5), ("b", 3)) for seed in range(n)]
    parts = [*split(jobs, 2)]
    assert [job for part in parts for job in part] == jobs
    assert [(part[0].dataset, len(part)) for part in parts] == [
        *(("a", 3), ("a", 2)),
        *(("b", 2), ("b", 1)),
    ]


def test_everything_runs_once_and_in_order(jobs, capsys):
    runs = Runs()
    work(jobs, runs)
    assert runs.started == ["0a", "0b", "0c", "1a", "1b", "1c"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 6  # a line when a run starts and one when it ends, and none of its own
    assert lines[1] == f"[1/6] {jobs[0].training.folder}: accuracy 50.00"
    assert records.summarize(jobs) == ("6 of 6 runs finished", True)
    work(jobs, runs)
    assert len(runs.started) == 6
    assert capsys.readouterr().out == ""


def test_a_failing_evaluation_is_recorded_and_the_rest_goes_on(jobs, capsys):
    runs = Runs(run0b=ValueError("no\nimages"))
    work(jobs, runs)
    assert runs.started == ["0a", "0b", "0c", "1a", "1b", "1c"]
    failed = jobs[0].evaluations[0].folder
    assert f"[2/6] {failed}: failed: no images" in capsys.readouterr().out
    record = (failed / records.ERROR).read_text()
    assert record.startswith("no images\n\nTraceback") and "ValueError: no" in record
    text, complete = records.summarize(jobs)
    assert not complete
    assert text.splitlines() == [
        "5 of 6 runs finished",
        f"{failed}: no images (traceback: error.txt there)",
    ]
    work(jobs, Runs())
    assert not (failed / records.ERROR).exists() and records.summarize(jobs)[1]


def test_nothing_is_evaluated_without_its_training(jobs):
    runs = Runs(run0a=RuntimeError("diverged"))
    work(jobs, runs)
    assert runs.started == ["0a", "1a", "1b", "1c"]
    text, _ = records.summarize(jobs)
    assert "3 of 6 runs finished" in text and "diverged" in text
    assert f"{jobs[0].evaluations[0].folder} and 1 more: not run" in text


def test_a_run_that_leaves_no_results_has_failed(jobs):
    work(jobs[:1], lambda argv, cache: None)
    text, _ = records.summarize(jobs[:1])
    assert "results.json" in text and "TEST.NO_TEST" in text


def test_a_folder_that_cannot_be_made_fails_its_job_alone(jobs, capsys):
    """As when somebody else owns it, or the disk is full: the reason can be recorded nowhere."""
    training = jobs[0].training.folder
    training.write_text("a file is in the way")
    runs = Runs()
    failures = work(jobs, runs)
    assert runs.started == ["1a", "1b", "1c"]
    message = f'Cannot create the folder "{training}" (File exists): choose a writable one'
    assert f"[1/6] {training}: failed: {message}" in capsys.readouterr().out
    text, complete = records.summarize(jobs, failures)
    assert not complete
    assert text.splitlines()[:2] == ["3 of 6 runs finished", f"{training}: {message}"]


def test_an_evaluation_that_cannot_write_fails_alone(jobs):
    jobs[0].evaluations[0].folder.write_text("a file is in the way")
    runs = Runs()
    text, _ = records.summarize(jobs, work(jobs, runs))
    assert runs.started == ["0a", "0b", "0c", "1a", "1b", "1c"]
    assert "5 of 6 runs finished" in text and "File exists" in text
    assert records.ERROR not in text  # there is none to look at


def test_a_file_system_without_locks_is_named(jobs, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    runs = Runs()
    text, complete = records.summarize(jobs, work(jobs, runs))
    assert not runs.started and not complete
    lock = jobs[1].training.folder / LOCK
    assert f'Cannot lock "{lock}" (No locks available): choose an output folder on' in text


def test_results_of_another_run_fail_without_a_trace_in_their_folder(jobs, tmp_path, capsys):
    def refuse(argv, cache):
        raise RuntimeError("results.json is of another run")

    def content():
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    work(jobs, Runs())
    capsys.readouterr()
    before = content()
    failures = work(jobs, refuse)
    assert content() == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(": failed: results.json is of another" in it for it in lines)
    text, complete = records.summarize(jobs, failures)
    assert not complete and text.splitlines() == [
        "0 of 6 runs finished",
        f"{jobs[0].training.folder} and 5 more: results.json is of another run",
    ]

    assert work(jobs, Runs()) == {}
    assert capsys.readouterr().out == "" and content() == before
    assert records.summarize(jobs) == ("6 of 6 runs finished", True)


def test_interruption_ends_the_sweep_and_records_no_failure(jobs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        work(jobs, Runs(run0b=KeyboardInterrupt()))
    assert not list(tmp_path.rglob(records.ERROR))
    runs = Runs()
    work(jobs, runs)
    assert runs.started == ["0b", "0c", "1a", "1b", "1c"]


def test_things_are_shared_while_the_data_set_stays_the_same(jobs):
    caches = []

    def start(argv, cache):
        caches.append(cache)
        Runs()(argv, cache)

    work(jobs, start)
    assert [cache is caches[0] for cache in caches] == [True] * 3 + [False] * 3
    assert caches[3] is caches[4] is caches[5]


def test_each_run_shows_its_warnings_and_leaves_filters_alone(jobs):
    caught = []

    def start(argv, cache):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("default")
            for _ in range(2):
                warnings.warn("once for each place and process", stacklevel=1)
        caught.append(len(found))
        warnings.simplefilter("ignore")
        Runs()(argv, cache)

    before = list(warnings.filters)
    work(jobs[:1], start)
    assert caught == [1, 1, 1]
    assert list(warnings.filters) == before


def test_what_another_process_works_on_is_left_to_it(jobs):
    lock = jobs[0].training.folder / LOCK
    lock.parent.mkdir(parents=True)
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"locked\n"
        runs = Runs()
        work(jobs, runs)
        assert runs.started == ["1a", "1b", "1c"]
        assert "or another process is on it" in records.summarize(jobs)[0]
        other.kill()  # a process that dies lets go
    work(jobs, runs)
    assert runs.started[3:] == ["0a", "0b", "0c"]


def test_locks_without_fcntl(jobs, monkeypatch):
    """As under Windows."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    lock = jobs[0].training.folder / LOCK
    lock.parent.mkdir(parents=True)
    runs = Runs()
    with FileLock(lock):
        work(jobs, runs)
    assert runs.started == ["1a", "1b", "1c"]
    assert work(jobs, runs) == {}
    assert runs.started[3:] == ["0a", "0b", "0c"]
