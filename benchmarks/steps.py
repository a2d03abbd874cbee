"""Whole training steps: shared against full text encoding, quantized against plain trainers."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import clip
import qprompt
import train
from benchmarks.measure import Row, Side, compare
from benchmarks.runs import arguments, make_images
from dassl.engine import build_trainer
from dassl.utils import Cache, set_random_seed
from qprompt.quantizer import Quantizer
from trainers.base import COMPILE_MODES, PromptTrainer

SECTION = "Training step"


def measure(backbone: str, names: Sequence[str], folder: Path, precision: str) -> Iterator[Row]:
    """Yield a row for each trainer and text encoding, and for each quantized trainer.

    Args:
        backbone: what ``--backbone`` takes.
        names: class names.
        folder: for images and outputs.
        precision: PREC of the trainers.
    """
    build = builder(backbone, names, folder, precision)
    coop, maple, qcoop, qmaple = map(build, ("CoOp", "MaPLe", "QCoOp", "QMaPLe"))
    full_coop, full_maple = (
        build(name, "MODEL.TEXT_ENCODING", "full") for name in ("CoOp", "MaPLe")
    )
    where = f"{len(names)} classes"
    batch, tokens = _batch_size(coop), coop.settings.N_CTX
    full, shared = _step(full_coop), _step(coop)
    measured, _ = compare({"full": full, "shared": shared}, seconds=240)
    yield Row(SECTION, f"CoOp, batch {batch}, {tokens} context tokens, {where}", measured)
    measured, _ = compare({"open_clip": _plain(full), "shared": shared}, seconds=240)
    yield Row(SECTION, f"CoOp on open_clip's own towers, {where}", measured)
    batch, depth = _batch_size(maple), maple.settings.PROMPT_DEPTH
    measured, _ = compare({"full": _step(full_maple), "shared": _step(maple)}, seconds=240)
    yield Row(SECTION, f"MaPLe, batch {batch}, depth {depth}, {where}", measured)
    for plain, quantized in ((coop, qcoop), (maple, qmaple)):
        reference, name = plain.cfg.TRAINER.NAME, quantized.cfg.TRAINER.NAME
        step = _step(quantized)
        measured, _ = compare({reference: _step(plain), name: step}, seconds=240)
        share = _quantizing(step) / measured[name].median
        note = f"forward and step of the quantizers: {100 * share:.2f}% of the step"
        numbers = {"quantizers_share": share}
        yield Row(SECTION, f"{name} beside {reference}, {where}", measured, note, numbers)


def measure_compiled(
    backbone: str, names: Sequence[str], folder: Path, precision: str
) -> Iterator[Row]:
    """Yield a row for each trainer and mode of TRAIN.COMPILE; arguments as for :func:`measure`."""
    build = builder(backbone, names, folder, precision)
    for name in ("CoOp", "QCoOp", "MaPLe", "QMaPLe"):
        plain = _step(build(name))
        for mode in COMPILE_MODES[1:]:
            step = _step(build(name, "TRAIN.COMPILE", mode))
            step(), step()  # which compiles it
            measured, _ = compare({"none": plain, mode: step}, seconds=240)
            yield Row("Compiled step", f"{name}, {precision}, {len(names)} classes", measured)


def builder(
    backbone: str, names: Sequence[str], folder: Path, precision: str
) -> Callable[..., PromptTrainer]:
    """Return what builds a trainer by its name, with further settings, on one backbone for all."""
    root = folder / f"images-{len(names)}"
    make_images(root, names)
    cache: Cache = {}

    def build(trainer: str, *opts: object) -> PromptTrainer:
        node = "MAPLE" if "MaPLe" in trainer else "COOP"
        opts = (f"TRAINER.{node}.PREC", precision, *opts)
        given = arguments(trainer, "folder", root, backbone, folder / "out", *opts)
        cfg = train.setup_cfg(train.parse_args(given))
        set_random_seed(cfg.SEED)
        built = build_trainer(cfg, cache)
        built.cache = None  # its steps encode their images, as those of a run of its own
        return built

    return build


def _batch_size(trainer: PromptTrainer) -> int:
    return trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE


def _step(trainer: PromptTrainer) -> Side:
    """Return a training step on random images."""
    prepare(trainer)
    data = random_batch(trainer)
    return lambda: trainer.forward_backward(data)


def prepare(trainer: PromptTrainer) -> None:
    """Let a trainer take steps outside its loop."""
    trainer.set_model_mode("train")
    trainer.batch_idx, trainer.num_batches = 0, 2


def random_batch(trainer: PromptTrainer) -> dict[str, Tensor]:
    """Return a batch of random images on the trainer's device."""
    batch = _batch_size(trainer)
    images = torch.randn(batch, 3, *trainer.cfg.INPUT.SIZE)
    data = {"img": images, "label": torch.arange(batch) % trainer.dm.num_classes}
    return {key: value.to(trainer.device) for key, value in data.items()}


def _plain(step: Side) -> Side:
    """Let open_clip encode the images, as in code that takes its towers as they are."""

    def encode_image(model: nn.Module, images: Tensor, prompts: clip.Prompts) -> Tensor:
        return model.encode_image(images)

    def run() -> object:
        with mock.patch("clip.encode_image", encode_image):
            return step()

    return run


def _quantizing(step: Side) -> float:
    """Return the median seconds that a training step spends in its quantizers."""
    spent = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent[-1] += time.perf_counter() - begin
            return result

        return run

    with (
        mock.patch.object(Quantizer, "forward", timed(Quantizer.forward)),
        mock.patch("qprompt.dassl.step_", timed(qprompt.step_)),
    ):
        for _ in range(5):
            step()
            spent.append(0.0)
    return statistics.median(spent[:-1])
