"""CoOp: the context words of CLIP's prompts as trainable vectors (Zhou et al., 2022, IJCV)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.context import ContextLearner, count_tokens
from trainers.prompted import PromptedCLIP

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
        ValueError: unknown position, and as :class:`ContextLearner`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx: int = 16,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
    ) -> None:
        if position not in POSITIONS:
            raise ValueError(
                f"CLASS_TOKEN_POSITION {position!r}: choose one of {', '.join(POSITIONS)}"
            )
        n_ctx = count_tokens(ctx_init) or n_ctx
        super().__init__(backbone, classnames, n_ctx, ctx_init, class_specific)
        self.position = position
        lengths = [count_tokens(name) for name in classnames]
        total = int(self.eot.max()) + 1
        order = torch.tensor([_order(position, n_ctx, length, total) for length in lengths])
        self.register_buffer("order", order.to(self.eot.device), persistent=False)

    def forward(self) -> Tensor:
        """Return prompts (classes, length, width), length = max(eot) + 1, without positions."""
        prompts = self.prompts(self.ctx)
        if self.position == "end":
            return prompts
        return prompts.gather(1, self.order[..., None].expand_as(prompts))


def _order(position: str, n_ctx: int, name_length: int, length: int) -> list[int]:
    """Positions in [SOS, context, name, rest] from which the wanted layout takes its tokens."""
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    name = range(1 + n_ctx, 1 + n_ctx + name_length)
    rest = range(1 + n_ctx + name_length, length)
    return [0, *range(1, 1 + before), *name, *range(1 + before, 1 + n_ctx), *rest]


class ContextCLIP(PromptedCLIP):
    """CLIP's text tower with CoOp's prompts; the image tower sees none."""

    def forward(self, image: Tensor) -> Tensor:
        learner = self.prompt_learner
        text = clip.encode_prompts(self.backbone, learner(), learner.eot)
        return self.logits(clip.encode_image(self.backbone, self.cast(image)), text)


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context optimization (Zhou et al., 2022)."""

    node = "COOP"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> nn.Module:
        learner = PromptLearner(
            backbone,
            classnames,
            n_ctx=self.settings.N_CTX,
            ctx_init=self.settings.CTX_INIT,
            class_specific=self.settings.CSC,
            position=self.settings.CLASS_TOKEN_POSITION,
        )
        return ContextCLIP(backbone, learner)
