"""SLIP's models (Mu et al., ECCV 2022, arXiv:2112.12750) as open_clip's.

Their text tower is CLIP's. Their image tower is timm's vision transformer, which differs from
CLIP's in the activation, in the epsilon of its layer norms, in a bias of the patch embedding, and
in having no layer norm before the layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

SMALL_WIDTH, SMALL_HEADS = 384, 12  # ViT-S/16; heads of the others have 64 numbers
HEAD_WIDTH = 64
EPSILON = 1e-6
NAMES = {  # of timm's tensors in open_clip
    r"visual\.cls_token": "visual.class_embedding",
    r"visual\.pos_embed": "visual.positional_embedding",
    r"visual\.patch_embed\.proj\.weight": "visual.conv1.weight",
    r"visual\.norm\.": "visual.ln_post.",
    r"visual\.blocks\.": "visual.transformer.resblocks.",
    r"\.norm([12])\.": r".ln_\1.",
    r"\.attn\.qkv\.": ".attn.in_proj_",
    r"\.attn\.proj\.": ".attn.out_proj.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"image_projection": "visual.proj",
}


def is_slip(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is in SLIP's layout."""
    return {"image_projection", "visual.cls_token", "visual.pos_embed"} <= state.keys()


def empty_model(state: Mapping[str, Tensor], cast_dtype: torch.dtype | None) -> CLIP:
    """Return an open_clip model of the shape of a state dict in SLIP's layout, other weights in it.

    Args:
        state: names to tensors, as in the file.
        cast_dtype: what open_clip computes in; None: float32.
    """
    width, embed_dim = state["image_projection"].shape
    patch = state["visual.patch_embed.proj.weight"].shape[-1]
    patches = state["visual.pos_embed"].shape[1] - 1
    context_length, text_width = state["positional_embedding"].shape
    vision = CLIPVisionCfg(
        layers=_count_layers(state, "visual.blocks."),
        width=width,
        head_width=width // SMALL_HEADS if width == SMALL_WIDTH else HEAD_WIDTH,
        patch_size=patch,
        image_size=patch * round(patches**0.5),
        no_ln_pre=True,
    )
    text = CLIPTextCfg(
        context_length=context_length,
        vocab_size=len(state["token_embedding.weight"]),
        width=text_width,
        heads=text_width // HEAD_WIDTH,
        layers=_count_layers(state, "transformer.resblocks."),
    )
    model = CLIP(embed_dim, vision, text, quick_gelu=True, cast_dtype=cast_dtype)
    for module in model.visual.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = EPSILON
    for block in model.visual.transformer.resblocks:
        block.mlp.gelu = nn.GELU()
    return model


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under open_clip's names and in its shapes.

    The bias of the patch embedding becomes a part of the patches' positions, which it is added to.
    """
    renamed = {}
    for name, tensor in state.items():
        for theirs, ours in NAMES.items():
            name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    positions = renamed["visual.positional_embedding"][0].clone()
    positions[1:] += state["visual.patch_embed.proj.bias"]
    class_embedding = renamed["visual.class_embedding"].flatten()
    return {
        **renamed,
        "visual.positional_embedding": positions,
        "visual.class_embedding": class_embedding,
    }


def _count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
