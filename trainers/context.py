"""The prompts of all classes around a context that is learned."""

from __future__ import annotations

from torch import Tensor, nn

import clip
from clip import count_tokens
from dassl.utils import UserError

__all__ = ["ContextLearner", "count_tokens"]


class ContextLearner(nn.Module):
    """Prompts [SOS, context, class name, ".", EOS] whose context is learned.

    Args:
        backbone: an open_clip CLIP, for its token embeddings.
        classnames: one name for each class.
        n_ctx: number of learned tokens.
        ctx_init: words whose first ``n_ctx`` embeddings the context starts from; their others
            stay in the prompts as they are. Empty, or fewer tokens than ``n_ctx``: a normal
            distribution with standard deviation 0.02.
        class_specific: a context for each class instead of a shared one.
        position: of the class name, as for :class:`clip.ContextLayout`.

    Attributes:
        ctx: parameter (n_ctx, width), or (classes, n_ctx, width) if class-specific.
        layout: what stands around the context.

    Raises:
        UserError: no context at all.
        clip.ClipError: unknown position, or prompts that exceed the text tower's positions.
    """

    ctx: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx: int,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
    ) -> None:
        super().__init__()
        if n_ctx < 1:
            raise UserError(f"N_CTX is {n_ctx}: a prompt learner needs at least one context token")
        self.layout = clip.ContextLayout(
            backbone, classnames, n_ctx, ctx_init, class_specific, position
        )
        self.ctx = nn.Parameter(self.layout.start.clone())
        if not self.layout.from_words:
            nn.init.normal_(self.ctx, std=0.02)

    @property
    def prefix_length(self) -> int:
        return self.layout.prefix_length

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.layout.lengths

    def build_prompts(self, contexts: Tensor) -> clip.Prompts:
        """Put contexts between start and class names."""
        prompts: clip.Prompts = self.layout(contexts)
        return prompts
