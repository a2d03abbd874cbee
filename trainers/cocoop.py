"""CoCoOp: a context for each image, from a meta-network (Zhou et al., 2022, CVPR)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

import clip
from dassl.engine import TRAINER_REGISTRY
from qprompt.clip.meta_net import MetaNet
from trainers.base import PromptTrainer
from trainers.context import ContextLearner, count_tokens
from trainers.prompted import PromptedCLIP
from trainers.upstream import TextEncoder, load_clip_to_cpu  # noqa: F401 (for others' trainers)


class ConditionalPromptLearner(ContextLearner):
    """A context that is shifted by a function of the image feature x.

        v_m(x) = v_m + h(x),    h = linear, ReLU, linear

    Source: Zhou et al., 2022 (CVPR), section 3.2.

    Args:
        backbone, classnames: as for :class:`ContextLearner`.
        n_ctx: number of context tokens, unless ``ctx_init`` is given.
        ctx_init: words whose embeddings the context starts from, one vector for each token.

    Attributes:
        ctx: parameter (n_ctx, width).
        meta_net: h.
    """

    def __init__(
        self, backbone: nn.Module, classnames: list[str], n_ctx: int = 16, ctx_init: str = ""
    ) -> None:
        super().__init__(backbone, classnames, count_tokens(ctx_init) or n_ctx, ctx_init)
        self.meta_net = MetaNet(clip.embed_dim(backbone), self.ctx.shape[-1]).to(self.ctx)

    def forward(self, features: Tensor) -> clip.Prompts:
        """Return the prompts of normalised image features (m, embed_dim), a prefix for each."""
        # (n_ctx, width) + (m, 1, width)
        return self.build_prompts(self.ctx + self.meta_net(features)[:, None])


class ConditionalCLIP(PromptedCLIP):
    """CLIP whose text tower reads the prompts of each class anew for each image."""

    def forward(self, image: Tensor) -> Tensor:
        features = self.image_features(image)
        return self.logits(features, self.encode_prompts(self.prompts(features)))

    def prompts(self, image: Tensor) -> clip.Prompts:
        return self.learned_prompts(F.normalize(image, dim=-1))

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Do nothing: no prompt is that of all images."""
        yield


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Conditional context optimization (Zhou et al., 2022)."""

    node = "COCOOP"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        settings = self.settings
        learner = ConditionalPromptLearner(
            backbone, classnames, n_ctx=settings.N_CTX, ctx_init=settings.CTX_INIT
        )
        return ConditionalCLIP(backbone, learner, **self.text_options())
