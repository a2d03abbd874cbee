"""Parameters: count them, choose which ones train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

# hosts import them from here
from dassl.utils.checkpoint import load_checkpoint, save_checkpoint  # noqa: F401
from dassl.utils.restore import load_pretrained_weights, resume_from_checkpoint  # noqa: F401


def count_num_param(
    model: nn.Module | None = None, params: Iterable[nn.Parameter] | dict[str, Any] | None = None
) -> int:
    """Return how many numbers the parameters of ``model``, or ``params``, hold.

    Raises:
        ValueError: neither is given.
    """
    if model is not None:
        params = model.parameters()
    if params is None:
        raise ValueError("count_num_param() needs a model or params")
    parameters: Iterable[nn.Parameter] = params["params"] if isinstance(params, dict) else params
    return sum(p.numel() for p in parameters)


def open_all_layers(model: nn.Module) -> None:
    """Put the model into training mode with gradients for all parameters."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | Iterable[str]) -> None:
    """Train the named children of a model only; the others are frozen, in evaluation mode.

    Raises:
        ValueError: the model has no such child.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    names = {open_layers} if isinstance(open_layers, str) else set(open_layers)
    children = dict(model.named_children())
    if unknown := names - children.keys():
        raise ValueError(f"{sorted(unknown)} not among the layers {sorted(children)}")
    for name, child in children.items():
        child.train(name in names)
        child.requires_grad_(name in names)
