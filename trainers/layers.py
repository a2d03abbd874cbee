"""Learned prompts in the first layers of CLIP's towers, under the names of upstream's checkpoints.

The code of MaPLe and PromptSRC (Khattak et al., 2023) holds such prompts inside the towers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import clip
from dassl.utils import UserError
from qprompt.use.checkpoint import is_frozen
from trainers.context import check_tokens


def check_depth(key: str, depth: int, transformer: Any, least: int) -> None:
    """Raise a UserError unless a transformer has as many layers as shall have prompts.

    Args:
        key: what sets the depth.
        depth: number of layers with prompts of their own.
        transformer: an open_clip ``Transformer``.
        least: the smallest depth that is allowed.
    """
    layers = len(transformer.resblocks)
    if not least <= depth <= layers:
        raise UserError(f"{key} is {depth}: the backbone takes {least} to {layers}")


class LayerPrompts(nn.Module):
    """What replaces the prompts of a tower before its layers 1 to ``depth`` - 1, counted from 0.

    They start from a normal distribution with standard deviation 0.02, in float32 whatever the
    backbone is, as in the authors' code; the encoders cast them.

    Args:
        depth: number of layers with prompts; those of the first are not among these.
        first: (n_ctx, width), the prompts of the first layer, for their shape and device.

    Attributes:
        transformer: holds the parameters ``resblocks.<layer>.VPT_shallow``, (n_ctx, width) each.
    """

    def __init__(self, depth: int, first: Tensor) -> None:
        super().__init__()
        layers = {
            str(i): nn.ParameterDict({"VPT_shallow": _random_like(first)}) for i in range(1, depth)
        }
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleDict(layers)})

    def deep(self) -> tuple[Tensor, ...]:
        """Return the prompts of layers 1, 2, ...; quantized as they are read."""
        layers: Iterable[Any] = self.transformer["resblocks"].children()
        return tuple(layer.VPT_shallow for layer in layers)


class ImagePrompts(LayerPrompts):
    """Prompts of the image tower, those of its first layer included (Jia et al., 2022, ECCV).

    Args:
        backbone: an open_clip CLIP with a vision transformer.
        n_ctx: number of tokens.
        depth: number of layers with prompts of their own, 1 to the number of layers.

    Attributes:
        VPT: parameter (n_ctx, width), the tokens beside those of the patches.

    Raises:
        UserError: no token, or a depth that the backbone has not.
        clip.UnsupportedBackboneError: the image tower is no vision transformer.
    """

    VPT: Tensor

    def __init__(self, backbone: nn.Module, n_ctx: int, depth: int) -> None:
        tower = clip.vision_tower(backbone)
        check_depth("PROMPT_DEPTH_VISION", depth, tower.transformer, 1)
        check_tokens("N_CTX_VISION", n_ctx)
        first = _random_like(tower.class_embedding.expand(n_ctx, -1))
        super().__init__(depth, first)
        self.VPT = first

    def add_to(self, prompts: clip.Prompts) -> clip.Prompts:
        """Return prompts with these image prompts."""
        return prompts._replace(image=self.VPT, deep_image=self.deep())


class LayerwiseLearner(nn.Module):
    """A prompt learner with the names of upstream's whole model, of which it takes what it learns.

    Attributes:
        image_encoder: the image prompts; None: there are none.
    """

    image_encoder: ImagePrompts | None

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        learned = {name: t for name, t in state_dict.items() if not is_frozen(name)}
        return super().load_state_dict(learned, *args, **kwargs)


def _random_like(prompts: Tensor) -> nn.Parameter:
    values = torch.empty(prompts.shape, device=prompts.device)
    return nn.Parameter(nn.init.normal_(values, std=0.02))
