"""Every trainer in half and in mixed precision, on a CPU as well."""

import pytest
import torch

import clip
from dassl.engine import TRAINER_REGISTRY
from qprompt.dassl import Quantized
from trainers import base

CLASSES = {name: TRAINER_REGISTRY.get(name) for name in TRAINER_REGISTRY.registered_names()}
TRAINERS = [
    name
    for name, trainer in CLASSES.items()
    if issubclass(trainer, base.PromptTrainer)
    and trainer.__module__.startswith("trainers.")
    and name != "TipAdapter"  # which trains nothing
]
DTYPES = {"fp16": torch.float16, "amp": torch.float32}
BRIEF = ["OPTIM.MAX_EPOCH", 1, "OPTIM.WARMUP_EPOCH", -1, "TEST.NO_TEST", True]


@pytest.fixture(autouse=True)
def as_with_a_gpu(monkeypatch):
    """Nothing turns into float32; autocast is to bfloat16 on a CPU."""
    monkeypatch.setattr(base, "resolve_precision", lambda precision, device: precision)


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_training_moves_all_that_is_trained(build, tmp_path, trainer, precision):
    options = [f"TRAINER.{CLASSES[trainer].node}.PREC", precision, *BRIEF]
    run = build(trainer, tmp_path, opts=options)
    assert clip.compute_dtype(run.model.backbone) == DTYPES[precision]
    step, start = run.forward_backward, []

    def trained():
        return [p for p in run.model.parameters() if p.requires_grad]

    def forward_backward(batch):
        start[:] = start or [p.detach().clone() for p in trained()]
        return step(batch)

    run.forward_backward = forward_backward
    run.train()
    pairs = [pair for pair in zip(trained(), start, strict=True) if pair[0].grad is not None]
    assert pairs
    for parameter, before in pairs:
        moved = (parameter != before).float().mean()
        assert parameter.isfinite().all() and moved > 0
        if issubclass(CLASSES[trainer], Quantized) or precision == "amp":
            assert parameter.dtype == torch.float32
        assert parameter.dtype != torch.float32 or moved > 0.9, "small steps are lost"
