"""CoOp: the context words of CLIP's prompts as trainable vectors (Zhou et al., 2022, IJCV)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY, results
from dassl.utils import UserError, check_choice
from trainers.base import PromptTrainer
from trainers.context import ContextLearner, count_tokens
from trainers.prompted import PromptedCLIP
from trainers.upstream import TextEncoder, load_clip_to_cpu  # noqa: F401 (for others' trainers)

POSITIONS = ("end", "middle", "front")


class PromptLearner(ContextLearner):
    """A learned context, shared or for each class, around the class name (section 3.2).

    Args:
        backbone, classnames, class_specific: as for :class:`ContextLearner`.
        n_ctx: number of context tokens, unless ``ctx_init`` is given.
        ctx_init: words whose embeddings the context starts from, one vector for each of their
            tokens; empty for a normal distribution with standard deviation 0.02.
        position: where the class name stands: ``end`` (after the context), ``middle`` or ``front``.

    Raises:
        UserError: unknown position, and as :class:`ContextLearner`.
    """

    order: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx: int = 16,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
    ) -> None:
        check_choice("CLASS_TOKEN_POSITION", position, POSITIONS)
        n_ctx = count_tokens(ctx_init) or n_ctx
        super().__init__(backbone, classnames, n_ctx, ctx_init, class_specific)
        self.position = position
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        if position != "end":
            self.prefix_length = 1 if class_specific else 1 + before
        lengths = [count_tokens(name) for name in classnames]
        total = self.token_prefix.shape[1] + n_ctx + self.token_suffix.shape[1]
        order = torch.tensor([_order(before, n_ctx, length, total) for length in lengths])
        self.register_buffer("order", order.to(self.ctx.device), persistent=False)

    def forward(self) -> clip.Prompts:
        """Return the prompts, one prefix for all classes; just the start if class-specific."""
        if self.position == "end" and self.ctx.ndim == 2:
            return self.build_prompts(self.ctx[None])
        context = self.ctx.expand(len(self.token_prefix), -1, -1)
        # (classes, 1, width), (classes, n_ctx, width), (classes, class name and rest, width)
        tokens = torch.cat([self.token_prefix, context, self.token_suffix], dim=1)
        if self.position != "end":
            tokens = tokens.gather(1, self.order[..., None].expand_as(tokens))
        return clip.Prompts(
            tokens[:1, : self.prefix_length], tokens[:, self.prefix_length :], self.lengths
        )


def _order(before: int, n_ctx: int, name_length: int, length: int) -> list[int]:
    """Positions in [SOS, context, name, rest] from which the wanted layout takes its tokens."""
    name = range(1 + n_ctx, 1 + n_ctx + name_length)
    rest = range(1 + n_ctx + name_length, length)
    return [0, *range(1, 1 + before), *name, *range(1 + before, 1 + n_ctx), *rest]


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization (Zhou et al., 2022)."""

    node = "COOP"

    def context_options(self) -> dict[str, Any]:
        """Return what a :class:`PromptLearner` takes from the configuration."""
        return {
            "n_ctx": self.settings.N_CTX,
            "ctx_init": self.settings.CTX_INIT,
            "class_specific": self.settings.CSC,
            "position": self.settings.CLASS_TOKEN_POSITION,
        }

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        learner = PromptLearner(backbone, classnames, **self.context_options())
        return PromptedCLIP(backbone, learner, **self.text_options())

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a context; one for each class only where the classes are those of its run."""
        super().load_model(directory, epoch)
        classes = results.trained_on(self.weights_path) if self.settings.CSC else None
        if classes not in (None, list(self.dm.dataset.classnames)):
            raise UserError(
                f'"{self.weights_path}" has a context for each class (CSC True), and was trained '
                "on other classes; test it on its own"
            )
