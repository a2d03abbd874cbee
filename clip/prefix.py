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
from clip.prompts import Prompts

# tokens of a block, at least; longer ones compare more tokens of different texts in vain
BLOCK = 32


class Layout(NamedTuple):
    """How texts of different lengths are packed into blocks of one length.

    Attributes:
        text, position: int64 (blocks, length), which token of which text lies there.
        seen: bool (blocks, length, length), whether a token attends to another of its block: to
            those of its own text up to itself.
        last: int64 (n,), where each text's last token lies, counted through all blocks.
    """

    text: Tensor
    position: Tensor
    seen: Tensor
    last: Tensor


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept may be needed for a gradient later
def layout(lengths: tuple[int, ...], device: torch.device) -> Layout:
    """Pack texts into blocks of the length, ``BLOCK`` to twice that, that needs least padding."""
    least = max(BLOCK, *lengths)

    def longest(packing: list[list[int]]) -> int:
        return max(sum(lengths[i] for i in block) for block in packing)

    packings = [_pack(lengths, size) for size in range(least, 2 * least)]
    packing = min(packings, key=lambda packing: len(packing) * longest(packing))
    size = longest(packing)
    owner = torch.full((len(packing), size), -1)
    position = torch.zeros_like(owner)
    last = torch.empty(len(lengths), dtype=torch.int64)
    for block, texts in enumerate(packing):
        end = 0
        for i in texts:
            start, end = end, end + lengths[i]
            owner[block, start:end] = i
            position[block, start:end] = torch.arange(lengths[i])
            last[i] = block * size + end - 1
    seen = (owner[:, :, None] == owner[:, None]).tril()
    return Layout(*(t.to(device) for t in (owner.clamp(min=0), position, seen, last)))


def _pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Fill one block after another, each with the longest texts that it still has room for."""
    waiting: dict[int, list[int]] = {n: [] for n in sorted(set(lengths), reverse=True)}
    for i, length in enumerate(lengths):
        waiting[length].append(i)
    packing = []
    while any(waiting.values()):
        block: list[int] = []
        room = size
        for length, texts in waiting.items():
            fitting = room // length
            block += texts[:fitting]
            room -= length * len(texts[:fitting])
            del texts[:fitting]
        packing.append(block)
    return packing


Begun = Sequence[tuple[Tensor, Tensor]]


def begin(transformer: nn.Module, prompts: Prompts) -> Begun:
    """Run the common beginnings through a causal transformer.

    Args:
        transformer: an open_clip ``Transformer``.
        prompts: with positions.

    Returns:
        Keys and values of each layer, (m, p, heads, head width).

    Raises:
        UnsupportedBackboneError, ValueError: as :func:`clip.layers.run_layers`.
    """
    layers, prefix, deep = blocks(transformer), prompts.prefix, prompts.deep_text
    check_depth(deep, layers)
    begun = []
    for i, layer in enumerate(layers):
        prefix = replace(prefix, deep, i, 1)
        q, k, v = project(layer, prefix).unbind(-3)
        begun.append((k, v))
        if i + 1 < len(layers):
            prefix = finish(layer, prefix, attend(q, k, v, causal=True))
    return begun


def complete(transformer: nn.Module, begun: Begun, prompts: Prompts) -> Tensor:
    """Run the rest of each text, after each beginning, through a causal transformer.

    Args:
        transformer: an open_clip ``Transformer``.
        begun: what :func:`begin` returned for m beginnings.
        prompts: with positions; their prefix is not read.

    Returns:
        (m, n, width), the last hidden states of the end-of-text tokens.
    """
    suffix = prompts.suffix
    texts = layout(tuple(prompts.lengths), suffix.device)
    layers = blocks(transformer)
    x = suffix[texts.text, texts.position].flatten(0, 1).expand(len(begun[0][0]), -1, -1)
    for layer, (keys, values) in zip(layers, begun, strict=True):
        mixed = _attend_texts(texts.seen, project(layer, x), keys, values)
        if layer is layers[-1]:
            x, mixed = x[:, texts.last], mixed[:, texts.last]
        x = finish(layer, x, mixed)
    return x


def run(transformer: nn.Module, prompts: Prompts) -> Tensor:
    """Do what :func:`begin` and :func:`complete` do, in larger and fewer matrix products.

    Args:
        transformer, prompts: as for :func:`begin`.

    Returns:
        (m, n, width), the last hidden states of the end-of-text tokens.

    Raises:
        UnsupportedBackboneError, ValueError: as :func:`begin`.
    """
    prefix, suffix, deep = prompts.prefix, prompts.suffix, prompts.deep_text
    texts = layout(tuple(prompts.lengths), suffix.device)
    layers = blocks(transformer)
    check_depth(deep, layers)
    m, p, _ = prefix.shape
    x = torch.cat(
        [prefix, suffix[texts.text, texts.position].flatten(0, 1).expand(m, -1, -1)], dim=1
    )
    for i, layer in enumerate(layers):
        x = replace(x, deep, i, 1)
        common, own = project(layer, x).split([p, x.shape[1] - p], dim=1)
        q, k, v = common.clone().unbind(-3)  # a view would keep those of all tokens in memory
        mixed = _attend_texts(texts.seen, own, k, v)
        if layer is layers[-1]:
            x, mixed = x[:, p:][:, texts.last], mixed[:, texts.last]
        else:
            mixed = torch.cat([attend(q, k, v, causal=True), mixed], dim=1)
        x = finish(layer, x, mixed)
    return x


def _attend_texts(seen: Tensor, qkv: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Let the tokens of texts attend to those of their own text and of the common beginning.

    Args:
        seen: as of :class:`Layout`.
        qkv: (m, blocks length, 3, heads, head width).
        keys, values: (m, p, heads, head width), of the common beginnings.

    Returns:
        (m, blocks length, heads, head width).
    """
    m, p = keys.shape[:2]
    count, length, _ = seen.shape

    def split(t: Tensor) -> Tensor:  # blocks, m heads, length, width: the mask is one for all heads
        return t.unflatten(1, (count, length)).permute(1, 0, 3, 2, 4).flatten(1, 2)

    def extend(common: Tensor, own: Tensor) -> Tensor:
        common = common.transpose(1, 2).flatten(0, 1).expand(count, -1, -1, -1)
        return torch.cat([common, split(own)], dim=2)

    q, k, v = qkv.unbind(2)
    mask = F.pad(seen, (p, 0), value=True)[:, None]
    mixed = F.scaled_dot_product_attention(split(q), extend(keys, k), extend(values, v), mask)
    return mixed.unflatten(1, (m, -1)).permute(1, 0, 3, 2, 4).flatten(1, 2)
