"""Zero-shot CLIP: hand-written templates, nothing learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dassl.engine import TRAINER_REGISTRY, TrainerX
from trainers.base import load_backbone, resolve_precision
from trainers.features import FrozenFeatures
from trainers.prompted import FixedTextCLIP
from trainers.templates import IMAGENET_TEMPLATES_SELECT, encode_templates, template_features
from trainers.upstream import CUSTOM_TEMPLATES, load_clip_to_cpu  # noqa: F401 (for others' trainers)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(TrainerX):
    """CLIP with one hand-written prompt for each class (Radford et al., 2021, section 3.1)."""

    def build_model(self) -> None:
        cfg = self.cfg
        precision = resolve_precision(cfg.TRAINER.ZEROSHOTCLIP.PREC, self.device)
        backbone = load_backbone(cfg, precision, self.device, self.cache)
        self.features = FrozenFeatures(
            backbone, cfg.MODEL.BACKBONE.NAME, cfg.TEST.FEATURE_CACHE, self.cache
        )
        self.model = FixedTextCLIP(backbone, self.encode_classes())

    def encode_classes(self) -> Tensor:
        """Return text features (classes, embed_dim), the mean of those of several templates."""
        dataset = self.dm.dataset
        print(*(f"Prompt template: {template!r}" for template in dataset.templates), sep="\n")
        if len(dataset.templates) > 1:
            return template_features(self.features, dataset.classnames, dataset.templates)
        return encode_templates(self.features, dataset.classnames, dataset.templates)[0]

    def scores(self, loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return super().scores(self.features.batches(loader, self.model.encode_image))

    def train(self) -> None:  # type: ignore[override]
        """Nothing to learn: test at once, so that sweeps can treat all trainers alike."""
        self.test()

    def run_summary(self) -> dict[str, Any]:
        return {**super().run_summary(), "stored_bytes": 0}


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """CLIP with the mean of several prompts for each class, of which CoOp selected seven."""

    def encode_classes(self) -> Tensor:
        """Average the selected templates and the data set's, unless it is ImageNet's own one."""
        dataset, given = self.dm.dataset, self.cfg.DATASET
        own = () if given.NAME == "ImageNet" and given.TEMPLATE is None else dataset.templates
        templates = [*IMAGENET_TEMPLATES_SELECT, *own]
        print(f"Prompt templates: {templates}")
        return template_features(self.features, dataset.classnames, templates)
