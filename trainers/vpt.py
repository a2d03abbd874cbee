"""VPT: prompts in several layers of CLIP's image tower alone (Jia et al., 2022, ECCV)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.layers import ImagePrompts, LayerwiseLearner
from trainers.prompted import PromptedCLIP


class VisualPromptLearner(LayerwiseLearner):
    """Image prompts beside texts of fixed words.

    Args:
        backbone, n_ctx, depth: as for :class:`ImagePrompts`.
        classnames: one name for each class.
        words: what stands before the class name.

    Raises:
        UserError, clip.UnsupportedBackboneError: as :class:`ImagePrompts`.
    """

    image_encoder: ImagePrompts

    def __init__(
        self, backbone: nn.Module, classnames: list[str], n_ctx: int, depth: int, words: str
    ) -> None:
        super().__init__()
        self.image_encoder = ImagePrompts(backbone, n_ctx, depth)
        self._texts = clip.embed_classes(backbone, words, classnames)

    def forward(self) -> clip.Prompts:
        """Return the fixed texts with the image prompts."""
        return self.image_encoder.add_to(self._texts)


class VisualPromptedCLIP(PromptedCLIP):
    """CLIP with image prompts: its texts are encoded once for all."""

    frozen_image_tower = False

    def __init__(self, backbone: nn.Module, prompt_learner: nn.Module, **options: Any) -> None:
        super().__init__(backbone, prompt_learner, **options)
        with torch.no_grad():
            self._text = self.encode_prompts(prompt_learner())[0]

    def encode_classes(self) -> tuple[clip.Prompts, Tensor]:
        return self.learned_prompts(), self._text


@TRAINER_REGISTRY.register()
class VPT(PromptTrainer):
    """Visual prompt tuning, as MaPLe's authors compare with it (Khattak et al., 2023, CVPR)."""

    node = "VPT"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        learner = VisualPromptLearner(
            backbone,
            classnames,
            n_ctx=self.settings.N_CTX_VISION,
            depth=self.settings.PROMPT_DEPTH_VISION,
            words=self.settings.CTX_INIT,
        )
        return VisualPromptedCLIP(backbone, learner, **self.text_options())
