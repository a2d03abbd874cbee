"""The residual attention blocks of open_clip's transformers, run on frozen weights.

``nn.MultiheadAttention`` takes a slow path for frozen weights on the CPU and keeps its projections
to itself, which shared prefixes need; so a block's own parameters are used here, with
``scaled_dot_product_attention``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock, Transformer
from torch import Tensor
from torch.nn import functional as F

from .algebra import attend_from_first_token, run_mlp
from .errors import ClipError, UnsupportedBackboneError


def residual_blocks(transformer: Transformer) -> Sequence[ResidualAttentionBlock]:
    """Return the layers of an open_clip transformer.

    Raises:
        UnsupportedBackboneError: they are no plain residual attention blocks.
    """
    layers = getattr(transformer, "resblocks", ())
    for layer in layers:
        plain = isinstance(layer, ResidualAttentionBlock) and not hasattr(layer, "ln_1_kv")
        if not plain or layer.attn.in_proj_weight is None:
            raise UnsupportedBackboneError(
                f"layers of type {type(layer).__name__} take no learned prompts; choose a CLIP "
                "architecture such as ViT-B-16"
            )
    return layers


def project_qkv(layer: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return queries, keys and values of tokens.

    Args:
        layer: a residual attention block.
        x: (..., length, width).

    Returns:
        (..., length, 3, heads, head width).
    """
    attention = layer.attn
    qkv = F.linear(layer.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    return qkv.unflatten(-1, (3, attention.num_heads, -1))


def attend(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False, mask: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(head width) + mask) v for tensors (..., length, heads, head width)."""
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))  # (..., heads, length, head width)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(-2, -3)


def finish_block(layer: ResidualAttentionBlock, x: Tensor, attn_output: Tensor) -> Tensor:
    """Return a block's output: run what follows its attention.

    Args:
        layer: a residual attention block.
        x: (..., length, width), the block's input.
        attn_output: (..., length, heads, head width), before the output projection.
    """
    x = x + layer.ls_1(layer.attn.out_proj(attn_output.flatten(-2)))
    return x + layer.ls_2(run_mlp(layer.mlp, layer.ln_2(x)))


def replace_prompts(x: Tensor, deep: Sequence[Tensor], i: int, start: int) -> Tensor:
    """Return the input of layer i, with its deep prompts if there are any.

    Before layer i = 1..len(deep), counted from 0, the tokens from position ``start`` on become
    ``deep[i - 1]`` (Khattak et al., 2023, sections 3.2.1 and 3.2.2).

    Args:
        x: (n, length, width) tokens.
        deep: tensors (n_ctx, width) for all, or (n, n_ctx, width).
        start: position of the first token that is replaced.
    """
    if not 1 <= i <= len(deep):
        return x
    prompts = deep[i - 1].to(x.dtype)
    if prompts.ndim == 2:
        prompts = prompts[None]  # no sum in the gradient where n = 1
    n_ctx = prompts.shape[1]
    before, _, after = x.split([start, n_ctx, x.shape[1] - start - n_ctx], dim=1)
    # (n, start, width), (n, n_ctx, width), (n, length - start - n_ctx, width)
    return torch.cat([before, prompts.expand(x.shape[0], -1, -1), after], dim=1)


def check_depth(deep: Sequence[Tensor], layers: Sequence[ResidualAttentionBlock]) -> None:
    """Raise ClipError if there are more deep prompts than layers that could take them."""
    if deep and len(deep) >= len(layers):
        raise ClipError(
            f"{len(deep)} deep prompts for {len(layers)} layers: "
            f"the first layer takes none, so give at most {len(layers) - 1}"
        )


def run_layers(
    transformer: Transformer, x: Tensor, deep: Sequence[Tensor] = (), start: int = 0
) -> Tensor:
    """Run a transformer some of whose tokens are replaced on the way and whose first is read.

    Args:
        transformer: an open_clip ``Transformer``.
        x: (n, length, width) tokens.
        deep, start: as for :func:`replace_prompts`.

    Returns:
        (n, width), the first token's final state.

    Raises:
        UnsupportedBackboneError: as :func:`residual_blocks`.
        ClipError: more deep prompts than layers that could take them.
    """
    layers = residual_blocks(transformer)
    check_depth(deep, layers)
    if deep and deep[0].ndim == 2:  # in one tensor, for one sum in the gradient
        stacked = torch.stack(list(deep)).to(x.dtype)[:, None]
        deep = stacked.expand(-1, x.shape[0], -1, -1).unbind()
    for i, layer in enumerate(layers):
        x = replace_prompts(x, deep, i, start)  # (n, length, width)
        if layer is layers[-1]:
            x, attn_output = x[:, 0], attend_from_first_token(layer.attn, layer.ln_1(x))
        else:
            q, k, v = project_qkv(layer, x).unbind(-3)  # (n, length, heads, head width) each
            attn_output = attend(q, k, v)
        x = finish_block(layer, x, attn_output)
    return x
