"""The record of a run: results.json, and the guard against mixing two runs in one folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, read_json, write_json

FORMAT_VERSION = 1
MAX_EPOCH = "OPTIM.MAX_EPOCH"

# keys that cannot change a result, beyond the last bits; results.json lists them for its readers
IRRELEVANT_SETTINGS = {
    "OUTPUT_DIR",
    "RESUME",
    "VERBOSE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.PIXEL_CACHE_MB",
    "DATALOADER.TEST.BATCH_SIZE",
    "MODEL.TEXT_CHUNK",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.COMPILE",
    "TRAIN.PRINT_FREQ",
    "TEST.COMPUTE_CMAT",
    "TEST.FEATURE_CACHE",
    "TEST.NO_TEST",
    "TEST.PER_CLASS_RESULT",
    "TRAINER.QPROMPT.STATISTICS",
}


class RunMismatchError(UserError, RuntimeError):
    """A folder that holds another run."""


def config_dict(cfg: CfgNode) -> dict[str, Any]:
    """Return a configuration as nested dicts of JSON values, DATASET.ROOT as an absolute path."""
    config = json.loads(json.dumps(cfg))
    if config["DATASET"]["ROOT"]:
        config["DATASET"]["ROOT"] = os.path.realpath(os.path.expanduser(config["DATASET"]["ROOT"]))
    return config


def check_same_run(
    path: str | os.PathLike[str], cfg: CfgNode, longer: bool = False, **fields: Any
) -> bool:
    """Check that the record at ``path``, if there is one, is of a run like this one.

    The data sets may have moved to another DATASET.ROOT.

    Args:
        path: a JSON file with a "config".
        cfg: the configuration of this run; keys that only one of both has are not compared.
        longer: whether this run may have more epochs.
        fields: further entries of the record and the values that they must have.

    Returns:
        Whether it has more epochs.

    Raises:
        RunMismatchError: it is of another run, or unreadable; the message names what differs.
    """
    if not os.path.exists(path):
        return False
    advice = (
        "Go back to its settings, choose another OUTPUT_DIR, or move the old run away; a single "
        "run can train on from its checkpoint with RESUME and another OUTPUT_DIR"
    )
    try:
        record = read_json(path)
        old = dict(flatten(record["config"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RunMismatchError(f'"{path}" is not the record of a run. {advice}') from error
    new = dict(flatten(config_dict(cfg)))
    free = set(IRRELEVANT_SETTINGS)
    if _may_move(cfg.DATASET.NAME):
        free.add("DATASET.ROOT")
    has_more_epochs = longer and old.get(MAX_EPOCH, new[MAX_EPOCH]) < new[MAX_EPOCH]
    if has_more_epochs:
        free.add(MAX_EPOCH)
    shared = [key for key in new if key in old and key not in free]
    differing = [f"{key} ({old[key]!r} -> {new[key]!r})" for key in shared if old[key] != new[key]]
    differing += [
        f"{key} ({record.get(key)!r} -> {value!r})"
        for key, value in fields.items()
        if record.get(key) != value
    ]
    if differing:
        raise RunMismatchError(
            f'"{path}" is of another run, which differs in {", ".join(differing)}. {advice}'
        )
    return has_more_epochs


def check_same_images(path: str | os.PathLike[str], dataset: Any, cfg: CfgNode) -> None:
    """Check that a run which goes on has the images that it was started with.

    Args:
        path: config.json, which says so unless it is missing or of version 0.1.0.
        dataset: the data set.
        cfg: the configuration.

    Raises:
        RunMismatchError: it has others.
    """
    recorded = read_json(path).get("images") if os.path.exists(path) else None
    if recorded not in (None, digest_images(dataset, cfg.DATASET.ROOT)):
        raise RunMismatchError(
            f'"{path}" is of a run on other images: those of {cfg.DATASET.NAME}, or their classes '
            "or parts, have changed since. Restore them, choose another OUTPUT_DIR, or move the "
            "old run away"
        )


def digest_images(dataset: Any, root: str) -> str:
    """Return a hash of the images of a data set: parts, paths below ``root``, labels and names."""
    total = hashlib.blake2b(digest_size=16)
    above = os.path.join(os.path.abspath(os.path.expanduser(root)), "")
    for part in ("train_x", "train_u", "val", "test"):
        total.update(f"{part}\n".encode())
        for item in getattr(dataset, part) or ():
            line = f"{item.impath.removeprefix(above)}\0{item.label}\0{item.classname}\n"
            total.update(line.encode(errors="surrogateescape"))  # a path need not be UTF-8
    return total.hexdigest()


def _may_move(dataset: str) -> bool:
    """Whether a data set is the same one below another root; a host's own may not be registered."""
    registered = dataset in DATASET_REGISTRY.registered_names()
    return registered and not getattr(DATASET_REGISTRY.get(dataset), "named_by_root", False)


def save(record: Mapping[str, Any], path: str | os.PathLike[str], replace: bool) -> None:
    """Write the record of a run.

    Args:
        record: JSON values.
        path: results.json.
        replace: whether it takes the place of a record that is there.

    Raises:
        RunMismatchError: a record is there that is not to be replaced, and has other metrics.
    """
    if not replace and os.path.exists(path):
        if read_json(path)["metrics"] != record["metrics"]:
            raise RunMismatchError(
                f'"{path}" holds other metrics of the same configuration, so of other weights. '
                "Choose another OUTPUT_DIR, or move the old run away"
            )
        print(f"The same results are in {path} already")
    else:
        write_json(record, path)
        print(f"Results are saved to {path}")


def trained_with(weights: str | None) -> dict[str, Any] | None:
    """Return the configuration that a checkpoint or packed prompt was trained with.

    Args:
        weights: its path; config.json lies in the folder above. None, or no such file: None.
    """
    return _recorded(weights, "config.json", "config")


def trained_on(weights: str | None) -> list[str] | None:
    """Return the class names that a checkpoint or packed prompt was trained on.

    Args:
        weights: its path; results.json lies in the folder above. None, or no such file: None.
    """
    return _recorded(weights, "results.json", "classnames")


def _recorded(weights: str | None, file: str, key: str) -> Any:
    if not weights:
        return None
    try:
        # not os.pardir, which leads out of the folder that a link of the user's names
        run = os.path.dirname(os.path.dirname(os.path.abspath(weights)))
        return read_json(os.path.join(run, file))[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak memory of the run: of tensors on a GPU, of the process on the CPU.

    None on the CPU under Windows, which has no module ``resource``.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings under dotted keys."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
