"""The residual attention blocks of open_clip's transformers, run on frozen weights.

``nn.MultiheadAttention`` takes a slow path for frozen weights on the CPU and keeps its projections
to itself, which shared prefixes need; so a block's own parameters are used here, with
``scaled_dot_product_attention``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


class UnsupportedBackboneError(ValueError):
    """A tower cannot take learned prompts the way CLIP's does."""


def blocks(transformer: nn.Module) -> Sequence[nn.Module]:
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


def project(layer: nn.Module, x: Tensor) -> Tensor:
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


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(head width)) v for tensors (..., length, heads, head width)."""
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(-2, -3)


def finish(layer: nn.Module, x: Tensor, mixed: Tensor) -> Tensor:
    """Return what a layer makes of its input and of the mixed values.

    Args:
        x: (..., length, width), the layer's input.
        mixed: (..., length, heads, head width).
    """
    x = x + layer.ls_1(layer.attn.out_proj(mixed.flatten(-2)))
    return x + layer.ls_2(_mlp(layer.mlp, layer.ln_2(x)))


def _mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """Run the feed-forward part; QuickGELU as x s(a x) = silu(a x) / a, a inside the products.

    That is one pass over the hidden states instead of three, and one of them kept instead of two.
    """
    first, activation, second = mlp
    if not isinstance(activation, QuickGELU):
        return mlp(x)
    a = 1.702
    hidden = torch.addmm(first.bias, x.flatten(0, -2), first.weight.t(), beta=a, alpha=a)
    hidden = F.silu(hidden, inplace=not hidden.requires_grad)
    return torch.addmm(second.bias, hidden, second.weight.t(), alpha=1 / a).view_as(x)


def replace(x: Tensor, deep: Sequence[Tensor], i: int, start: int) -> Tensor:
    """Return the input of layer i, with its deep prompts if there are any.

    Before layer i = 1..len(deep), counted from 0, the tokens from position ``start`` on become
    ``deep[i - 1]`` (Khattak et al., 2023, sections 3.2.1 and 3.2.2).

    Args:
        x: (n, length, width) tokens.
        deep: (n_ctx, width) tensors.
        start: position of the first token that is replaced.
    """
    if not 1 <= i <= len(deep):
        return x
    prompts = deep[i - 1].to(x.dtype)
    return torch.cat(
        [x[:, :start], prompts.expand(len(x), -1, -1), x[:, start + len(prompts) :]], dim=1
    )


def check_depth(deep: Sequence[Tensor], layers: Sequence[nn.Module]) -> None:
    """Raise ValueError if there are more deep prompts than layers that could take them."""
    if deep and len(deep) >= len(layers):
        raise ValueError(
            f"{len(deep)} deep prompts for {len(layers)} layers: "
            f"the first layer takes none, so give at most {len(layers) - 1}"
        )


def run_layers(
    transformer: nn.Module, x: Tensor, deep: Sequence[Tensor] = (), start: int = 0
) -> Tensor:
    """Run a transformer some of whose tokens are replaced on the way and whose first is read.

    Args:
        transformer: an open_clip ``Transformer``.
        x: (n, length, width) tokens.
        deep, start: as for :func:`replace`.

    Returns:
        (n, width), the first token's final state.

    Raises:
        UnsupportedBackboneError: as :func:`blocks`.
        ValueError: more deep prompts than layers that could take them.
    """
    *layers, last = blocks(transformer)
    check_depth(deep, [*layers, last])
    for i, layer in enumerate(layers):
        x = replace(x, deep, i, start)
        x = finish(layer, x, attend(*project(layer, x).unbind(-3)))
    return _read(last, replace(x, deep, len(layers), start))


def _read(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer for the first token alone: (n, length, width) to (n, width).

    Keys K = X W_k' and values V = X W_v' of all tokens are not needed: q K' = (q W_k) X', and with
    attention weights a, a V = (a X) W_v'. Their biases: the one of K shifts all scores alike, and
    that of V is added once, since weights sum to 1.
    """
    attention, tokens = layer.attn, layer.ln_1(x)
    heads = attention.num_heads
    w_q, w_k, w_v = attention.in_proj_weight.unflatten(0, (3, heads, -1))
    b_q, _, b_v = attention.in_proj_bias.unflatten(0, (3, heads, -1))
    q = (torch.einsum("nw,hdw->nhd", tokens[:, 0], w_q) + b_q) * w_q.shape[1] ** -0.5
    scores = torch.einsum("nhd,hdw->nhw", q, w_k) @ tokens.transpose(1, 2)
    mixed = torch.einsum("nhw,hdw->nhd", scores.softmax(dim=-1) @ tokens, w_v) + b_v
    return finish(layer, x[:, 0], mixed)
