"""Checkpoints in Dassl's layout: safe to read, atomic to write, exact to resume."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.utils import safe_unpickler
from dassl.utils.files import atomic_write, copy_file
from dassl.utils.tools import rng_state, set_rng_state

BEST = "model-best.pth.tar"
_EPOCH = re.compile(r"model\.pth\.tar-(\d+)")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or does not fit the model."""


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str | os.PathLike[str],
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Save ``model.pth.tar-<epoch>`` (or ``model_name``), and name it in the file ``checkpoint``.

    The states of all random generators are stored with it, so that a resumed run goes on as if it
    had never stopped.

    Args:
        state: state_dict, epoch (epochs done), optimizer, scheduler, val_result: tensors and
            plain containers.
        save_dir: where to save.
        is_best: also save as ``model-best.pth.tar``.
        remove_module_from_keys: strip the "module." of DataParallel.
        model_name: file name to use; such a file is not what training resumes from.
    """
    if remove_module_from_keys:
        state = {**state, "state_dict": _without_module(state["state_dict"])}
    path = Path(save_dir, model_name or f"model.pth.tar-{state['epoch']}")
    with atomic_write(path) as file:
        torch.save({**state, "rng": rng_state()}, file)
    print(f"Checkpoint saved to {path}")
    if not model_name:
        with atomic_write(path.with_name("checkpoint"), "w") as file:
            file.write(f"{path.name}\n")
    if is_best:
        copy_file(path, path.with_name(BEST))


def load_checkpoint(fpath: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing anything that it names.

    Entries that hold objects other than tensors and plain containers (upstream pickles its
    scheduler) are left out, and a line says so.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, corrupt, or not a checkpoint.
    """
    if not fpath or not os.path.isfile(fpath):
        raise FileNotFoundError(f'No checkpoint found at "{fpath}"')
    try:
        try:
            checkpoint = torch.load(fpath, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            if not zipfile.is_zipfile(fpath):
                raise
            checkpoint = _load_plain_entries(fpath)
    # a damaged file can make the unpickler fail in any way
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f'Checkpoint "{fpath}" cannot be read: it is truncated, corrupt or not a checkpoint. '
            f"Copy or train it again ({type(error).__name__}: {reason})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'Checkpoint "{fpath}" holds a {type(checkpoint).__name__}, not a dict of tensors'
        )
    return checkpoint


def _load_plain_entries(fpath: str | os.PathLike[str]) -> Any:
    loaded = torch.load(fpath, map_location="cpu", pickle_module=safe_unpickler, weights_only=False)
    if not isinstance(loaded, dict):
        return loaded
    plain = {key: value for key, value in loaded.items() if safe_unpickler.is_plain(value)}
    if "state_dict" in loaded and "state_dict" not in plain:
        raise CheckpointError("state_dict holds objects other than tensors")
    left_out = ", ".join(str(key) for key in loaded if key not in plain)
    print(f'Left unread in "{fpath}", because it holds pickled objects: {left_out}')
    return plain


def saved_epochs(directory: str | os.PathLike[str]) -> list[int]:
    """Return the epochs whose checkpoints lie in a folder, in order."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(int(match[1]) for match in map(_EPOCH.fullmatch, names) if match)


def find_checkpoint(directory: str | os.PathLike[str], epoch: int | None = None) -> str:
    """Return the path of the checkpoint of an epoch; without one, of the best or else the last.

    Raises:
        FileNotFoundError: there is none; the message lists the epochs that are there.
    """
    epochs = saved_epochs(directory)
    best = os.path.join(directory, BEST)
    if epoch is None and os.path.isfile(best):
        return best
    if epoch is None and epochs:
        epoch = epochs[-1]
    if epoch in epochs:
        return os.path.join(directory, f"model.pth.tar-{epoch}")
    wanted = "checkpoint" if epoch is None else f"checkpoint of epoch {epoch}"
    raise FileNotFoundError(
        f'Model not found: "{directory}" holds no {wanted} '
        f"(epochs there: {', '.join(map(str, epochs)) or 'none'})"
    )


def can_resume(fdir: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a checkpoint to resume from."""
    return os.path.isfile(os.path.join(fdir, "checkpoint"))


