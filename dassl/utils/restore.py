"""Checkpoints into models: all of one or nothing, and a run that goes on as if never stopped."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dassl.utils.checkpoint import (
    EPOCH,
    CheckpointError,
    is_number,
    load_checkpoint,
    reason,
    summarize,
    without_module,
)
from dassl.utils.errors import short_repr
from dassl.utils.tools import rng_state, set_rng_state

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOMENTS = {  # what optimizers keep of the shape of each weight
    *("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg")
}
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


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
    path = os.path.join(fdir, _last_checkpoint(fdir))
    print(f'Loading checkpoint from "{path}"')
    checkpoint = load_checkpoint(path)
    try:
        with unchanged_on_error([model], optimizer, scheduler, scaler):
            epoch = _epochs_done(checkpoint, path)
            missing, unexpected = _load_weights(model, checkpoint.get("state_dict"), path, ignored)
            trainable = {name for name, p in model.named_parameters() if p.requires_grad}
            lost = sorted(trainable.intersection(missing))
            if lost or unexpected:
                raise CheckpointError(
                    f'Cannot resume from "{path}": missing {summarize(lost)}, unexpected '
                    f"{summarize(unexpected)}. Use the configuration that it was trained with"
                )
            if optimizer is not None:
                _load_optimizer(optimizer, checkpoint.get("optimizer"))
            if scheduler is not None:
                _load_state(scheduler, checkpoint.get("scheduler") or {"last_epoch": epoch})
            if scaler is not None and checkpoint.get("scaler"):
                _load_state(scaler, checkpoint["scaler"])
            if "rng" in checkpoint:
                set_rng_state(checkpoint["rng"])
    except CheckpointError:
        raise
    # states of another kind can make whatever takes them fail in any way
    except Exception as error:
        raise CheckpointError(
            f'Cannot resume from "{path}": the states in it do not fit ({reason(error)}). Use the '
            "configuration that it was trained with, or write the name of another checkpoint into "
            'the file "checkpoint" beside it'
        ) from error
    print(f"Resuming after epoch {epoch}")
    return epoch


def _last_checkpoint(fdir: str | os.PathLike[str]) -> str:
    pointer = os.path.join(fdir, "checkpoint")
    with open(pointer, encoding="utf-8-sig", errors="replace") as file:
        name = file.readline(1000).strip()
    if not name or name != os.path.basename(name):
        raise CheckpointError(
            f'"{pointer}" names {short_repr(name)}: write the name of a checkpoint beside it into '
            "it, such as model.pth.tar-1"
        )
    return name


def _epochs_done(checkpoint: dict[str, Any], path: str) -> int:
    epoch, name = checkpoint.get("epoch"), EPOCH.fullmatch(os.path.basename(path))
    if epoch is None or (name and int(name[1]) != epoch):
        raise CheckpointError(
            f'Cannot resume from "{path}": it says that {epoch} epochs are done. Write the name of '
            'another checkpoint into the file "checkpoint" beside it'
        )
    return epoch


@contextmanager
def unchanged_on_error(models: Iterable[nn.Module], *others: Any) -> Iterator[None]:
    """Put models, other objects with a state, and the random generators back after an error."""
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    values = [tensor.detach().clone() for tensor in tensors]
    states = [(o, copy.deepcopy(o.state_dict())) for o in others if o is not None]
    random = rng_state()
    try:
        yield
    except BaseException:
        for tensor, value in zip(tensors, values, strict=True):
            tensor.data = value  # also where loading gave it another shape
        for other, state in states:
            other.load_state_dict(state)
        set_rng_state(random)
        raise


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"its optimizer state is {short_repr(state)}")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_number = dict(zip(numbers, parameters, strict=False))  # load_state_dict compares lengths
    for number, entries in state["state"].items():
        parameter = by_number[number]
        if not isinstance(entries, dict):
            raise ValueError(f"its state of weight {number} is {short_repr(entries)}")
        for name in _MOMENTS.intersection(entries):
            if entries[name] is not None:
                _require_like(parameter, entries[name], name)
        if "step" in entries:
            _require_like(0, float(entries["step"]), "step")
    own = copy.deepcopy(optimizer.state_dict()["param_groups"])
    optimizer.load_state_dict(state)
    _require_like(own, optimizer.state_dict()["param_groups"], "param_groups")


def _load_state(target: Any, state: Any) -> None:
    own = copy.deepcopy(target.state_dict())
    target.load_state_dict(state)
    _require_like(own, target.state_dict(), type(target).__name__)


def _require_like(own: Any, loaded: Any, name: str) -> None:
    """Raise a ValueError where a number is not a finite one, or a tensor of another shape or kind.

    Where there is none of our own yet, it may be either.
    """
    if isinstance(own, dict):
        for key, value in own.items():
            _require_like(value, loaded[key], f"{name}.{key}")
    elif isinstance(own, list | tuple):
        for index, value in enumerate(own):
            _require_like(value, loaded[index], f"{name}.{index}")
    elif isinstance(own, torch.Tensor):
        fits = isinstance(loaded, torch.Tensor) and loaded.shape == own.shape
        if not (fits and loaded.dtype in _FLOATS and torch.isfinite(loaded).all()):
            raise ValueError(f"{name} holds no {list(own.shape)} finite numbers")
    else:
        flag = isinstance(loaded, bool) and (own is None or isinstance(own, bool))
        number = is_number(loaded) and not isinstance(own, bool)
        if not (flag or number or (own is None and loaded is None)):
            raise ValueError(f"{name} is {short_repr(loaded)}")


def load_weights(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor] | None,
    source: str | os.PathLike[str],
    ignored: tuple[str, ...] = (),
) -> tuple[list[str], list[str]]:
    """Load a state dict non-strictly, through the module's own load hooks.

    An error leaves the module unchanged.

    Args:
        model: the module to load into.
        state_dict: names to tensors; a leading "module." is stripped.
        source: where the tensors come from, for messages.
        ignored: endings of names that are passed over.

    Returns:
        The missing and the unexpected names.

    Raises:
        CheckpointError: it is no state dict, a tensor has another shape than in the model or holds
            other numbers than finite ones, or no name matches.
    """
    with unchanged_on_error([model]):
        return _load_weights(model, state_dict, source, ignored)


def _load_weights(
    model: nn.Module, state_dict: Any, source: str | os.PathLike[str], ignored: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    state_dict = _tensors(state_dict, source)
    state_dict = {name: t for name, t in state_dict.items() if not name.endswith(ignored)}
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in state_dict.items():
        if name in own and own[name].shape == tensor.shape:
            _require_numbers(own[name], tensor, f'{name} in "{source}"')
    try:
        result = model.load_state_dict(state_dict, strict=False)
    except (RuntimeError, ValueError) as error:  # a module's hooks may refuse what they load
        details = " ".join(str(error).split("\n", 1)[-1].split())[:500]
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


def _tensors(state_dict: Any, source: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return a state dict without the "module." of DataParallel; CheckpointError: it is none."""
    if state_dict is None:
        raise CheckpointError(f'"{source}" has no "state_dict": it is not a checkpoint of a model')
    if not isinstance(state_dict, dict):
        raise CheckpointError(
            f'The state_dict of "{source}" is a {type(state_dict).__name__}, not tensors by name: '
            "take another checkpoint"
        )
    for name, tensor in state_dict.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            raise CheckpointError(
                f'"{source}" has {short_repr(name)}: {type(tensor).__name__} among its weights, '
                "not a tensor by name: take another checkpoint"
            )
    tensors = without_module(state_dict)
    if len(tensors) < len(state_dict):
        raise CheckpointError(
            f'"{source}" holds tensors both with and without "module." before the same name: '
            "take another checkpoint"
        )
    return tensors


