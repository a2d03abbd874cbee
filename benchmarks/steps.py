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

import qprompt
import train
from benchmarks.measure import Row, compare
from benchmarks.runs import arguments, make_images
from dassl.engine import build_trainer
from dassl.utils import set_random_seed, sharing
from qprompt.quantizer import Quantizer

SECTION = "Training step"


def measure(weights: str, names: Sequence[str], folder: Path, precision: str) -> Iterator[Row]:
    """Yield a row for each trainer and text encoding, and for each quantized trainer.

    Args:
        weights: file of a backbone.
        names: class names.
        folder: for images and outputs.
        precision: PREC of the trainers.
    """
    root = folder / "images"
    make_images(root, names)

    def step(trainer: str, batch: int, *opts: object) -> Callable[[], object]:
        node = "MAPLE" if "MaPLe" in trainer else "COOP"
        opts = (f"TRAINER.{node}.PREC", precision, *opts)
        given = arguments(trainer, "folder", root, weights, folder / "out", *opts)
        cfg = train.setup_cfg(train.parse_args(given))
        set_random_seed(cfg.SEED)
        built = build_trainer(cfg)
        built.set_model_mode("train")
        built.batch_idx, built.num_batches = 0, 2
        images = torch.randn(batch, 3, *cfg.INPUT.SIZE)
        data = {"img": images, "label": torch.arange(batch) % len(names)}
        return lambda: built.forward_backward(data)

    where = f"{len(names)} classes"
    with sharing():  # one backbone for all; not while measuring, since features would be shared
        coop, maple = step("CoOp", 32), step("MaPLe", 4)
        qcoop, qmaple = step("QCoOp", 32), step("QMaPLe", 4)
        full = step("CoOp", 32, "MODEL.TEXT_ENCODING", "full")
        full_maple = step("MaPLe", 4, "MODEL.TEXT_ENCODING", "full")
    pairs = [
        (f"CoOp, batch 32, 16 context tokens, {where}", {"full": full, "shared": coop}),
        (f"CoOp on open_clip's own towers, {where}", {"open_clip": _plain(full), "shared": coop}),
        (f"MaPLe, batch 4, depth 9, {where}", {"full": full_maple, "shared": maple}),
        (f"QCoOp beside CoOp, {where}", {"CoOp": coop, "QCoOp": qcoop}),
        (f"QMaPLe beside MaPLe, {where}", {"MaPLe": maple, "QMaPLe": qmaple}),
    ]
    for name, sides in pairs:
        measured = compare(sides, seconds=240)
        note = ""
        if "beside" in name:
            quantized = list(sides)[1]
            share = _quantizing(sides[quantized]) / measured[quantized].median
            note = f"forward and step of the quantizers: {100 * share:.2f}% of the step"
        yield Row(SECTION, name, measured, note)


def _plain(step: Callable[[], object]) -> Callable[[], object]:
    """Let open_clip encode the images, as in code that takes its towers as they are."""

    def run() -> object:
        with mock.patch("clip.encode_image", lambda model, images: model.encode_image(images)):
            return step()

    return run


def _quantizing(step: Callable[[], object]) -> float:
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
