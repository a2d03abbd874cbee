"""CLIP in real sizes with random weights: speed does not depend on what they are."""

from __future__ import annotations

from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file

PATCH_SIZES = {"ViT-B/32": 32, "ViT-B/16": 16}


def random_clip(name: str) -> CLIP:
    """Return a frozen CLIP of the architecture ``ViT-B/32`` or ``ViT-B/16``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = CLIPVisionCfg(12, 768, 64, patch_size=PATCH_SIZES[name], image_size=224)
        model = CLIP(512, vision, CLIPTextCfg(width=512, heads=8, layers=12), quick_gelu=True)
    return model.eval().requires_grad_(False)


def write_weights(name: str, folder: Path) -> str:
    """Write such weights as a file that ``--backbone`` takes; return its path."""
    path = folder / f"{name.replace('/', '-')}.safetensors"
    if not path.exists():
        save_file(random_clip(name).state_dict(), path)
    return str(path)
