"""IVLP: prompts of both towers of CLIP, independent of each other (Khattak et al., 2023, ICCV)."""

from __future__ import annotations

from torch import nn

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.context import ContextLearner, check_tokens
from trainers.layers import ImagePrompts, LayerPrompts, LayerwiseLearner, check_depth
from trainers.prompted import PromptedCLIP


class IndependentPromptLearner(LayerwiseLearner):
    """Prompts for the first layers of the text tower, and others for those of the image tower.

    Source: Khattak et al., 2023 (ICCV), section 3.1.

    Args:
        backbone: an open_clip CLIP, with a vision transformer if there are image prompts.
        classnames: one name for each class.
        n_ctx_text, n_ctx_vision: number of tokens in each tower.
        depth_text: number of layers of the text tower with prompts of their own, at least 1.
        depth_vision: the same for the image tower; 0: no image prompts.
        ctx_init: words that the context starts from, as for :class:`ContextLearner`.

    Attributes:
        prompt_learner: the context, which is the prompt of the text tower's first layer.
        text_encoder: the prompts of its other layers.

    Raises:
        UserError, clip.UnsupportedBackboneError: as :class:`ContextLearner` and
            :class:`ImagePrompts`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx_text: int = 2,
        n_ctx_vision: int = 2,
        depth_text: int = 9,
        depth_vision: int = 9,
        ctx_init: str = "a photo of a",
    ) -> None:
        super().__init__()
        check_depth("PROMPT_DEPTH_TEXT", depth_text, clip.text_tower(backbone).transformer, 1)
        check_tokens("N_CTX_TEXT", n_ctx_text)
        self.prompt_learner = ContextLearner(backbone, classnames, n_ctx_text, ctx_init)
        self.text_encoder = LayerPrompts(depth_text, self.prompt_learner.ctx)
        self.image_encoder = (
            ImagePrompts(backbone, n_ctx_vision, depth_vision) if depth_vision else None
        )

    def forward(self) -> clip.Prompts:
        """Return the prompts of both towers."""
        context = self.prompt_learner
        prompts = context.build_prompts(context.ctx[None])
        prompts = prompts._replace(deep_text=self.text_encoder.deep())
        return self.image_encoder.add_to(prompts) if self.image_encoder else prompts


@TRAINER_REGISTRY.register()
class IVLP(PromptTrainer):
    """Independent vision-language prompting, the baseline of MaPLe and PromptSRC."""

    node = "IVLP"
    model_name = "VLPromptLearner"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        learner = IndependentPromptLearner(
            backbone,
            classnames,
            n_ctx_text=self.settings.N_CTX_TEXT,
            n_ctx_vision=self.settings.N_CTX_VISION,
            depth_text=self.settings.PROMPT_DEPTH_TEXT,
            depth_vision=self.settings.PROMPT_DEPTH_VISION,
            ctx_init=self.settings.CTX_INIT,
        )
        model = PromptedCLIP(backbone, learner, **self.text_options())
        model.frozen_image_tower = learner.image_encoder is None
        return model
