"""Zero-shot CLIP: the data set's hand-written template, nothing learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from trainers.base import load_backbone
from trainers.features import FrozenFeatures, digest
from trainers.prompted import PromptedCLIP


class FixedTextCLIP(PromptedCLIP):
    """CLIP with text features that stay what they are.

    Args:
        backbone: a frozen open_clip CLIP.
        text: (classes, embed_dim) features.
    """

    def __init__(self, backbone: nn.Module, text: Tensor) -> None:
        super().__init__(backbone, nn.Module())
        self.text = text

    def encode_classes(self) -> tuple[None, Tensor]:
        return None, self.text


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(TrainerX):
    """CLIP with one hand-written prompt for each class (Radford et al., 2021, section 3.1)."""

    def build_model(self) -> None:
        cfg = self.cfg
        backbone = load_backbone(cfg, "fp32", self.device, self.cache)
        self.features = FrozenFeatures(
            backbone, cfg.MODEL.BACKBONE.NAME, cfg.TEST.FEATURE_CACHE, self.cache
        )
        template = self.dm.dataset.template
        names = [name.replace("_", " ") for name in self.dm.dataset.classnames]
        print(f"Prompt template: {template!r}")
        tokens = clip.tokenize([template.format(name) for name in names]).to(self.device)

        def encode() -> Tensor:
            with torch.no_grad():
                return clip.encode_text(backbone, tokens)

        text = self.features.get({"tokens": digest([("tokens", tokens)])}, encode)
        self.model = FixedTextCLIP(backbone, text.to(self.device))

    def scores(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return super().scores(self.features.batches(loader, self.model.encode_image))

    def train(self) -> None:  # type: ignore[override]
        """Nothing to learn: test at once, so that sweeps can treat all trainers alike."""
        self.test()

    def run_summary(self) -> dict[str, Any]:
        return {**super().run_summary(), "stored_bytes": 0}
