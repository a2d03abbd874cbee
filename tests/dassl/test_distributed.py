"""Two processes under torchrun against one."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dassl.utils import distributed, read_json

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def torchrun(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def losses(log):
    """Value and average of each logged batch."""
    return [float(x) for pair in re.findall(r"loss ([\d.]+) \(([\d.]+)\)", log) for x in pair]


def assert_same(one, two, model, epochs):
    """Compare records, checkpoints and generators of two runs."""
    ours, theirs = (read_json(folder / "results.json") for folder in (two, one))
    for key in ("metrics", "confusion", "per_class", "epoch"):
        assert ours[key] == theirs[key]
    for epoch in epochs:
        a, b = (
            torch.load(folder / model / f"model.pth.tar-{epoch}", weights_only=True)
            for folder in (one, two)
        )
        a["state_dict"], b["state_dict"] = (
            {k: t for k, t in checkpoint["state_dict"].items() if not k.endswith("checksum")}
            for checkpoint in (a, b)
        )
        torch.testing.assert_close(b["state_dict"], a["state_dict"], rtol=1e-5, atol=1e-6)
        assert torch.equal(a["rng"]["torch"], b["rng"]["torch"])


def test_two_processes_are_one(make_trainer, tmp_path, capsys):
    """With batches of 5, so that shares differ, interrupted and resumed."""
    opts = ["DATALOADER.TRAIN_X.BATCH_SIZE", 5, "TRAIN.CHECKPOINT_FREQ", 1]
    opts += ["TEST.FINAL_MODEL", "best_val", "TRAIN.PRINT_FREQ", 1, "DATALOADER.NUM_WORKERS", 1]
    make_trainer(*opts, "TRAINER.NAME", "SteadyTrainer", out="one").train()
    log = capsys.readouterr().out

    out = tmp_path / "two"
    run = Path(__file__).with_name("two_processes.py"), out, tmp_path / "data"
    cut = torchrun(*run, 2, *opts)
    assert cut.returncode and "conftest.Interrupted" in cut.stderr, cut.stderr
    assert not (out / "results.json").exists()
    resumed = torchrun(*run, 0, *opts)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("Finish training") == 1

    assert_same(tmp_path / "one", out, "learner", (1, 2, 3, 4))
    logs = sorted(out.glob("log.txt*"))
    assert len(logs) == 2  # of the run that died and of the one that went on
    ours = losses("".join(path.read_text() for path in logs))
    assert len(ours) == 4 * 4 * 2 and ours == pytest.approx(losses(log), abs=2e-4)
    names = {path.name for path in out.iterdir()} - {path.name for path in logs}
    assert names == {"config.json", "learner", "results.json", "tensorboard"}
    assert len(list((out / "tensorboard").iterdir())) == 2


def test_command_line(tmp_path):
    """QCoOp, so that codebooks move as well; its evaluation on kept features, by halves."""
    train = pytest.importorskip("train")

    def argv(out, *flags):
        return [
            *("--root", str(tmp_path / "data"), "--output-dir", str(tmp_path / out), *flags),
            *("--dataset-config-file", "configs/datasets/digits.yaml", "--trainer", "QCoOp"),
            *("--config-file", "configs/trainers/QCoOp/tiny.yaml", "--seed", "1"),
            *("DATASET.NUM_SHOTS", "3", "OPTIM.MAX_EPOCH", "2", "OPTIM.WARMUP_EPOCH", "-1"),
            *("DATALOADER.TRAIN_X.BATCH_SIZE", "7", "TRAINER.QPROMPT.BITS", "2"),
            *("TRAINER.QPROMPT.INTERVAL", "2", "TRAINER.QPROMPT.KL_THRESHOLD", "0.0"),
        ]

    train.main(argv("one"))
    done = torchrun("train.py", *argv("two"))
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "two", "prompt_learner", (2,))
    one, two = (read_json(tmp_path / out / "results.json") for out in ("one", "two"))
    assert one["codebook_fits"] == two["codebook_fits"] > 2


SILENT = """
import time
from datetime import timedelta
from dassl.utils import distributed
distributed.TIMEOUT = timedelta(seconds=2)
with distributed.process_group(use_cuda=False):
    assert distributed.fraction(3) == 0.5
    if distributed.rank() == 1:
        time.sleep(300)
    distributed.fraction(3)
"""


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run(tmp_path):
    (tmp_path / "silent.py").write_text(SILENT)
    begin = time.monotonic()
    done = torchrun(tmp_path / "silent.py")
    assert (
        done.returncode
        and "process 0 lost another one, or heard nothing from it for 2 s" in done.stderr
    )
    assert time.monotonic() - begin < 60


def in_process(monkeypatch, rank, of):
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: of)


@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_shares_make_up_the_whole(monkeypatch, of):
    for n in range(of, 12):
        parts = []
        for rank in range(of):
            in_process(monkeypatch, rank, of)
            parts.append(distributed.share(list(range(n))))
        assert sum(parts, []) == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_errors(monkeypatch, make_trainer):
    in_process(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match="1 images cannot be shared among 2.*BATCH_SIZE"):
        distributed.share([0])
    with pytest.raises(ValueError, match="SEED is -1"):
        make_trainer("SEED", -1)


def test_one_process_is_the_main_one():
    with distributed.process_group():
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.is_main() and not torch.distributed.is_initialized()
    assert distributed.fraction(7) == 1
