"""Class logits of image and text features."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def compare_features(model: nn.Module, image: Tensor, text: Tensor) -> Tensor:
    """Return exp(s) <image, text>, both normalised (Radford et al., 2021, section 2.3).

    Args:
        model: an open_clip CLIP, for its logit scale s.
        image: (n, embed_dim).
        text: (classes, embed_dim), or (n, classes, embed_dim) if they depend on the image.

    Returns:
        (n, classes) in float32.
    """
    image = model.logit_scale.exp() * F.normalize(image, dim=-1)
    text = F.normalize(text, dim=-1)
    if text.ndim == 2:
        return (image @ text.t()).float()
    return (text @ image[..., None]).squeeze(-1).float()
