"""A classifier from the parts that a configuration names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dassl.config import CfgNode
from dassl.modeling.build import build_backbone, build_head


class SimpleNet(nn.Module):
    """A backbone, a head where ``model_cfg`` names one, and a linear classifier.

    Args:
        cfg: the configuration.
        model_cfg: the node MODEL, or one like it.
        num_classes: 0: no classifier, so that features are returned.
        options: for the backbone and the head.
    """

    def __init__(self, cfg: CfgNode, model_cfg: CfgNode, num_classes: int, **options: Any) -> None:
        super().__init__()
        name, pretrained = model_cfg.BACKBONE.NAME, model_cfg.BACKBONE.PRETRAINED
        self.backbone = build_backbone(name, cfg.VERBOSE, pretrained=pretrained, **options)
        self.fdim = self.backbone.out_features
        self.head = None
        head = model_cfg.HEAD
        if head.NAME and head.HIDDEN_LAYERS:
            self.head = build_head(
                head.NAME,
                cfg.VERBOSE,
                in_features=self.fdim,
                hidden_layers=head.HIDDEN_LAYERS,
                activation=head.ACTIVATION,
                bn=head.BN,
                dropout=head.DROPOUT,
                **options,
            )
            self.fdim = self.head.out_features
        self.classifier = nn.Linear(self.fdim, num_classes) if num_classes > 0 else None

    def forward(self, x: torch.Tensor, return_feature: bool = False) -> Any:
        """Return scores, with the features if asked for; without a classifier, the features."""
        features = self.backbone(x)
        if self.head is not None:
            features = self.head(features)
        if self.classifier is None:
            return features
        scores = self.classifier(features)
        return (scores, features) if return_feature else scores
