"""What trainers of other repositories import from CoOp's and MaPLe's files; see clip/model.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import clip
from clip.model import CLIP, TextEncoder
from dassl.data.datasets import DATASET_REGISTRY

__all__ = ["CUSTOM_TEMPLATES", "TextEncoder", "load_clip_to_cpu"]


def load_clip_to_cpu(cfg: Any) -> CLIP:
    """Load the CLIP that ``cfg.MODEL.BACKBONE.NAME`` names, in half precision as OpenAI's."""
    return CLIP(clip.load(cfg.MODEL.BACKBONE.NAME, "fp16")).eval()


class _Templates(Mapping[str, str]):
    def __getitem__(self, name: str) -> str:
        template: str = DATASET_REGISTRY.get(name).template
        return template

    def __iter__(self) -> Iterator[str]:
        return iter(DATASET_REGISTRY.registered_names())

    def __len__(self) -> int:
        return len(DATASET_REGISTRY.registered_names())


CUSTOM_TEMPLATES = _Templates()  # of all data sets that are registered by the time it is read
