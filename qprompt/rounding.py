"""Half-precision rounding of trainable weights that are not quantized, such as biases."""

from __future__ import annotations

from torch import Tensor, nn

from .quantizer import STORED


class Rounding(nn.Module):
    """Rounds weights to the precision of files; the gradient passes straight through.

    So that what trains is what ships also for the weights beside the codebooks.
    """

    def forward(self, weight: Tensor) -> Tensor:
        rounded = weight.detach().to(STORED).to(weight.dtype)
        return rounded + (weight - weight.detach())

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Lets `module.name = tensor` set the latent weights."""
        return weight
