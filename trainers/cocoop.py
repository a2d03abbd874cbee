"""CoCoOp: a context for each image, from a meta-network (Zhou et al., 2022, CVPR)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.context import ContextLearner, count_tokens
from trainers.prompted import PromptedCLIP

BOTTLENECK = 16  # section 3.2: the hidden layer is 16 times narrower than the image features


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
        features, width = clip.embed_dim(backbone), self.ctx.shape[-1]
        layers = OrderedDict(
            linear1=nn.Linear(features, features // BOTTLENECK),
            relu=nn.ReLU(inplace=True),
            linear2=nn.Linear(features // BOTTLENECK, width),
        )
        self.meta_net = nn.Sequential(layers).to(self.ctx)

    def forward(self, features: Tensor) -> Tensor:
        """Map normalised image features (n, embed_dim) to contexts (n, n_ctx, width)."""
        return self.ctx + self.meta_net(features)[:, None]


class ConditionalCLIP(PromptedCLIP):
    """CLIP whose text tower reads the prompts of each class anew for each image.

    Args:
        backbone, prompt_learner: as for :class:`PromptedCLIP`.
        chunk: number of prompts that are encoded at once. Where images x classes are more,
            training computes the chunks a second time for the gradient, so that memory is that
            of one chunk.
    """

    def __init__(self, backbone: nn.Module, prompt_learner: nn.Module, chunk: int) -> None:
        super().__init__(backbone, prompt_learner)
        if chunk < 1:
            raise ValueError(f"CHUNK is {chunk}: it is a number of prompts, at least 1")
        self.chunk = chunk

    def forward(self, image: Tensor) -> Tensor:
        image = clip.encode_image(self.backbone, self.cast(image))
        contexts = self.prompt_learner(F.normalize(image, dim=-1))
        classes = len(self.prompt_learner.eot)
        pairs = torch.arange(len(image) * classes, device=image.device)
        chunks = pairs.split(self.chunk)
        if len(chunks) == 1 or not torch.is_grad_enabled():
            text = [self._encode(contexts, chunk) for chunk in chunks]
        else:
            options = {"use_reentrant": False, "preserve_rng_state": False}
            text = [checkpoint(self._encode, contexts, chunk, **options) for chunk in chunks]
        return self.logits(image, torch.cat(text).unflatten(0, (len(image), classes)))

    def _encode(self, contexts: Tensor, pairs: Tensor) -> Tensor:
        """Encode the prompts of some pairs, numbered image * classes + class."""
        learner = self.prompt_learner
        classes = pairs % len(learner.eot)
        prompts = learner.prompts(contexts[pairs // len(learner.eot)], classes)
        return clip.encode_prompts(self.backbone, prompts, learner.eot[classes])


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Conditional context optimization (Zhou et al., 2022)."""

    node = "COCOOP"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> nn.Module:
        settings = self.settings
        learner = ConditionalPromptLearner(
            backbone, classnames, n_ctx=settings.N_CTX, ctx_init=settings.CTX_INIT
        )
        return ConditionalCLIP(backbone, learner, settings.CHUNK)
