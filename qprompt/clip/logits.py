"""Class logits of image and text features."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor


def compare_features(model: CLIP, image: Tensor, text: Tensor) -> Tensor:
    """Return exp(s) <image, text>, both normalised (Radford et al., 2021, section 2.3).

    Args:
        model: an open_clip CLIP, for its logit scale s.
        image: (n, embed_dim).
        text: (classes, embed_dim), or (n, classes, embed_dim) if they depend on the image.

    Returns:
        (n, classes) in float32.
    """
    image = model.logit_scale.exp() * _Normalized.apply(image)
    text = _Normalized.apply(text)
    if text.ndim == 2:
        return (image @ text.t()).float()
    return (text @ image[..., None]).squeeze(-1).float()


class _Normalized(torch.autograd.Function):
    """F.normalize(x, dim=-1), with a gradient of 4 kernels instead of 14.

    y = x / |x|,    dL/dx = (dL/dy - y <y, dL/dy>) / |x|
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
        y = x / norm
        ctx.save_for_backward(y, norm)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, norm = ctx.saved_tensors
        along = (y * grad).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1) / norm
