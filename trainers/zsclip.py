"""Zero-shot CLIP: the data set's hand-written template, nothing learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from dassl.engine import TRAINER_REGISTRY, TrainerX
from trainers.base import load_backbone
from trainers.features import FrozenFeatures
from trainers.prompted import PromptedCLIP
from trainers.templates import encode_templates


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
        print(f"Prompt template: {template!r}")
        (text,) = encode_templates(self.features, self.dm.dataset.classnames, [template])
        self.model = FixedTextCLIP(backbone, text)

    def scores(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return super().scores(self.features.batches(loader, self.model.encode_image))

    def train(self) -> None:  # type: ignore[override]
        """Nothing to learn: test at once, so that sweeps can treat all trainers alike."""
        self.test()

    def run_summary(self) -> dict[str, Any]:
        return {**super().run_summary(), "stored_bytes": 0}
