"""What trainers of other repositories import from ``trainers.coop``; see clip/model.py."""

from __future__ import annotations

from typing import Any

import clip
from clip.model import CLIP, TextEncoder

__all__ = ["TextEncoder", "load_clip_to_cpu"]


def load_clip_to_cpu(cfg: Any) -> CLIP:
    """Load the CLIP that ``cfg.MODEL.BACKBONE.NAME`` names, in half precision as OpenAI's."""
    return CLIP(clip.load(cfg.MODEL.BACKBONE.NAME, "fp16")).eval()