def resume_from_checkpoint(
    fdir: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    ignored: tuple[str, ...] = (),
) -> int:
    """Restore model, optimizer, scheduler, gradient scaler and random generators.

    Args:
        fdir: a folder with a file ``checkpoint`` that names the checkpoint.
        model, optimizer, scheduler, scaler: what to restore, in place.
        ignored: endings of tensor names that are passed over.

    Returns:
        The number of epochs done.

    Raises:
        FileNotFoundError, CheckpointError: there is no such file, or it does not fit.
    """
    with open(os.path.join(fdir, "checkpoint"), encoding="utf-8") as file:
        path = os.path.join(fdir, file.readline().strip())
    print(f'Loading checkpoint from "{path}"')
    checkpoint = load_checkpoint(path)
    missing, unexpected = load_weights(model, checkpoint.get("state_dict"), path, ignored)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    lost = sorted(trainable.intersection(missing))
    if lost or unexpected:
        raise CheckpointError(
            f'Cannot resume from "{path}": missing {summarize(lost)}, '
            f"unexpected {summarize(unexpected)}. Use the configuration that it was trained with"
        )
    epoch = int(checkpoint.get("epoch", 0))
    try:
        if optimizer is not None and checkpoint.get("optimizer"):
            optimizer.load_state_dict(checkpoint["optimizer"])
        if scheduler is not None:
            scheduler.load_state_dict(checkpoint.get("scheduler") or {"last_epoch": epoch})
        if scaler is not None and checkpoint.get("scaler"):
            scaler.load_state_dict(checkpoint["scaler"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f'Cannot resume from "{path}": the optimizer state does not fit ({error})'
        ) from error
    if "rng" in checkpoint:
        set_rng_state(checkpoint["rng"])
    print(f"Resuming after epoch {epoch}")
    return epoch


def load_weights(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor] | None,
    source: str | os.PathLike[str],
    ignored: tuple[str, ...] = (),
) -> tuple[list[str], list[str]]:
    """Load a state dict non-strictly, through the module's own load hooks.

    Args:
        model: the module to load into.
        state_dict: names to tensors; a leading "module." is stripped.
        source: where the tensors come from, for messages.
        ignored: endings of names that are passed over.

    Returns:
        The missing and the unexpected names.

    Raises:
        CheckpointError: a tensor has another shape than in the model, or no name matches.
    """
    if state_dict is None:
        raise CheckpointError(f'"{source}" has no "state_dict": it is not a checkpoint of a model')
    state_dict = _without_module(state_dict)
    state_dict = {name: t for name, t in state_dict.items() if not name.endswith(ignored)}
    try:
        result = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        details = str(error).split("\n", 1)[-1].strip()
        raise CheckpointError(
            f'"{source}" does not fit this model: {details} '
            "Use the configuration that it was trained with"
        ) from error
    missing = [name for name in result.missing_keys if not name.endswith(ignored)]
    unexpected = list(result.unexpected_keys)
    if len(unexpected) >= len(state_dict) and (missing or unexpected):
        raise CheckpointError(
            f'Nothing in "{source}" belongs to this model: it holds {summarize(unexpected)}; '
            f"the model has {summarize(missing)}"
        )
    return missing, unexpected


def load_pretrained_weights(model: nn.Module, weight_path: str | os.PathLike[str]) -> None:
    """Initialise a model from a checkpoint or a state dict, and report what matched.

    Buffers of another shape are left as built: they follow from the class names, not from
    training.

    Raises:
        FileNotFoundError, CheckpointError: as :func:`load_checkpoint` and :func:`load_weights`.
    """
    checkpoint = load_checkpoint(weight_path)
    state_dict = _without_module(checkpoint.get("state_dict", checkpoint))
    buffers = dict(model.named_buffers())
    other_shape = [
        name
        for name, tensor in state_dict.items()
        if name in buffers and buffers[name].shape != tensor.shape
    ]
    kept = {name: t for name, t in state_dict.items() if name not in other_shape}
    missing, unexpected = load_weights(model, kept, weight_path)
    missing = [name for name in missing if name not in other_shape]
    matched = [name for name in kept if name not in unexpected]
    print(f'Loaded pretrained weights from "{weight_path}"')
    print(f"* matched: {summarize(matched)}")
    print(f"* not in the file: {summarize(missing)}")
    print(f"* not in the model: {summarize(unexpected)}")
    if other_shape:
        print(f"* buffers of another shape, kept as built: {summarize(other_shape)}")


def summarize(names: Iterable[str], limit: int = 10) -> str:
    """Return a short list of names for a message."""
    names = list(names)
    more = f", ... and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


def _without_module(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
