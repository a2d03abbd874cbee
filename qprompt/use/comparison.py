"""How two packed prompts differ."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from ..prompt import Prompt


def differences(one: Prompt, other: Prompt) -> Iterator[str]:
    """Yield a line for each metadata key and each tensor in which two prompts differ."""
    for key in sorted(one.metadata.keys() | other.metadata.keys()):
        values = [prompt.metadata.get(key, "(not recorded)") for prompt in (one, other)]
        if values[0] != values[1]:
            yield f"{key}: {values[0]} | {values[1]}"
    for name in sorted(one.tensors.keys() | other.tensors.keys()):
        if name not in one.tensors or name not in other.tensors:
            yield f"{name}: in {(one if name in one.tensors else other).path} alone"
            continue
        a, b = (prompt.tensors[name].float() for prompt in (one, other))
        bits = [_bits(prompt, name) for prompt in (one, other)]
        if a.shape != b.shape:
            yield f"{name}: shape {list(a.shape)} | {list(b.shape)}"
        elif not torch.equal(a, b) or bits[0] != bits[1]:
            differing = int((a != b).sum())
            similarity = F.cosine_similarity(a.flatten(), b.flatten(), dim=0)
            yield (
                f"{name}: {bits[0]} | {bits[1]} bits; {differing:,} of {a.numel():,} numbers "
                f"differ, by {float((a - b).abs().max()):.4g} at most; cosine {similarity:.4f}"
            )


def _bits(prompt: Prompt, name: str) -> int:
    quantized = prompt.packed.quantized
    return quantized[name].bits if name in quantized else 16
