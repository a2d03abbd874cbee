"""Short runs on digits, and what train.py --eval-only makes of their images."""

from types import SimpleNamespace

import pytest

FAST = ["OPTIM.MAX_EPOCH", 1, "OPTIM.WARMUP_EPOCH", -1, "OPTIM.LR", 0.02]


@pytest.fixture
def trained(build, tmp_path):
    """Train a quantized learner on the base classes, and return its packed prompt."""

    def trained(trainer, *opts, name="prompt"):
        run = build(trainer, tmp_path / "run", opts=[*FAST, *opts])
        run.train()
        (packed,) = (tmp_path / "run").glob(f"*/{name}.safetensors")
        return packed

    return trained


@pytest.fixture
def evaluated(build):
    """Evaluate a packed prompt as train.py does: a hundred images and their logits."""

    def evaluated(trainer, packed, half, *opts):
        run = build(trainer, "", opts=[*FAST, "DATASET.SUBSAMPLE_CLASSES", half, *opts])
        run.load_model(str(packed))
        run.set_model_mode("eval")
        logits, labels = next(iter(run.scores(run.test_loader)))
        items = run.dm.dataset.test[: len(logits)]
        paths = [item.impath for item in items]
        return SimpleNamespace(
            logits=logits, labels=labels, paths=paths, classnames=run.dm.dataset.classnames
        )

    return evaluated
