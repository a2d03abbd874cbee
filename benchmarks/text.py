"""The text tower, forward and backward: shared prefixes against all 77 positions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import clip
from benchmarks.measure import Row, compare
from benchmarks.models import load

SECTION = "Text tower, forward and backward"
FITS = 100  # classes whose 77 positions are run at once; more of them in chunks, computed twice


def measure(
    architecture: str, names: Sequence[str], classes: Sequence[int], device: torch.device
) -> Iterator[Row]:
    """Yield a row for each number of context tokens and of classes, as far as there are names."""
    model = load(architecture).to(device)
    for n_ctx in (4, 16):
        for n in classes:
            if n <= len(names):
                yield _row(model, list(names[:n]), n_ctx)


def _row(model: nn.Module, names: list[str], n_ctx: int) -> Row:
    prompts = _Prompts(model, names, n_ctx)
    chunk = 0 if len(names) <= FITS else FITS
    sides = {"full": partial(prompts.step, full=True, chunk=chunk), "shared": prompts.step}
    measured, results = compare(sides)
    difference = max(map(_relative, results["shared"], results["full"]))
    full, shared = prompts.saved_bytes(full=True), prompts.saved_bytes()
    note = (
        f"largest relative difference {difference:.1e}; kept for the gradient: "
        f"full {full / 2**20:,.0f} MiB, shared {shared / 2**20:,.0f} MiB, ratio {full / shared:.1f}"
    )
    if chunk:
        note += f"; full ran in chunks of {chunk}, each computed twice, since it would not fit"
    numbers = {
        "relative_difference": difference,
        "full_saved_bytes": full,
        "shared_saved_bytes": shared,
    }
    return Row(SECTION, f"{len(names)} classes, {n_ctx} context tokens", measured, note, numbers)


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
        self.lengths = tuple((ends - n_ctx).tolist())
        self.weights = torch.randn(len(names), clip.embed_dim(model)).to(device)

    def encode(self, **options: Any) -> Tensor:
        prefix = torch.cat([self.start, self.context], dim=1)
        prompts = clip.Prompts(prefix, self.suffix, self.lengths)
        return clip.encode_prompts(self.model, prompts, **options)[0]

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
