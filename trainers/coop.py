"""CoOp: the context words of CLIP's prompts as trainable vectors (Zhou et al., 2022, IJCV)."""

from __future__ import annotations

from typing import Any

from torch import nn

import clip
from dassl.engine import TRAINER_REGISTRY, results
from dassl.utils import UserError
from trainers.base import PromptTrainer
from trainers.context import ContextLearner, count_tokens
from trainers.prompted import PromptedCLIP
from trainers.upstream import TextEncoder, load_clip_to_cpu  # noqa: F401 (for others' trainers)


class PromptLearner(ContextLearner):
    """A learned context, shared or for each class, around the class name (section 3.2).

    Args:
        backbone, classnames, class_specific, position: as for :class:`ContextLearner`.
        n_ctx: number of context tokens, unless ``ctx_init`` is given.
        ctx_init: words whose embeddings the context starts from, one vector for each of their
            tokens; empty for a normal distribution with standard deviation 0.02.
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
        n_ctx = count_tokens(ctx_init) or n_ctx
        super().__init__(backbone, classnames, n_ctx, ctx_init, class_specific, position)

    def forward(self) -> clip.Prompts:
        """Return the prompts, one prefix for all classes; just the start if class-specific."""
        return self.build_prompts(self.ctx)


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
