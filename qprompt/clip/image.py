"""Image encoding with learned prompts among the patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from .errors import UnsupportedBackboneError
from .layers import run_layers
from .prompts import Prompts


def takes_prompts(model: CLIP) -> bool:
    """Whether the image tower is a vision transformer that is read at its class token."""
    tower = model.visual
    return (
        isinstance(tower, VisionTransformer)
        and tower.pool_type == "tok"
        and tower.attn_pool is None
        and isinstance(tower.patch_dropout, nn.Identity)
    )


def vision_tower(model: CLIP) -> VisionTransformer:
    """Return the image tower of an open_clip model, if it can take prompts.

    Raises:
        UnsupportedBackboneError: it is no vision transformer that is read at its class token.
    """
    tower = model.visual
    if not takes_prompts(model):
        raise UnsupportedBackboneError(
            f"the image tower {type(tower).__name__} takes no learned prompts: it needs to be a "
            "vision transformer that is read at its class token; choose a backbone such as ViT-B/16"
        )
    return tower


def encode_image(model: CLIP, images: Tensor, prompts: Prompts | None = None) -> Tensor:
    """Encode images, with learned tokens beside those of the patches, into features.

    Args:
        model: an open_clip CLIP model.
        images: (n, 3, height, width) in the model's compute dtype.
        prompts: their image prompts, if they have any, and the deep ones; without image prompts
            any image tower will do.

    Returns:
        (n, embed_dim) features, not normalised; gradients flow into the image prompts.

    Raises:
        UnsupportedBackboneError: image prompts for a tower that is no vision transformer.
        ClipError: more deep prompts than layers that could take them.
    """
    learned, deep = (None, ()) if prompts is None else (prompts.image, prompts.deep_image)
    if learned is None and not takes_prompts(model):
        return model.encode_image(images)
    return run_tower(vision_tower(model), images, learned, deep)


def run_tower(tower: Any, images: Tensor, learned: Tensor | None, deep: Sequence[Tensor]) -> Tensor:
    """Run a vision transformer with learned tokens beside those of the patches.

    Args:
        tower: with the parts of open_clip's ``VisionTransformer``.
        images, learned, deep: as for :func:`encode_image`.
    """
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + tower.positional_embedding.to(x.dtype)
    start = x.shape[1]
    if learned is not None:
        # (n, 1 + patches, width), (n, n_ctx, width)
        x = torch.cat([x, learned.to(x.dtype).expand(len(x), -1, -1)], dim=1)
    x = run_layers(tower.transformer, tower.ln_pre(x), deep, start)
    return tower.ln_post(x) @ tower.proj
