"""The text tower, forward and backward: shared prefixes against all 77 positions."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import clip
from benchmarks.measure import Row, compare
from benchmarks.models import random_clip

SECTION = "Text tower, forward and backward"
FITS = 100  # classes whose 77 positions are run at once; more of them in chunks, computed twice


def measure(architecture: str, names: Sequence[str], device: torch.device) -> Iterator[Row]:
    """Yield a row for each number of classes and of context tokens."""
    model = random_clip(architecture).to(device)
    for n_ctx in (4, 16):
        for classes in (10, 100, 1000):
            if classes <= len(names):
                yield _row(model, list(names[:classes]), n_ctx)


def _row(model: nn.Module, names: list[str], n_ctx: int) -> Row:
    prompts = _Prompts(model, names, n_ctx)
    chunk = 0 if len(names) <= FITS else FITS
    outputs: dict[str, tuple[Tensor, Tensor]] = {}

    def side(name: str, **options: Any) -> None:
        outputs[name] = prompts.step(**options)

    sides = {
        "full": functools.partial(side, "full", full=True, chunk=chunk),
        "shared": functools.partial(side, "shared"),
    }
    measured = compare(sides)
    difference = max(
        _relative(ours, theirs)
        for ours, theirs in zip(outputs["shared"], outputs["full"], strict=True)
    )
    bytes_ = [prompts.saved_bytes(**options) for options in ({"full": True}, {})]
    full, shared = (f"{number / 2**20:,.0f} MiB" for number in bytes_)
    note = (
        f"largest relative difference {difference:.1e}; kept for the gradient: "
        f"full {full}, shared {shared}, ratio {bytes_[0] / bytes_[1]:.1f}"
    )
    if chunk:
        note += f"; full ran in chunks of {chunk}, each computed twice, since it would not fit"
    return Row(SECTION, f"{len(names)} classes, {n_ctx} context tokens", measured, note)


class _Prompts:
    """A shared context before class names."""

    def __init__(self, model: nn.Module, names: list[str], n_ctx: int) -> None:
        device = next(model.parameters()).device
        words = " ".join(["X"] * n_ctx)
        tokens = clip.tokenize([f"{words} {name.replace('_', ' ')}." for name in names]).to(device)
        ends = tokens.argmax(dim=-1)
        embedded = clip.embed_tokens(model, tokens[:, : int(ends.max()) + 1])
        torch.manual_seed(0)
        self.model, self.start, self.suffix = model, embedded[:1, :1], embedded[:, 1 + n_ctx :]
        self.context = (0.02 * torch.randn(1, n_ctx, embedded.shape[-1])).to(device)
        self.context.requires_grad_()
        self.lengths = (ends - n_ctx).tolist()
        self.weights = torch.randn(len(names), clip.embed_dim(model)).to(device)

    def encode(self, **options: Any) -> Tensor:
        prefix = torch.cat([self.start, self.context], dim=1)
        return clip.encode_prompts(self.model, prefix, self.suffix, self.lengths, **options)[0]

    def step(self, **options: Any) -> tuple[Tensor, Tensor]:
        """Return features and the gradient of a fixed function of them."""
        features = self.encode(**options)
        (gradient,) = torch.autograd.grad((features * self.weights).sum(), self.context)
        return features.detach(), gradient

    def saved_bytes(self, **options: Any) -> int:
        """Count what the graph keeps beside the weights, each storage once.

        Run on tensors without memory, so that it can be counted where it would not fit.
        """
        meta = copy.copy(self)
        meta.model = copy.deepcopy(self.model).to("meta")
        meta.start, meta.suffix = self.start.to("meta"), self.suffix.to("meta")
        meta.context = torch.empty_like(self.context, device="meta", requires_grad=True)
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = meta.encode(**options)
        for parameter in meta.model.parameters():
            kept.pop(parameter.untyped_storage()._cdata, None)
        del features
        return sum(storage.nbytes() for storage in kept.values())


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())
