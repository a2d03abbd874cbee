"""The CLIP that a prompt is for, by name or as a model that somebody has loaded."""

from __future__ import annotations

import os
from typing import Any

import torch
from open_clip.model import CLIP

from ..clip import load
from ..errors import InvalidOptionError
from ..prompt import Prompt


def load_backbone(
    prompt: Prompt, backbone: Any, device: str | torch.device, precision: str | None
) -> CLIP:
    """Return the CLIP that :meth:`qprompt.Prompt.apply` was given; arguments as there."""
    if backbone is not None and not isinstance(backbone, str | os.PathLike):
        return backbone.eval()
    name = os.fspath(backbone) if backbone is not None else prompt.backbone
    if not name:
        raise InvalidOptionError(f"'{prompt.path}' names no backbone: say which one it is for")
    if prompt.backbone and not may_be_same(prompt.backbone, name):
        raise InvalidOptionError(
            f"'{prompt.path}' was learned on the backbone {prompt.backbone}, and {name} is another:"
            " a prompt is of no use there"
        )
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidOptionError(f"device {str(device)!r} is not to be had ({reason})") from error
    if precision is None:
        precision = "fp32" if torch.device(device).type == "cpu" else "fp16"
    return load(name, precision, device).requires_grad_(False)


def may_be_same(one: str, other: str) -> bool:
    """Whether two names may stand for the same weights; files may hold any."""
    if any(map(_is_file, (one, other))):
        return True
    return _plain(one) == _plain(other)


def _is_file(name: str) -> bool:
    weights = name.partition(":")[2] or name
    return os.path.exists(weights) or os.path.splitext(weights)[1] in (".pt", ".safetensors")


def _plain(name: str) -> str:
    """ViT-B/16, ViT-B-16:openai and ViT-B-16-quickgelu:openai are one model."""
    architecture, _, weights = name.replace("/", "-").partition(":")
    if weights in ("", "openai"):
        return architecture.removesuffix("-quickgelu")
    return f"{architecture}:{weights}"
