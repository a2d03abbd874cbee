"""DePT: CoOp, and a classifier for what the base classes alone need (Zhang et al., 2024, CVPR)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clip
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.coop import CoOp, PromptLearner
from trainers.named_classes import NamedClasses, encode_classes
from trainers.prompted import PromptedCLIP
from trainers.transfer_head import TransferHead


class DecoupledLearner(NamedClasses, PromptLearner):
    """CoOp's context, and a head for the classes that are trained on.

    Args:
        backbone, classnames, options: as for :class:`trainers.coop.PromptLearner`.

    Attributes:
        rows: (classes,), which row of the classifier each class has; None unless all have one.
    """

    sized_by_classes = ("head.classifier.weight", "head.classifier.bias", "classes")
    rows: Tensor | None

    def __init__(self, backbone: nn.Module, classnames: list[str], **options: Any) -> None:
        super().__init__(backbone, classnames, **options)
        self.classnames = classnames
        self.head = TransferHead(clip.embed_dim(backbone), len(classnames))
        self.classes = nn.Parameter(encode_classes(classnames, [1] * len(classnames)))
        self.match_()

    def match_(self) -> None:
        columns, _ = self.columns()
        known = {column: row for row, column in enumerate(columns)}
        rows = [known.get(i) for i in range(len(self.classnames))]
        device = self.ctx.device
        self.rows = None if None in rows else torch.tensor(rows, device=device)

    def scores(self, image: Tensor, *text: Tensor) -> Tensor:
        """Return the classifier's logits (n, classes) for features of images, then of texts."""
        adjusted = [self.head.image(image), *map(self.head.text, text)]
        return self.head.classifier(torch.cat(adjusted)).float()[:, self.rows]


class DecoupledCLIP(PromptedCLIP):
    """CLIP whose logits are (1 - weight) CLIP's + weight the head's where it knows all classes."""

    prompt_learner: DecoupledLearner

    def __init__(self, *args: Any, weight: float, **options: Any) -> None:
        super().__init__(*args, **options)
        if not 0 <= weight <= 1:
            raise UserError(f"TRAINER.DEPT.WEIGHT is {weight}: it is a number from 0 to 1")
        self.weight = weight

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        matched = super().logits(image, text)
        if self.prompt_learner.rows is None:
            return matched
        return torch.lerp(matched, self.prompt_learner.scores(image), self.weight)

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of features (n, embed_dim) with labels (n,), and the logits."""
        _, text = self.encode_classes()
        matched = super().logits(image, text)
        scores = self.prompt_learner.scores(image, text[label])
        losses = F.cross_entropy(matched, label), F.cross_entropy(scores, label.repeat(2))
        logits = torch.lerp(matched, scores[: len(image)], self.weight)
        return torch.lerp(*losses, self.weight), logits


@TRAINER_REGISTRY.register()
class DePT(CoOp):
    """Decoupled prompt tuning of CoOp (Zhang et al., 2024, CVPR, arXiv:2309.07439).

        L = (1 - WEIGHT) L_itm + WEIGHT L_cat

    L_itm is CoOp's loss; L_cat is the cross-entropy of a linear classifier on channel-adjusted
    features, those of the images and those of the texts of their classes. New classes have CoOp's
    logits, base classes a mixture: the paper mixes probabilities, its authors' code and this one
    logits. Adjustments of images and texts are two, as there. Chosen here: a class is a base
    class by its name, and if any class of a test set is not, none is.
    """

    node = "DEPT"
    model: DecoupledCLIP

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        learner = DecoupledLearner(backbone, classnames, **self.context_options())
        weight = self.settings.WEIGHT
        return DecoupledCLIP(backbone, learner, weight=weight, **self.text_options())

    def before_train(self) -> None:
        if self.model.prompt_learner.rows is None:
            raise UserError(
                f'MODEL.INIT_WEIGHTS "{self.cfg.MODEL.INIT_WEIGHTS}" has a classifier of other '
                "classes than those to train on: leave it out, or take weights of CoOp"
            )
        super().before_train()

    def loss(self, image: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        return self.model.loss(image, label)
