"""Runs of train.py that are killed at a chosen file operation, each in a fork of this process.

Reads a request from each line of stdin, and answers on stdout:

    {"argv": [...], "folder": "...", "kill_at": 7, "others": 0}
    ->  {"status": -9, "operations": [...]}

Operations are what changes files below the folder: opened for writing, renamed, removed, given
other rights, and folders made, in the order in which they happen. The process is killed before
the one of that number, from 0. What is written to a file between two operations needs none of its
own: until it is renamed, nobody reads it. "others" do the same side by side with it, to their end.
"""

import contextlib
import json
import os
import signal
import sys

import torch

import train

# what runs import late, once for all of them
import sklearn.metrics  # isort: skip # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import torchvision.transforms.v2  # noqa: F401

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.chmod"}


def is_write(event, args):
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def child(argv, folder, kill_at, report):
    """Run train.py, and leave what it did in the file ``report``."""
    operations = []

    def audit(event, args):
        if not is_write(event, args) or isinstance(args[0], int):
            return
        path = os.path.abspath(os.fsdecode(args[1 if event == "os.rename" else 0]))
        name = path.removeprefix(folder + os.sep)
        # TensorBoard writes from a thread, at any time
        if name == path or "tensorboard" in name:
            return
        if len(operations) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        operations.append(f"{event} {name}")

    sys.addaudithook(audit)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        train.main(argv)
    with open(report, "w") as file:
        json.dump(operations, file)


def fork(*args, **options):
    """Start :func:`child` in a fork, and return its process."""
    pid = os.fork()
    if not pid:
        child(*args, **options)
        os._exit(0)
    return pid


def main():
    torch.set_num_threads(1)
    report = sys.argv[1]
    for line in sys.stdin:
        request = json.loads(line)
        others = [
            fork(request["argv"], request["folder"], None, os.devnull)
            for _ in range(request.pop("others"))
        ]
        pid = fork(**request, report=report)
        status, *_ = (os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in [pid, *others])
        operations = None
        if status == 0:
            with open(report) as file:
                operations = json.load(file)
        print(json.dumps({"status": status, "operations": operations}), flush=True)


if __name__ == "__main__":
    main()