def _require_numbers(own: torch.Tensor, loaded: torch.Tensor, name: str) -> None:
    """Raise a CheckpointError unless finite numbers, floating-point for parameters, are loaded."""
    floating = isinstance(own, nn.Parameter) and own.is_floating_point()
    kinds = _FLOATS if floating else _FLOATS + _INTEGERS
    if loaded.dtype not in kinds or loaded.layout != torch.strided or loaded.is_meta:
        raise CheckpointError(
            f"{name} holds numbers of the kind {loaded.dtype}, {loaded.layout}: take another "
            "checkpoint"
        )
    if not torch.isfinite(loaded).all() and torch.isfinite(own).all():
        raise CheckpointError(f"{name} holds NaN or infinity: take an earlier checkpoint")


def load_pretrained_weights(model: nn.Module, weight_path: str | os.PathLike[str]) -> None:
    """Initialise a model from a checkpoint or a state dict, and report what matched.

    Buffers of another shape are left as built: they follow from the class names, not from
    training.

    Raises:
        FileNotFoundError, CheckpointError: as :func:`load_checkpoint` and :func:`load_weights`.
    """
    checkpoint = load_checkpoint(weight_path)
    state_dict = _tensors(checkpoint.get("state_dict", checkpoint), weight_path)
    buffers = dict(model.named_buffers())
    other_shape = [
        name
        for name, tensor in state_dict.items()
        if name in buffers and buffers[name].shape != tensor.shape
    ]
    weights = {name: t for name, t in state_dict.items() if name not in other_shape}
    missing, unexpected = load_weights(model, weights, weight_path)
    missing = [name for name in missing if name not in other_shape]
    matched = [name for name in weights if name not in unexpected]
    print(f'Loaded pretrained weights from "{weight_path}"')
    print(f"* matched: {summarize(matched)}")
    print(f"* not in the file: {summarize(missing)}")
    print(f"* not in the model: {summarize(unexpected)}")
    if other_shape:
        print(f"* buffers of another shape, kept as built: {summarize(other_shape)}")
