"""CLIP in real sizes with random weights, on which speed does not depend, and the tiny CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

import clip
from qprompt.clip.weights import TINY_NAME

PATCH_SIZES = {"ViT-B/32": 32, "ViT-B/16": 16}
ARCHITECTURES = (*PATCH_SIZES, TINY_NAME)


def load(name: str) -> CLIP:
    """Return a frozen CLIP: ``tiny``, or ``ViT-B/32`` or ``ViT-B/16`` with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == TINY_NAME:
            model = clip.load(name)
        else:
            vision = CLIPVisionCfg(12, 768, 64, patch_size=PATCH_SIZES[name], image_size=224)
            model = CLIP(512, vision, CLIPTextCfg(width=512, heads=8, layers=12), quick_gelu=True)
    return model.eval().requires_grad_(False)


def backbone(name: str, folder: Path) -> str:
    """Return what ``--backbone`` takes: ``tiny``, or a file in ``folder`` with such weights."""
    if name == TINY_NAME:
        return name
    path = folder / f"{name.replace('/', '-')}.safetensors"
    save_file(load(name).state_dict(), path)
    return str(path)
