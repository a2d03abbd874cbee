"""What the tensors of a packed prompt mean, by the names that its learner gave them."""

from __future__ import annotations

from itertools import count, takewhile
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.meta_net import MetaNet
from ..errors import InvalidOptionError
from ..prompt import Prompt

Tensors = dict[str, Tensor]


class Learned(NamedTuple):
    """What was learned, whatever the classes are.

    Attributes:
        words: that the context started from, or that stand in its place.
        position: of the class name; see :class:`qprompt.clip.ContextLayout`.
        context: (n_ctx, text width), or (classes, n_ctx, text width); None: ``words`` alone.
        meta_net: what shifts the context by an image's features; None: nothing does.
        deep_text, image, deep_image: as in :class:`qprompt.clip.Prompts`.
    """

    words: str
    position: str
    context: Tensor | None
    meta_net: MetaNet | None
    deep_text: tuple[Tensor, ...]
    image: Tensor | None
    deep_image: tuple[Tensor, ...]


def read_learned(prompt: Prompt, dtype: torch.dtype, device: torch.device) -> Learned:
    """Find in a prompt what CLIP's encoders take.

    Args:
        prompt: of CoOp, CoCoOp, MaPLe, VPT, IVLP or PromptSRC, or of a learner whose parameters
            have the same names.
        dtype: that the backbone computes in.
        device: of the backbone.

    Raises:
        InvalidOptionError: the prompt has other parameters.
    """
    left = {
        name.removeprefix("prompt_learner."): tensor.to(device).float()
        for name, tensor in prompt.tensors.items()
    }
    context, meta_net = left.pop("ctx", None), None
    if context is not None:
        context = context.to(dtype)
    if context is not None and {"proj.weight", "proj.value"} & left.keys():  # MaPLe
        deep_text = _pop_numbered(left, "compound_prompts_text.{}", 0)
        image: Tensor | None = _pop_projected(left, "proj", context)
        deep_image: tuple[Tensor, ...] = tuple(
            _pop_projected(left, f"compound_prompt_projections.{i}", prompts)
            for i, prompts in enumerate(deep_text)
        )
    else:
        layers = "{}.transformer.resblocks.{{}}.VPT_shallow"
        deep_text = _pop_numbered(left, layers.format("text_encoder"), 1)
        image = left.pop("image_encoder.VPT", None)
        deep_image = _pop_numbered(left, layers.format("image_encoder"), 1)
    if context is not None and "meta_net.linear1.weight" in left:  # CoCoOp
        meta_net = _pop_meta_net(left, context)
    if left or (context is None and image is None):
        raise InvalidOptionError(
            f"'{prompt.path}' was learned by {prompt.trainer or 'a trainer'} and holds "
            f"{', '.join(sorted(left)[:3]) or 'no context'}, which no prompt of CLIP has: evaluate "
            f"it with train.py --eval-only --model-dir {prompt.path}"
        )
    words = prompt.setting("CTX_INIT")
    return Learned(
        words=words if isinstance(words, str) else prompt.metadata.get("ctx_init", ""),
        position=prompt.setting("CLASS_TOKEN_POSITION") or "end",
        context=context,
        meta_net=meta_net,
        deep_text=deep_text,
        image=image,
        deep_image=deep_image,
    )


def _pop_numbered(left: Tensors, pattern: str, first: int) -> tuple[Tensor, ...]:
    names = takewhile(left.__contains__, map(pattern.format, count(first)))
    return tuple(left.pop(name) for name in names)


def _pop_projected(left: Tensors, name: str, prompts: Tensor) -> Tensor:
    """What a projection yields for text prompts, or yielded when the prompt was packed."""
    if f"{name}.value" in left:
        return left.pop(f"{name}.value")
    weight, bias = (left.pop(f"{name}.{part}").to(prompts) for part in ("weight", "bias"))
    return F.linear(prompts, weight, bias)


def _pop_meta_net(left: Tensors, context: Tensor) -> MetaNet:
    prefix = "meta_net."
    state = {name.removeprefix(prefix): left.pop(name) for name in list(left) if prefix in name}
    meta_net = MetaNet(state["linear1.weight"].shape[1], context.shape[-1]).to(context)
    meta_net.load_state_dict(state)
    return meta_net.requires_grad_(False)
