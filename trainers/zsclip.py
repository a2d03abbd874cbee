"""Zero-shot CLIP: the data set's hand-written template, nothing learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from trainers.base import load_backbone


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(TrainerX):
    """CLIP with one hand-written prompt for each class (Radford et al., 2021, section 3.1)."""

    def build_model(self) -> None:
        self.model = load_backbone(self.cfg, "fp32", self.device)
        template = self.dm.dataset.template
        names = [name.replace("_", " ") for name in self.dm.dataset.classnames]
        print(f"Prompt template: {template!r}")
        with torch.no_grad():
            tokens = clip.tokenize([template.format(name) for name in names]).to(self.device)
            self.text_features = F.normalize(clip.encode_text(self.model, tokens), dim=-1)

    def train(self) -> None:
        """Nothing to learn: test at once, so that sweeps can treat all trainers alike."""
        self.test()

    def model_inference(self, image: Tensor) -> Tensor:
        """Map images (n, 3, height, width) to logits (n, classes)."""
        image = F.normalize(self.model.encode_image(image), dim=-1)
        return self.model.logit_scale.exp() * image @ self.text_features.t()

    def run_summary(self) -> dict[str, Any]:
        return {**super().run_summary(), "stored_bytes": 0}
