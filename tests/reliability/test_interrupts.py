"""Ctrl-C and requests to terminate, at any moment: nothing hangs, and the same command goes on."""

import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from dassl.config import get_cfg_default
from dassl.data import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.utils import ProgressBar, defer_signals, exit_on_signals

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_hang(capfd):
    """End the tests with a traceback where they would wait for ever; late signals do nothing."""
    with capfd.disabled():
        faulthandler.dump_traceback_later(600, exit=True)
    handlers = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def loader(tmp_path):
    """Batches of decoded images, by two threads and with nothing kept."""
    cfg = get_cfg_default()
    cfg.merge_from_list(["INPUT.SIZE", (8, 8), "DATALOADER.PIXEL_CACHE_MB", 0])
    items = [Datum(str(tmp_path / f"{i}.png"), label=i) for i in range(12)]
    for item in items:
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(item.impath)
    transform = build_transform(cfg, True, ("random_flip",))
    return build_data_loader(cfg, "RandomSampler", items, 2, transform)


def send(number, delay):
    timer = threading.Timer(delay, os.kill, (os.getpid(), number))
    timer.start()
    return timer


@pytest.mark.parametrize("times", [50, pytest.param(5000, marks=pytest.mark.slow)])
def test_interrupted_loader_ends_with_its_threads(loader, times):
    moments = random.Random(0)
    for _ in range(times):
        with pytest.raises(SystemExit) as end, exit_on_signals(), defer_signals():
            timer = send(signal.SIGINT, moments.uniform(0, 0.02))
            while True:
                for _ in ProgressBar(loader):
                    pass
        assert end.value.code == 130
        timer.join()
        del end  # the frames of its traceback hold the loader
        assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def interrupt_runs(start):
    """Start a command with a signal at a random moment, a few times, and then without one."""
    moments, codes = random.Random(0), []
    for times, number in enumerate([signal.SIGINT, signal.SIGTERM, signal.SIGINT], start=1):
        timer = send(number, times * moments.uniform(0.05, 0.2))
        try:
            start()
        except SystemExit as end:
            assert end.code == 128 + number
            codes.append(end.code)
        timer.join()
    assert codes
    start()


# where Python drops an exception, it says so, and the signal is taken at the next batch
DROPPED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@DROPPED
def test_interrupted_run_goes_on_to_the_same_end(main, result, tmp_path):
    options = {"opts": ["OPTIM.MAX_EPOCH", 4, "TRAIN.CHECKPOINT_FREQ", 1]}
    main("QCoOp", tmp_path / "quiet", **options)
    interrupt_runs(lambda: main("QCoOp", tmp_path / "disturbed", **options))
    assert result(tmp_path / "disturbed")["metrics"] == result(tmp_path / "quiet")["metrics"]


@DROPPED
def test_interrupted_sweep_ends_at_once_and_records_no_failure(tmp_path, data_root, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    grid = {"protocol": "few_shot", "trainers": ["CoOp"], "datasets": ["digits"], "shots": [1]}
    grid |= {"config": "tiny", "seeds": [1, 2], "opts": {"OPTIM.MAX_EPOCH": 3}}
    flags = ["--root", str(data_root), "--output-dir", str(tmp_path), "--sweep", json.dumps(grid)]
    interrupt_runs(lambda: train.main(flags))
    assert len(list(tmp_path.rglob("results.json"))) == 2
    assert not list(tmp_path.rglob("error.txt"))


def test_the_same_signal_again_ends_at_once_and_an_ignored_one_stays_ignored():
    program = """
import signal
from dassl.utils import defer_signals, exit_on_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with exit_on_signals(), defer_signals():
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    print("goes on", flush=True)
    signal.raise_signal(signal.SIGINT)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "goes on\n")
