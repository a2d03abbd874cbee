"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dassl.config import CfgNode
from dassl.utils import UserError, check_choice

_NAMES = ("sgd", "adam", "amsgrad", "adamw", "radam", "rmsprop")


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: CfgNode, param_groups: Any = None
) -> torch.optim.Optimizer:
    """Build the optimizer that optim_cfg.NAME names.

    Args:
        model: a module, or an iterable of parameters or parameter groups.
        optim_cfg: the OPTIM node.
        param_groups: used in place of the parameters of ``model``.

    Raises:
        UnknownNameError: there is no such optimizer.
        UserError: there is nothing to optimize, or Nesterov's momentum without momentum.
    """
    name = optim_cfg.NAME
    check_choice("OPTIM.NAME", name, _NAMES)
    if param_groups is None and optim_cfg.STAGED_LR:
        param_groups = _stages(model, optim_cfg)
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    param_groups = list(param_groups)
    if not param_groups:
        raise UserError("Nothing to optimize: the model has no parameters")
    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    momentum = {"momentum": optim_cfg.MOMENTUM}
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "sgd":
        if optim_cfg.SGD_NESTEROV and (optim_cfg.MOMENTUM == 0 or optim_cfg.SGD_DAMPNING != 0):
            raise UserError(
                "OPTIM.SGD_NESTEROV needs MOMENTUM above 0 and SGD_DAMPNING 0, got "
                f"{optim_cfg.MOMENTUM} and {optim_cfg.SGD_DAMPNING}"
            )
        damping = {"dampening": optim_cfg.SGD_DAMPNING, "nesterov": optim_cfg.SGD_NESTEROV}
        return torch.optim.SGD(param_groups, **common, **momentum, **damping)
    if name in ("adam", "amsgrad"):
        return torch.optim.Adam(param_groups, **common, betas=betas, amsgrad=name == "amsgrad")
    if name == "adamw":
        return torch.optim.AdamW(param_groups, **common, betas=betas)
    if name == "radam":
        return torch.optim.RAdam(param_groups, **common, betas=betas)
    alpha = optim_cfg.RMSPROP_ALPHA
    return torch.optim.RMSprop(param_groups, **common, **momentum, alpha=alpha)


def _stages(model: Any, cfg: CfgNode) -> list[dict[str, Any]]:
    """Parameters of the children NEW_LAYERS, and all others at a lower rate."""
    new = set(cfg.NEW_LAYERS)
    children = dict(model.named_children()) if isinstance(model, nn.Module) else {}
    if not new or new - children.keys():
        raise UserError(
            f"OPTIM.STAGED_LR needs NEW_LAYERS to name children of the model, got {sorted(new)}; "
            f"its children: {', '.join(children) or 'none'}"
        )

    groups: tuple[list[Any], list[Any]] = list(model.parameters(recurse=False)), []
    for name, child in children.items():
        groups[name in new].extend(child.parameters())
    return [{"params": groups[0], "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": groups[1]}]
