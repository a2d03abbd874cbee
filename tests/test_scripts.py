"""Which Python the scripts use, and that they install nothing where nothing is missing."""

import os
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# stands in for a Python: notes what it is asked for, and lacks what the environment says
PYTHON = """#!/usr/bin/env bash
echo "$(basename "$(dirname "$0")") $*" >>"$LOG"
case "$*" in
    *parse_args*) exec {python} "$@" ;;
    *missing.py*) [[ $0 == *.venv* ]] || { echo "$LACKS"; [[ -z $LACKS ]]; } ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """Run base2new.sh in a copy of the repository; return the process and what Pythons did."""
    for name in ("scripts", "sweeps", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("active", "base"):
        (tmp_path / name).mkdir()
        python = tmp_path / name / ("python" if name == "active" else "python3")
        python.write_text(PYTHON.replace("{python}", sys.executable))
        python.chmod(0o755)
    log = tmp_path / "log"

    def run(*arguments, active=True, lacks="", **variables):
        path = f"{tmp_path}/base:{os.environ['PATH']}"
        if active:
            path, variables = f"{tmp_path}/active:{path}", {"VIRTUAL_ENV": "active", **variables}
        done = subprocess.run(
            ["bash", str(tmp_path / "scripts/base2new.sh"), *arguments],
            env={"PATH": path, "LOG": str(log), "LACKS": lacks, **variables},
            capture_output=True,
            text=True,
        )
        did = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return done, [line for line in did if " -c " not in line and "--version" not in line]

    return run


ARGUMENTS = ("QCoOp", "digits", "1")
SWEEP = f"-m sweeps base2new {' '.join(ARGUMENTS)}"


def test_an_active_environment_that_has_all_is_used(run):
    done, did = run(*ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert did == ["active scripts/missing.py train", f"active {SWEEP}"]


def test_dot_venv_is_made_once_where_there_is_no_other(run):
    for options in ({"active": False}, {"lacks": "torch>=2.6"}):
        done, did = run(*ARGUMENTS, **options)
        assert done.returncode == 0, done.stderr
        assert ("lacks torch>=2.6: .venv is used" in done.stderr) is ("lacks" in options)
        made = "base -m venv .venv" in did
        assert made is ("active" in options), "the second time it is there"
        assert any("pip install" in line for line in did) is made
        assert did[-1] == f"bin {SWEEP}"


def test_a_python_that_is_named_is_used_or_refused(run, tmp_path):
    named = str(tmp_path / "base/python3")
    done, did = run(*ARGUMENTS, QPROMPT_PYTHON=named)
    assert done.returncode == 0 and did == ["base scripts/missing.py train", f"base {SWEEP}"]
    done, did = run(*ARGUMENTS, QPROMPT_PYTHON=named, lacks="yacs>=0.1.8")
    assert done.returncode == 1 and len(did) == 1
    assert done.stderr.startswith(f"error: QPROMPT_PYTHON={named} lacks yacs>=0.1.8")


def test_a_dot_venv_of_the_users_own_is_kept(run, tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(tmp_path / "base/python3", tmp_path / ".venv/bin/python")
    (tmp_path / ".venv/mine").touch()
    done, did = run(*ARGUMENTS, active=False)
    assert done.returncode == 0 and did == ["bin scripts/missing.py train", f"bin {SWEEP}"]
    assert (tmp_path / ".venv/mine").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("QCoop", "digits", "1"), 2, 'there is no "QCoop", but QCoCoOp'),
        (("QCoOp", "digit", "1"), 2, 'there is no "digit", but digits'),
        (("QCoOp", "digits", "one"), 2, 'SEED: must be a whole number 0 or more, got "one"'),
        ((*ARGUMENTS, "2", "9"), 2, 'BITS: must be a whole number from 1 to 8, got "9"'),
        ((*ARGUMENTS, "--shots", "0"), 2, '--shots: must be a whole number 1 or more, got "0"'),
        ((*ARGUMENTS, "--jobs", "0"), 2, '--jobs: must be a whole number 1 or more, got "0"'),
        ((*ARGUMENTS, "--opts", "OPTIM.LR"), 2, "OPTIM.LR has no value"),
        (("QCoOp", "digits"), 2, "required: SEED"),
        ((*ARGUMENTS, "--config", "tinny"), 2, 'for QCoOp there is no "tinny", but tiny'),
        (("--help",), 0, "usage"),
    ],
)
def test_arguments_are_checked_before_anything_is_installed(run, arguments, code, message):
    done, did = run(*arguments, active=False)
    assert done.returncode == code and did == []
    assert message in done.stdout + done.stderr


def test_tests_that_there_are_not_are_found_at_once(run, tmp_path):
    done = subprocess.run(
        ["bash", str(tmp_path / "scripts/test.sh"), "-k", "x", "tests/test_nothing.py::test"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (2, "error: there is no tests/test_nothing.py\n")


def test_what_is_missing_is_listed(monkeypatch):
    missing = runpy.run_path(str(REPOSITORY / "scripts/missing.py"))["missing"]
    assert missing(["test"]) == []
    installed = metadata.version

    def version(name):
        if name == "yacs":
            raise metadata.PackageNotFoundError
        return {"torch": "2.3.1+cpu"}.get(name) or installed(name)

    monkeypatch.setattr(metadata, "version", version)
    assert missing(["test"]) == ["torch>=2.6 (there is 2.3.1+cpu)", "yacs>=0.1.8"]
