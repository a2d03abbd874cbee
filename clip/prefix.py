"""Texts with a common beginning, of which that beginning is encoded once.

In a causal transformer the hidden states of a token follow from the tokens up to it. So leading
tokens that all texts have in common have the same hidden states in all of them: they are computed
once, and the tokens of each text that follow attend to their keys and values. What stands after a
text's end-of-text token never matters and is left out. Nothing is approximated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip.layers import attend, blocks, check_depth, finish, project, replace

PADDING = 0.1  # at most so much shorter than the longest of its group may a text be


class Layout(NamedTuple):
    """How texts of different lengths lie one after another in a single sequence of tokens.

    Attributes:
        text, position: int64 (total,), which token of which text lies there.
        groups: number of texts and their common padded length, for each run of similar texts.
        last: int64 (n,), where each text's last token lies.
    """

    text: Tensor
    position: Tensor
    groups: tuple[tuple[int, int], ...]
    last: Tensor


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept may be needed for a gradient later
def layout(lengths: tuple[int, ...], device: torch.device) -> Layout:
    """Arrange texts by length, and pad those of similar length to the same one."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[tuple[int, int]] = []
    texts, positions, last = [], [], [0] * len(lengths)
    for i in order:
        if not groups or lengths[i] < (1 - PADDING) * groups[-1][1]:
            groups.append((0, lengths[i]))
        count, padded = groups[-1]
        groups[-1] = count + 1, padded
        last[i] = len(texts) + lengths[i] - 1
        texts += [i] * padded
        positions += range(padded)
    indices = (torch.tensor(numbers, device=device) for numbers in (texts, positions, last))
    text, position, last_ = indices
    return Layout(text, position, tuple(groups), last_)


Begun = Sequence[tuple[Tensor, Tensor]]


def begin(transformer: nn.Module, prefix: Tensor, deep: Sequence[Tensor] = ()) -> Begun:
    """Run the common beginnings through a causal transformer.

    Args:
        transformer: an open_clip ``Transformer``.
        prefix: (m, p, width) tokens of m beginnings, p >= 1.
        deep: what replaces the tokens after the first one before layer 1, 2, ...; each
            (n_ctx, width), n_ctx < p.

    Returns:
        Keys and values of each layer, (m, p, heads, head width).

    Raises:
        UnsupportedBackboneError, ValueError: as :func:`clip.layers.run_layers`.
    """
    layers = blocks(transformer)
    check_depth(deep, layers)
    begun = []
    for i, layer in enumerate(layers):
        prefix = replace(prefix, deep, i, 1)
        q, k, v = project(layer, prefix).unbind(-3)
        begun.append((k, v))
        if i + 1 < len(layers):
            prefix = finish(layer, prefix, attend(q, k, v, causal=True))
    return begun


def complete(
    transformer: nn.Module, begun: Begun, suffix: Tensor, lengths: Sequence[int]
) -> Tensor:
    """Run the rest of each text, after each beginning, through a causal transformer.

    Args:
        transformer: an open_clip ``Transformer``.
        begun: what :func:`begin` returned for m beginnings.
        suffix: (n, length, width) tokens.
        lengths: number of tokens of each suffix up to its end-of-text token.

    Returns:
        (m, n, width), the last hidden states of the end-of-text tokens.
    """
    texts = layout(tuple(lengths), suffix.device)
    layers = blocks(transformer)
    x = suffix[texts.text, texts.position].expand(len(begun[0][0]), -1, -1)
    for layer, (keys, values) in zip(layers, begun, strict=True):
        mixed = torch.cat(_attend_texts(texts, project(layer, x), keys, values), dim=1)
        if layer is layers[-1]:
            x, mixed = x[:, texts.last], mixed[:, texts.last]
        x = finish(layer, x, mixed)
    return x


def run(
    transformer: nn.Module,
    prefix: Tensor,
    suffix: Tensor,
    lengths: Sequence[int],
    deep: Sequence[Tensor] = (),
) -> Tensor:
    """Do what :func:`begin` and :func:`complete` do, in larger and fewer matrix products.

    Args:
        transformer, prefix, deep: as for :func:`begin`.
        suffix, lengths: as for :func:`complete`.

    Returns:
        (m, n, width), the last hidden states of the end-of-text tokens.

    Raises:
        UnsupportedBackboneError, ValueError: as :func:`begin`.
    """
    texts = layout(tuple(lengths), suffix.device)
    layers = blocks(transformer)
    check_depth(deep, layers)
    m, p, _ = prefix.shape
    x = torch.cat([prefix, suffix[texts.text, texts.position].expand(m, -1, -1)], dim=1)
    for i, layer in enumerate(layers):
        x = replace(x, deep, i, 1)
        common, own = project(layer, x).split([p, x.shape[1] - p], dim=1)
        q, k, v = common.clone().unbind(-3)  # a view would keep those of all tokens in memory
        parts = _attend_texts(texts, own, k, v)
        if layer is layers[-1]:
            x, mixed = x[:, p:][:, texts.last], torch.cat(parts, dim=1)[:, texts.last]
        else:
            mixed = torch.cat([attend(q, k, v, causal=True), *parts], dim=1)
        x = finish(layer, x, mixed)
    return x


def _attend_texts(texts: Layout, qkv: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
    """Mix the values of each group of texts: (m, tokens, heads, head width) for each group."""
    parts = qkv.split([count * length for count, length in texts.groups], dim=1)
    return [
        _attend_to_both(part.unflatten(1, group), keys, values)
        for part, group in zip(parts, texts.groups, strict=True)
    ]


def _attend_to_both(qkv: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Let the tokens of n texts attend to those of their own text and of the common beginning.

    One softmax runs over both. ``scaled_dot_product_attention`` would need the beginning's keys and
    values copied for every text, which costs more than all the rest.

    Args:
        qkv: (m, n, length, 3, heads, head width).
        keys, values: (m, p, heads, head width).

    Returns:
        (m, n length, heads, head width).
    """
    n, length = qkv.shape[1:3]
    q, k, v = qkv.permute(3, 0, 4, 1, 2, 5).contiguous().unbind()  # m, heads, n, length, width
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    common = (q.flatten(2, 3) @ keys.transpose(-1, -2)).unflatten(2, (n, length))
    own = q @ k.transpose(-1, -2)
    weights = torch.cat([common, own], dim=-1)
    future = _future(keys.shape[2], length, weights.dtype, weights.device)
    weights = torch.add(future, weights, alpha=q.shape[-1] ** -0.5).softmax(dim=-1).to(v.dtype)
    common, own = weights.split([keys.shape[2], length], dim=-1)
    mixed = (common.flatten(2, 3) @ values) + (own @ v).flatten(2, 3)
    return mixed.transpose(1, 2)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _future(common: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What keeps tokens from those after them: (length, common + length), 0 or -inf."""
    own = torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu(1)
    return F.pad(own, (common, 0))
