"""PromptSRC: prompts of both towers, held near the frozen CLIP (Khattak et al., 2023, ICCV)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import qprompt
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.ivlp import IVLP
from trainers.templates import IMAGENET_TEMPLATES, encode_templates

TEMPLATES = IMAGENET_TEMPLATES[:60]  # the authors' choice


def l1_distance(features: Tensor, others: Tensor) -> Tensor:
    """Return the mean absolute difference of features after their normalisation."""
    one, other = (F.normalize(x.float(), dim=-1) for x in (features, others))
    return F.l1_loss(one, other)


@TRAINER_REGISTRY.register()
class PromptSRC(IVLP):
    """Self-regulating prompts: IVLP with three more losses and an average of all epochs' prompts.

        L = L_CE + a |text - text_0| + b |image - image_0| + KL(logits_0 || logits)

    where text_0 is the mean over many templates, and what has the index 0 is the frozen CLIP's. All
    are means over their elements.

    Source: Khattak et al., 2023 (ICCV), sections 3.2.1 to 3.2.3.
    """

    node = "PROMPTSRC"

    def check_cfg(self, cfg: Any) -> None:
        super().check_cfg(cfg)
        if cfg.TRAINER.PROMPTSRC.GPA_STD <= 0:
            raise UserError(
                f"GPA_STD is {cfg.TRAINER.PROMPTSRC.GPA_STD}: it is a number of epochs above 0"
            )

    @functools.cached_property
    def frozen_text(self) -> Tensor:
        """The frozen text features (classes, embed_dim); no evaluation needs them."""
        names = self.dm.dataset.classnames
        return encode_templates(self.features, names, TEMPLATES).mean(dim=0)

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        prompts, text = self.model.encode_classes()
        features, frozen = self.model.image_features(image, prompts), self.frozen_features(image)
        logits = self.model.logits(features, text)
        frozen_logits = self.model.logits(frozen, self.frozen_text)
        divergence = F.kl_div(
            logits.log_softmax(dim=-1),
            frozen_logits.log_softmax(dim=-1),
            reduction="none",
            log_target=True,
        )
        loss = (
            F.cross_entropy(logits, label)
            + self.settings.TEXT_LOSS_WEIGHT * l1_distance(text, self.frozen_text)
            + self.settings.IMAGE_LOSS_WEIGHT * l1_distance(features, frozen)
            + divergence.mean()
        )
        return loss, logits

    def after_epoch(self) -> None:
        self.average_epochs()
        super().after_epoch()

    @torch.no_grad()
    def average_epochs(self) -> None:
        """Move the average of all epochs' prompts to those of this one; the last takes its place.

        Epoch t = 1, 2, ... weighs exp(-(t - mean)^2 / (2 std^2)). The average is kept in the
        optimizer's state, with which it goes into checkpoints.
        """
        epochs = torch.arange(1, self.cfg.OPTIM.MAX_EPOCH + 1, dtype=torch.float64)
        mean, std = self.settings.GPA_MEAN, self.settings.GPA_STD
        exponents = -((epochs - mean) ** 2) / (2 * std**2)
        for parameter in self.model.prompt_learner.parameters():
            state = self.optim.state[parameter]
            first = state.setdefault("first_epoch", self.epoch)  # later if a checkpoint has none
            weight = exponents[first : self.epoch + 1].softmax(dim=0)[-1].item()
            state.setdefault("average", parameter.clone()).lerp_(parameter, weight)
            if self.epoch + 1 == len(epochs):
                parameter.copy_(state.pop("average"))
                del state["first_epoch"]
        if self.epoch + 1 == len(epochs):
            qprompt.refit_(self.model)
