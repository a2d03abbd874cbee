"""Checkpoints in Dassl's layout: safe to read, atomic to write."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dassl.utils import safe_unpickler
from dassl.utils.errors import UserError, short_repr
from dassl.utils.files import atomic_write, copy_file
from dassl.utils.tools import rng_state

BEST = "model-best.pth.tar"
EPOCH = re.compile(r"model\.pth\.tar-(\d+)")


class CheckpointError(UserError, RuntimeError):
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
        state = {**state, "state_dict": without_module(state["state_dict"])}
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

    The checksums of its archive are verified. Entries that hold objects other than tensors and
    plain containers (upstream pickles its scheduler) are left out, and a line says so.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or not a checkpoint.
    """
    if not fpath or not os.path.isfile(fpath):
        raise FileNotFoundError(f'No checkpoint found at "{fpath}"')
    try:
        _verify(fpath)
        try:
            checkpoint = torch.load(fpath, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            if not zipfile.is_zipfile(fpath):
                raise
            checkpoint = _load_plain_entries(fpath)
    # a damaged file can make the unpickler fail in any way
    except Exception as error:
        raise CheckpointError(
            f'Checkpoint "{fpath}" cannot be read: it is truncated, corrupt or not a checkpoint. '
            f"Copy or train it again ({reason(error)})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'Checkpoint "{fpath}" holds a {type(checkpoint).__name__}, not a dict of tensors'
        )
    epoch, result = checkpoint.get("epoch"), checkpoint.get("val_result")
    if epoch is not None and not (type(epoch) is int and 0 <= epoch < 2**31):
        raise CheckpointError(
            f'Checkpoint "{fpath}" says that {short_repr(epoch)} epochs are done: take another one'
        )
    if result is not None and not is_number(result):
        raise CheckpointError(
            f'Checkpoint "{fpath}" has the val_result {short_repr(result)}: take another one'
        )
    return checkpoint


def _verify(fpath: str | os.PathLike[str]) -> None:
    """Compare the checksums of the archive, which torch.load does not."""
    if zipfile.is_zipfile(fpath):  # PyTorch before 1.6 wrote none
        with zipfile.ZipFile(fpath) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"the checksum of {short_repr(damaged)} is another")


def _load_plain_entries(fpath: str | os.PathLike[str]) -> Any:
    loaded = torch.load(fpath, map_location="cpu", pickle_module=safe_unpickler, weights_only=False)
    if not isinstance(loaded, dict):
        return loaded
    plain = {key: value for key, value in loaded.items() if safe_unpickler.is_plain(value)}
    foreign = [str(key) for key in loaded if key not in plain]
    if needed := {"state_dict", "rng", "scaler"}.intersection(foreign):
        raise CheckpointError(f"{min(needed)} holds objects other than tensors")
    print(f'Left unread in "{fpath}", because it holds pickled objects: {summarize(foreign)}')
    return plain


def saved_epochs(directory: str | os.PathLike[str]) -> list[int]:
    """Return the epochs whose checkpoints lie in a folder, in order."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(int(match[1]) for match in map(EPOCH.fullmatch, names) if match)


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


def check_run_folder(directory: str | os.PathLike[str]) -> None:
    """Raise a UserError where a file, or a model's folder of checkpoints, is given for a run's."""
    if os.path.isfile(directory):
        raise UserError(
            f'"{directory}" is a file: give the folder of its run, and --load-epoch to choose a '
            "checkpoint there, or a packed prompt (.safetensors)"
        )
    if saved_epochs(directory):
        raise UserError(
            f'"{directory}" holds the checkpoints of one model: give the folder of the run, '
            f'"{os.path.dirname(os.path.abspath(directory))}"'
        )


def can_resume(fdir: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a checkpoint to resume from."""
    return os.path.isfile(os.path.join(fdir, "checkpoint"))


def summarize(names: Iterable[str], limit: int = 10) -> str:
    """Return a short list of names for a message."""
    names = [name if len(name) <= 100 else short_repr(name) for name in names]
    shown = names[:limit]
    while len(shown) > 1 and len(", ".join(shown)) > 400:
        shown.pop()
    more = f", ... and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (", ".join(shown) or "none") + more


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that a setting, count or result may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def reason(error: Exception) -> str:
    """Return type and first line of an error for a message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def without_module(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict without the "module." that DataParallel puts before names."""
    return {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
