"""CoCoOp's meta-network, from an image to the shift of the context."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

BOTTLENECK = 16  # section 3.2: the hidden layer is 16 times narrower than the image features


class MetaNet(nn.Sequential):
    """h = linear, ReLU, linear (Zhou et al., 2022, CVPR, section 3.2).

    Args:
        features: number of image features.
        width: of the text tower.
    """

    def __init__(self, features: int, width: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            linear1=nn.Linear(features, features // BOTTLENECK),
            relu=nn.ReLU(inplace=True),
            linear2=nn.Linear(features // BOTTLENECK, width),
        )
        super().__init__(layers)
