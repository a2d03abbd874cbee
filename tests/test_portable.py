"""Windows and macOS: everything imports without the modules that only Unix has."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("clip", "dassl", "datasets", "qprompt", "reporting", "sweeps", "trainers", "benchmarks")

PROGRAM = """
import importlib, os, signal, sys

ours = sys.argv[1:]
for name in ours:  # and with them all packages of others, which have their own ways
    importlib.import_module(name)
for name in [name for name in sys.modules if name.split(".")[0] in ours]:
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
for module, names in {
    os: ("fork", "getuid", "sched_getaffinity", "uname", "mkfifo", "killpg", "setsid"),
    signal: ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "setitimer"),
}.items():
    for name in names:
        delattr(module, name)
for name in ours:
    importlib.import_module(name)
"""


def test_everything_imports_without_what_only_unix_has():
    files = {path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")}
    files.remove(REPOSITORY / "qprompt/use/classify.py")  # a program that export copies
    names = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in sorted(files)]
    names = [name.removesuffix(".__init__") for name in names]
    command = [sys.executable, "-c", PROGRAM, "train", *names]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
