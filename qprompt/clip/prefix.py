"""Texts with a common prefix, of which the prefix is encoded once.

In a causal transformer the hidden states of a token follow from the tokens up to it. So a prefix
that all texts have in common has the same hidden states in all of them: they are computed once, and
the tokens of each suffix attend to their keys and values. What stands after a text's end-of-text
token never matters and is left out. Nothing is approximated.

Suffixes of different lengths are packed into rows of one length, several in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip.transformer import Transformer
from torch import Tensor
from torch.nn import functional as F

from .layers import (
    attend,
    check_depth,
    finish_block,
    project_qkv,
    replace_prompts,
    residual_blocks,
)
from .prompts import Prompts
from .rows import Rows, rows_of

KVCache = Sequence[tuple[Tensor, Tensor]]  # keys and values of each layer


def encode_prefix(transformer: Transformer, prompts: Prompts) -> KVCache:
    """Run the prefixes through a causal transformer, for :func:`encode_suffixes`.

    Args:
        transformer: an open_clip ``Transformer``.
        prompts: with positions; their suffixes are not read.

    Returns:
        Keys and values of each layer, (m, p, heads, head width).

    Raises:
        UnsupportedBackboneError, ClipError: as :func:`.layers.run_layers`.
    """
    layers, x, deep = residual_blocks(transformer), prompts.prefix, prompts.deep_text
    check_depth(deep, layers)
    kv_cache = []
    for i, layer in enumerate(layers):
        x = replace_prompts(x, deep, i, 1)  # (m, p, width)
        q, k, v = project_qkv(layer, x).unbind(-3)  # (m, p, heads, head width) each
        kv_cache.append((k, v))
        if layer is not layers[-1]:
            x = finish_block(layer, x, attend(q, k, v, causal=True))
    return kv_cache


def encode_suffixes(transformer: Transformer, kv_cache: KVCache, prompts: Prompts) -> Tensor:
    """Run each suffix after each prefix through a causal transformer.

    Args:
        transformer: an open_clip ``Transformer``.
        kv_cache: what :func:`encode_prefix` returned.
        prompts: with positions; their prefixes are not read.

    Returns:
        (m, n, width), the last hidden states of the end-of-text tokens.
    """
    layers, (m, p) = residual_blocks(transformer), kv_cache[0][0].shape[:2]
    rows = _rows(prompts, p)
    x = _pack_suffixes(prompts, rows, m)  # (m, rows x row length, width)
    mask = rows.attn_mask
    for layer, (k, v) in zip(layers, kv_cache, strict=True):
        attn_output = _attend_suffixes(project_qkv(layer, x), k, v, mask)
        if layer is layers[-1]:
            end = rows.end - p
            x, attn_output = (t.index_select(1, end) for t in (x, attn_output))  # (m, n, ...)
        x = finish_block(layer, x, attn_output)
    return x


# encode_suffixes after encode_prefix would do, but products for one short prefix are small: forward
# and backward through ViT-B/16's text tower took 1.47 times the processor time for 5 classes (4
# context tokens), 1.42 for 10 (16), 1.03 and 1.04 for 100 (4, 16), on one thread.
def encode_texts(transformer: Transformer, prompts: Prompts) -> Tensor:
    """Run prefixes and suffixes at once, in larger and fewer matrix products.

    Args:
        transformer: an open_clip ``Transformer``.
        prompts: with positions.

    Returns:
        (m, n, width), the last hidden states of the end-of-text tokens.

    Raises:
        UnsupportedBackboneError, ClipError: as :func:`encode_prefix`.
    """
    layers, deep = residual_blocks(transformer), prompts.deep_text
    check_depth(deep, layers)
    m, p, _ = prompts.prefix.shape
    rows = _rows(prompts, p)
    # (m, p, width), (m, rows x row length, width)
    x = torch.cat([prompts.prefix, _pack_suffixes(prompts, rows, m)], dim=1)
    for i, layer in enumerate(layers):
        x = replace_prompts(x, deep, i, 1)
        qkv = project_qkv(layer, x)  # (m, length, 3, heads, head width)
        if len(rows.text) == 1:
            q, k, v = qkv.unbind(-3)
            attn_output = attend(q, k, v, mask=rows.whole_mask)
        else:
            attn_output = _attend_rows(qkv, rows.attn_mask)
        if layer is layers[-1]:
            x, attn_output = (t.index_select(1, rows.end) for t in (x, attn_output))  # (m, n, ...)
        x = finish_block(layer, x, attn_output)
    return x


def _rows(prompts: Prompts, prefix_length: int) -> Rows:
    if prompts.rows is not None:
        return prompts.rows
    suffix = prompts.suffix
    return rows_of(tuple(prompts.lengths), prefix_length, suffix.dtype, suffix.device)


def _pack_suffixes(prompts: Prompts, rows: Rows, m: int) -> Tensor:
    """Return the suffixes in rows, for each of m prefixes: (m, rows x row length, width)."""
    packed = prompts.suffix[rows.text, rows.position]  # (rows, row length, width)
    return packed.flatten(0, 1).expand(m, -1, -1)


def _attend_rows(qkv: Tensor, attn_mask: Tensor) -> Tensor:
    """Let the prefix attend to itself, and the tokens of suffixes to it and their own text.

    Args:
        qkv: (m, p + rows x row length, 3, heads, head width).
        attn_mask: as of :class:`Rows`.

    Returns:
        (m, p + rows x row length, heads, head width).
    """
    suffixes = attn_mask.shape[0] * attn_mask.shape[2]
    prefix, suffix = qkv.split([qkv.shape[1] - suffixes, suffixes], dim=1)
    if len(qkv) > 1:  # a view would keep those of all tokens in memory, which q's does if m = 1
        prefix = prefix.clone()
    q, k, v = prefix.unbind(-3)
    attn_output = _attend_suffixes(suffix, k, v, attn_mask)
    return torch.cat([attend(q, k, v, causal=True), attn_output], dim=1)


def _attend_suffixes(qkv: Tensor, prefix_k: Tensor, prefix_v: Tensor, attn_mask: Tensor) -> Tensor:
    """Let the tokens of suffixes attend to those of their own text and of the prefix.

    Args:
        qkv: (m, rows x row length, 3, heads, head width).
        prefix_k, prefix_v: (m, p, heads, head width).
        attn_mask: as of :class:`Rows`.

    Returns:
        (m, rows x row length, heads, head width).
    """
    m = prefix_k.shape[0]
    rows, _, length, _ = attn_mask.shape

    def split(t: Tensor) -> Tensor:
        """(m, rows x length, heads, head width) to (rows, m x heads, length, head width)."""
        return t.unflatten(1, (rows, length)).permute(1, 0, 3, 2, 4).flatten(1, 2)

    def extend(prefix: Tensor, suffix: Tensor) -> Tensor:
        """(rows, m x heads, p + length, head width)."""
        prefix = prefix.transpose(1, 2).flatten(0, 1).expand(rows, -1, -1, -1)
        return torch.cat([prefix, split(suffix)], dim=2)

    q, k, v = qkv.unbind(2)
    q, k, v = split(q), extend(prefix_k, k), extend(prefix_v, v)
    attn_output = F.scaled_dot_product_attention(q, k, v, attn_mask)  # as q
    return attn_output.unflatten(1, (m, -1)).permute(1, 0, 3, 2, 4).flatten(1, 2)
