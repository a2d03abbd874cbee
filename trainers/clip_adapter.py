"""CLIP-Adapter: a bottleneck on the image features (Gao et al., 2023, IJCV)."""

from __future__ import annotations

from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP

REDUCTION = 4  # the hidden layer is as many times narrower than the features


class Adapter(nn.Module):
    """A(f) = ReLU(W_2 ReLU(W_1 f)), from and to features of ``width`` numbers (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(width, width // REDUCTION, bias=False),
            nn.ReLU(),
            nn.Linear(width // REDUCTION, width, bias=False),
            nn.ReLU(),
        )

    def forward(self, features: Tensor) -> Tensor:
        adapted: Tensor = self.fc(features)
        return adapted


class AdaptedCLIP(FixedTextCLIP):
    """CLIP that compares ratio A(f) + (1 - ratio) f in place of the image feature f."""

    def __init__(self, backbone: nn.Module, text: Tensor, adapter: Adapter, ratio: float) -> None:
        super().__init__(backbone, text, adapter)
        self.ratio = ratio

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        adapted = self.prompt_learner(image)
        return super().logits(self.ratio * adapted + (1 - self.ratio) * image, text)


@TRAINER_REGISTRY.register()
class CLIPAdapter(PromptTrainer):
    """A feature adapter for the image tower (Gao et al., 2023), with the data set's template."""

    node = "CLIPADAPTER"
    model_name = "clip_adapter"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        text = self.zero_shot_text
        adapter = Adapter(clip.embed_dim(backbone)).to(text)
        return AdaptedCLIP(backbone, text, adapter, self.settings.RATIO)
