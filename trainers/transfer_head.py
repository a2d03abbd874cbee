"""The classifier that DePT trains beside a prompt (Zhang et al., 2024, CVPR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAdjustment(nn.Module):
    """s = scale * f + shift, for each channel of features; at first they stay what they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * features.float() + self.shift


class TransferHead(nn.Module):
    """A linear classifier of channel-adjusted features; float32, whatever the backbone is."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.image, self.text = ChannelAdjustment(width), ChannelAdjustment(width)
        self.classifier = nn.Linear(width, classes)
