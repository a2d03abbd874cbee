"""A transformer some of whose tokens are replaced on the way: deep prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def run_layers(
    transformer: nn.Module,
    x: Tensor,
    deep: Sequence[Tensor] = (),
    start: int = 0,
    attn_mask: Tensor | None = None,
) -> Tensor:
    """Run an open_clip transformer, replacing tokens before its second and later layers.

    Before layer i = 1..len(deep), counted from 0, the tokens from position ``start`` on become
    ``deep[i - 1]`` (Khattak et al., 2023, sections 3.2.1 and 3.2.2).

    Args:
        transformer: an open_clip ``Transformer``.
        x: (n, length, width) tokens.
        deep: (n_ctx, width) tensors, at most one less than there are layers.
        start: position of the first token that is replaced.
        attn_mask: (length, length), added to the attention scores.

    Returns:
        (n, length, width).

    Raises:
        ValueError: more deep prompts than layers that could take them.
    """
    if not deep:
        return transformer(x, attn_mask=attn_mask)
    layers = transformer.resblocks
    if len(deep) >= len(layers):
        raise ValueError(
            f"{len(deep)} deep prompts for {len(layers)} layers: "
            f"the first layer takes none, so give at most {len(layers) - 1}"
        )
    x = layers[0](x, attn_mask=attn_mask)
    for prompts, layer in zip(deep, layers[1:], strict=False):
        replaced = prompts.to(x.dtype).expand(len(x), -1, -1)
        x = torch.cat([x[:, :start], replaced, x[:, start + len(prompts) :]], dim=1)
        x = layer(x, attn_mask=attn_mask)
    for layer in layers[1 + len(deep) :]:
        x = layer(x, attn_mask=attn_mask)
    return x
