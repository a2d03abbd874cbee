"""A frozen CLIP with a prompt learner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import clip

# Under these names models of this and of upstream's code hold their frozen CLIP.
FROZEN = ("backbone.", "image_encoder.", "text_encoder.", "logit_scale")


class PromptedCLIP(nn.Module):
    """Image-text logits of CLIP for learned prompts; a subclass says where they enter.

    Its state is what was learned: the frozen CLIP, which is the same for everyone, is neither
    saved nor loaded.

    Args:
        backbone: a frozen open_clip CLIP.
        prompt_learner: what is trained.
    """

    def __init__(self, backbone: nn.Module, prompt_learner: nn.Module) -> None:
        super().__init__()
        self.prompt_learner = prompt_learner
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        """Map images (n, 3, height, width) to float32 logits (n, classes)."""
        raise NotImplementedError

    def cast(self, image: Tensor) -> Tensor:
        """Give images the dtype that the backbone computes in."""
        return image.to(clip.compute_dtype(self.backbone))

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Compare features: exp(s) <image, text>, both normalised.

        Source: Radford et al., 2021, section 2.3.

        Args:
            image: (n, embed_dim).
            text: (classes, embed_dim), or (n, classes, embed_dim) if they depend on the image.

        Returns:
            (n, classes) in float32.
        """
        image = self.backbone.logit_scale.exp() * F.normalize(image, dim=-1)
        text = F.normalize(text, dim=-1)
        if text.ndim == 2:
            return (image @ text.t()).float()
        return (text @ image[..., None]).squeeze(-1).float()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        frozen = kwargs.get("prefix", "") + "backbone."
        for name in [name for name in state if name.startswith(frozen)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        learned = {name: t for name, t in state_dict.items() if not name.startswith(FROZEN)}
        own = {f"backbone.{name}": t for name, t in self.backbone.state_dict().items()}
        return super().load_state_dict({**learned, **own}, *args, **kwargs)
