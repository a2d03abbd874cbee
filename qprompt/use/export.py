"""From a run or a checkpoint to a packed prompt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..api import named_quantizers, quantize_
from ..assignment import STORED
from ..dassl import BEST, BEST_CHECKPOINT, LAST
from ..dassl_config import TRAINING_KEYS, compact_json, describe_data
from ..errors import InvalidOptionError
from ..packed_file import PackedFile
from ..packing import pack
from .checkpoint import learned_values, read_checkpoint, restore_learner

NODES = {"KgCoOp": "COOP", "ProGrad": "COOP"}  # the others' nodes have their names
PLAIN = torch.finfo(STORED).bits  # of a number that is not quantized
UPSTREAM_WORDS = "a photo of a"  # CTX_INIT of MaPLe and what follows it, where nobody says another


class Source(NamedTuple):
    """What a prompt is exported from.

    Attributes:
        packed: a packed prompt, if there is one.
        checkpoint: the same in full precision, if there is one.
        run: folder with the records of the run.
    """

    packed: Path | None
    checkpoint: Path | None
    run: Path


def find_source(path: str) -> Source:
    """Find the prompt of a run's folder, a checkpoint or a packed file.

    The best epoch's, if the run kept it, else the last one's; of MaPLe the form for inference.

    Raises:
        InvalidOptionError: nothing of that kind lies there.
    """
    source = Path(path)
    if source.suffix == ".safetensors":
        return Source(source, None, source.parent.parent)
    if not source.is_dir():
        return Source(None, source, source.parent.parent)
    for folder in (source, *sorted(filter(Path.is_dir, source.iterdir()))):
        checkpoint, name = folder / BEST_CHECKPOINT, BEST
        if not checkpoint.exists():
            numbered = folder.glob("model.pth.tar-*")
            last = max(numbered, key=lambda file: int(file.suffix[5:]), default=None)
            checkpoint, name = last or checkpoint, LAST
        forms = (folder / f"{name}{form}.safetensors" for form in ("-inference", ""))
        packed = next(filter(Path.exists, forms), None)
        if packed or checkpoint.exists():
            return Source(packed, checkpoint if checkpoint.exists() else None, folder.parent)
    raise InvalidOptionError(f"'{path}' holds no checkpoint and no packed prompt: name a run's one")


def export(
    path: str,
    output: str,
    bits: int | None = None,
    trainer: str | None = None,
    backbone: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> int:
    """Write the packed prompt of a run or a checkpoint.

    A prompt that was trained on so many bits is written as it was packed; other weights are
    quantized after training, as with MODE ptq.

    Args:
        path: folder of a run, a checkpoint of ours or upstream's, or a packed prompt.
        output: file to write; an existing one is not replaced.
        bits: None: those that the prompt was trained with, or else 1; 16: half precision, nothing
            quantized.
        trainer, backbone, settings: what a checkpoint alone does not say; settings are keys of the
            trainer's configuration node, such as CTX_INIT.

    Returns:
        Bytes of the payload.

    Raises:
        InvalidOptionError: the output exists, the source is packed at other bits and there is no
            checkpoint, or nobody says what the backbone is.
        CheckpointReadError, PackedFileError, OSError: the source cannot be read.
    """
    if os.path.exists(output):
        raise InvalidOptionError(f"'{output}' exists: move it away, or choose another name")
    source = find_source(path)
    if source.packed is not None:
        packed = PackedFile.read(source.packed)
        if bits in (None, *(tensor.bits for tensor in packed.quantized.values())):
            metadata = {**packed.metadata, **_accuracies(source.run)}
            return packed._replace(metadata=metadata).write(output)
    if source.checkpoint is None:
        raise InvalidOptionError(
            f"'{path}' has other bits than {bits}, and no checkpoint lies beside it to quantize"
        )
    learner = restore_learner(read_checkpoint(str(source.checkpoint)), bits)
    if bits != PLAIN and not any(named_quantizers(learner)):
        quantize_(learner, bits or 1)
    metadata = _describe(learner, source, trainer, backbone, settings or {})
    if bits == PLAIN:
        values = {name: value.to(STORED) for name, value in learned_values(learner).items()}
        return PackedFile({}, values, metadata).write(output)
    return pack(learner, output, **metadata)


def _describe(
    learner: nn.Module,
    source: Source,
    trainer: str | None,
    backbone: str | None,
    settings: Mapping[str, Any],
) -> dict[str, str]:
    config = _read_record(source.run / "config.json").get("config", {})
    nodes = config.get("TRAINER", {})
    trainer = trainer or nodes.get("NAME") or guess_trainer(learner)
    plain = trainer.removeprefix("Q")
    backbone = backbone or config.get("MODEL", {}).get("BACKBONE", {}).get("NAME")
    if backbone is None:
        raise InvalidOptionError(
            f"'{source.checkpoint}' does not say which CLIP it was trained on: give --backbone"
        )
    node = NODES.get(plain, plain.upper())
    words = "" if node in ("COOP", "COCOOP") else UPSTREAM_WORDS
    recorded = {"CTX_INIT": words, **nodes.get(node, {}), **settings}
    shaping = {key: value for key, value in recorded.items() if key not in TRAINING_KEYS}
    recorded = {node: shaping}
    for _, quantizer in named_quantizers(learner):
        trainer = f"Q{plain}"
        recorded["QPROMPT"] = {"BITS": quantizer.bits, "MODE": "ptq"}
    results = _read_record(source.run / "results.json")
    return {
        "trainer": trainer,
        "backbone": backbone,
        "ctx_init": str(shaping["CTX_INIT"]),
        "settings": compact_json(recorded),
        **describe_data(config, results.get("classnames")),
    }


def guess_trainer(learner: nn.Module) -> str:
    """Name the trainer by the names of what it learned.

    Raises:
        InvalidOptionError: they are none of CoOp, CoCoOp, MaPLe, IVLP and VPT.
    """
    names = learned_values(learner)
    marks = {
        "meta_net.linear1.weight": "CoCoOp",
        "ctx": "CoOp",
        "prompt_learner.proj.weight": "MaPLe",
        "prompt_learner.ctx": "IVLP",
        "image_encoder.VPT": "VPT",
    }
    for mark, trainer in marks.items():
        if mark in names:
            return trainer
    raise InvalidOptionError(
        f"nothing says whose the weights {', '.join(sorted(names)[:3])} are: give --trainer"
    )


def _accuracies(run: Path) -> dict[str, str]:
    """What the run was tested with, if it was."""
    results = _read_record(run / "results.json")
    if "metrics" not in results:
        return {}
    of_what = f"{results.get('dataset')}, {results.get('subsample_classes')} classes"
    return {"accuracies": compact_json({of_what: results["metrics"]["accuracy"]})}


def _read_record(path: Path) -> dict[str, Any]:
    """A JSON file of a run; empty if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise InvalidOptionError(f"'{path}' is not the record of a run ({error})") from error
