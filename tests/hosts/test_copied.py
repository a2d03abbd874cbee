"""docs/integrate.md, done: the files copied into a repository laid out as upstream's, and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "integrate.md"
UPSTREAM = Path(__file__).parent / "upstream" / "train.py"
LEARNER = '''
import copy

from dassl.engine import TRAINER_REGISTRY
from trainers.maple import MaPLe


@TRAINER_REGISTRY.register()
class PromptSRC(MaPLe):
    """A learner of the fork that ends with the mean of all epochs' weights."""

    total = None

    def forward_backward(self, batch):
        summary = super().forward_backward(batch)
        if self.batch_idx + 1 == self.num_batches:
            state = copy.deepcopy(self.model.state_dict())
            for key in state:
                state[key] = state[key] * (0.999999 / self.max_epoch)
                if self.total:
                    state[key] = state[key] + self.total[key]
            self.total = state
            if self.epoch + 1 == self.max_epoch:
                self.model.load_state_dict(self.total, strict=False)
        return summary
'''

pytest.importorskip("torchvision", reason="the repository's engine needs torchvision")


def section(title):
    return PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def fence(title, language):
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.M | re.S)
    return block


def applied(diff, text, only=None):
    """`text` after a diff whose hunks are found by their context; `only`: the hunk of that name."""
    parts = re.split(r"^@@ (.*) @@\n", diff, flags=re.M)
    for name, hunk in zip(parts[1::2], parts[2::2], strict=True):
        lines = hunk.splitlines()
        before, after = (
            "".join(f"{line[1:]}\n" for line in lines if line[:1] != skipped) for skipped in "+-"
        )
        assert text.count(before) == 1, f"the page's context is not in train.py: {before}"
        if only in (None, name):
            text = text.replace(before, after)
    return text


@pytest.fixture
def repository(tmp_path):
    """A fork that knows nothing of quantization, but that its own loader takes packed prompts."""
    folder = tmp_path / "fork"
    skip = shutil.ignore_patterns("__pycache__", "q*.py")
    for package in ("dassl", "clip", "datasets", "configs", "trainers"):
        shutil.copytree(ROOT / package, folder / package, ignore=skip)
    (folder / "trainers" / "__init__.py").write_text("import trainers.config\n")
    config = folder / "trainers" / "config.py"
    config.write_text(re.sub(r".*add_config.*\n", "", config.read_text()))
    assert "qprompt" not in config.read_text()
    shutil.copy(UPSTREAM, folder)
    return folder


def copy_in(folder, *trainers):
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "qprompt", folder / "qprompt", ignore=skip)
    for name in trainers:
        shutil.copy(ROOT / "trainers" / f"{name}.py", folder / "trainers")


def patch(folder, title, only=None):
    script = folder / "train.py"
    script.write_text(applied(fence(title, "diff"), script.read_text(), only))


@pytest.fixture
def run(repository, data_root):
    """Start train.py there; the result is its results.json."""

    def run(trainer, output, *flags, config="CoOp", opts=()):
        command = [sys.executable, "train.py", "--root", str(data_root), "--seed", "1"]
        command += ["--trainer", trainer, "--output-dir", output]
        command += ["--dataset-config-file", "configs/datasets/digits.yaml"]
        command += ["--config-file", f"configs/trainers/{config}/tiny.yaml", *flags]
        command += ["DATASET.NUM_SHOTS", "2", "DATASET.SUBSAMPLE_CLASSES", "base"]
        command += ["OPTIM.MAX_EPOCH", "2", *opts]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            command, cwd=repository, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert (repository / "qprompt" / "__pycache__").exists(), "another qprompt was imported"
        return json.loads((repository / output / "results.json").read_text())

    return run


def test_a_user_of_coop(repository, run):
    copy_in(repository, "qcoop", "qcocoop")
    patch(repository, "CoOp", only="imports")
    assert run("QCoOp", "default")["bits"] == 1, "without add_config the defaults apply"

    shutil.copy(UPSTREAM, repository)
    patch(repository, "CoOp")
    two_bits = ["TRAINER.QPROMPT.BITS", "2"]
    trained = run("QCoOp", "trained", opts=two_bits)
    assert trained["bits"] == 2 and trained["stored_bytes"] == 4 * 128 * 2 // 8 + 4 * 2
    assert (repository / "trained" / "prompt_learner" / "prompt.safetensors").exists()
    flags = ["--eval-only", "--model-dir", "trained", "--load-epoch", "2"]
    assert run("QCoOp", "evaluated", *flags, opts=two_bits)["metrics"] == trained["metrics"]


def test_a_user_of_maple_and_of_another_learner(repository, run):
    copy_in(repository, "qcoop", "qcocoop", "qmaple")
    (repository / "trainers" / "promptsrc.py").write_text(LEARNER)
    learner = fence("Any other learner", "python")
    (repository / learner.split("\n")[0].lstrip("# ")).write_text(learner)
    script = repository / "train.py"
    script.write_text(
        script.read_text().replace("maple\n", "maple\nimport trainers.promptsrc\n", 1)
    )
    patch(repository, "MaPLe")
    patch(repository, "Any other learner")
    assert run("QMaPLe", "maple", config="MaPLe", opts=["TRAINER.QPROMPT.BITS", "4"])["bits"] == 4
    trained = run("QPromptSRC", "averaged", config="MaPLe")
    flags = ["--eval-only", "--model-dir", "averaged", "--load-epoch", "2"]
    again = run("QPromptSRC", "evaluated", *flags, config="MaPLe")
    assert trained["bits"] == 1 and again["metrics"] == trained["metrics"]
