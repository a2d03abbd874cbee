"""A frozen CLIP whose class prompts come from a prompt learner."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

import clip


class PromptedCLIP(nn.Module):
    """Image-text logits of CLIP for learned class prompts.

    logits = exp(s) * <image, text>, both normalised (Radford et al., 2021, section 2.3).

    Args:
        backbone: a frozen open_clip CLIP.
        prompt_learner: its forward returns prompts (classes, length, width); its ``eot`` holds the
            position of the end-of-text token in each.
    """

    def __init__(self, backbone: nn.Module, prompt_learner: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt_learner = prompt_learner

    def forward(self, image: Tensor) -> Tensor:
        """Map images (n, 3, height, width) to float32 logits (n, classes)."""
        features = clip.encode_prompts(
            self.backbone, self.prompt_learner(), self.prompt_learner.eot
        )
        text = F.normalize(features, dim=-1)
        image = self.backbone.encode_image(image.to(clip.compute_dtype(self.backbone)))
        image = F.normalize(image, dim=-1)
        return (self.backbone.logit_scale.exp() * image @ text.t()).float()
