"""CLIP in the shape of OpenAI's module ``clip.model``, for trainers written for it.

This file, ``clip.clip`` and ``clip.simple_tokenizer`` are here for the unmodified trainers of other
repositories (``from clip import clip``), and nothing else in this repository uses them. The layers
are open_clip's; names, calls and the order of axes are those that such trainers rely on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from qprompt.clip.errors import ClipError
from qprompt.clip.image import run_tower, takes_prompts
from qprompt.clip.layers import (
    attend,
    check_depth,
    finish_block,
    project_qkv,
    replace_prompts,
    residual_blocks,
)
from qprompt.clip.text import text_tower
from qprompt.clip.weights import build

# design_details of MaPLe's repository and those that follow it; "trainer" is only a name, since
# depths and lengths say all
DESIGN = {"trainer", "vision_depth", "vision_ctx", "language_depth", "language_ctx", "maple_length"}


class Block(ResidualAttentionBlock):
    """A residual attention block on tokens (length, n, width).

    Args:
        block: open_clip's, whose parameters this one takes over.
        causal: whether tokens attend to earlier ones alone.

    Attributes:
        VPT_shallow: parameter (n_ctx, width) that replaces the last tokens, or in a causal block
            those after the first; None: nothing does.
    """

    VPT_shallow: nn.Parameter | None

    def __init__(self, block: ResidualAttentionBlock, causal: bool) -> None:
        nn.Module.__init__(self)
        for name, part in block.named_children():
            self.add_module(name, part)
        self.causal = causal
        self.register_parameter("VPT_shallow", None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        if self.VPT_shallow is not None:
            start = 1 if self.causal else x.shape[1] - len(self.VPT_shallow)
            x = replace_prompts(x, [self.VPT_shallow], 1, start)
        q, k, v = project_qkv(self, x).unbind(-3)
        return finish_block(self, x, attend(q, k, v, self.causal)).transpose(0, 1)


class Transformer(nn.Module):
    """Residual attention blocks on tokens (length, n, width).

    Args:
        transformer: an open_clip ``Transformer``.
        causal: as for :class:`Block`.
    """

    def __init__(self, transformer: open_clip.transformer.Transformer, causal: bool) -> None:
        super().__init__()
        self.width, self.layers = transformer.width, transformer.layers
        blocks = residual_blocks(transformer)
        self.resblocks = nn.ModuleList(Block(block, causal) for block in blocks)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Give each block from the second to the ``depth``-th prompts of its own."""
        for block in self.resblocks[1:depth]:
            block.VPT_shallow = nn.Parameter(0.02 * torch.randn(n_ctx, self.width))

    @property
    def prompts(self) -> list[Tensor]:
        """The blocks' own prompts."""
        prompts: Any = [block.VPT_shallow for block in self.resblocks]
        return [own for own in prompts if own is not None]

    def forward(self, x: Any) -> Any:
        """Run the blocks.

        Args:
            x: tokens, or as MaPLe's text encoder has it [tokens, deep prompts, counter]; the
                prompts replace the tokens after the first.

        Returns:
            What was given, with the last layer's tokens.
        """
        parts: Any = (x, ()) if isinstance(x, Tensor) else x
        tokens, deep, *rest = parts
        check_depth(deep, list(self.resblocks))
        for i, block in enumerate(self.resblocks):
            tokens = block(replace_prompts(tokens.transpose(0, 1), deep, i, 1).transpose(0, 1))
        return tokens if isinstance(x, Tensor) else [tokens, deep, *rest]


class VisionTransformer(nn.Module):
    """The image tower, which takes prompts as arguments (MaPLe) or has its own (VPT).

    Args:
        tower: an open_clip ``VisionTransformer``.
    """

    VPT: nn.Parameter | None

    def __init__(self, tower: open_clip.transformer.VisionTransformer) -> None:
        super().__init__()
        self.input_resolution, self.output_dim = tower.image_size[0], tower.output_dim
        self.conv1, self.ln_pre, self.ln_post = tower.conv1, tower.ln_pre, tower.ln_post
        self.class_embedding, self.proj = tower.class_embedding, tower.proj
        self.positional_embedding = tower.positional_embedding
        self.transformer = Transformer(tower.transformer, causal=False)
        self.register_parameter("VPT", None)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Add prompts beside the patches, for the first ``depth`` layers."""
        if depth:
            self.VPT = nn.Parameter(0.02 * torch.randn(n_ctx, self.transformer.width))
        self.transformer.add_prompts(n_ctx, depth)

    def forward(
        self, images: Tensor, prompts: Tensor | None = None, deep: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Map images (n, 3, height, width) to features (n, embed_dim).

        Args:
            images: in the tower's dtype.
            prompts: (n_ctx, width), of the first layer; None: the tower's own.
            deep: those of the layers after it; None: the tower's own.
        """
        prompts = self.VPT if prompts is None else prompts
        return run_tower(self, images, prompts, self.transformer.prompts if deep is None else deep)


class TextEncoder(nn.Module):
    """Prompts as embeddings to text features.

    Args:
        clip_model: a :class:`CLIP`.
    """

    def __init__(self, clip_model: CLIP) -> None:
        super().__init__()
        self.transformer, self.ln_final = clip_model.transformer, clip_model.ln_final
        self.positional_embedding = clip_model.positional_embedding
        self.text_projection = clip_model.text_projection
        self.dtype = clip_model.dtype

    def forward(self, prompts: Tensor, tokenized_prompts: Tensor) -> Tensor:
        """Map prompts (n, 77, width) to features (n, embed_dim), not normalised.

        Args:
            prompts: embeddings without positions.
            tokenized_prompts: (n, 77) ids, whose largest is the end of the text.
        """
        x = prompts + self.positional_embedding.to(self.dtype)
        x = self.transformer(x.transpose(0, 1)).transpose(0, 1)
        ends = tokenized_prompts.argmax(dim=-1)
        return self.ln_final(x[torch.arange(len(x)), ends]).to(self.dtype) @ self.text_projection


class CLIP(nn.Module):
    """Both towers.

    Args:
        model: an open_clip CLIP in OpenAI's architecture, whose parameters this one takes over.
    """

    def __init__(self, model: open_clip.CLIP) -> None:
        super().__init__()
        self.visual: Any = model.visual
        if takes_prompts(model):
            self.visual = VisionTransformer(model.visual)
        else:
            self.visual.input_resolution = model.visual.image_size
        tower = text_tower(model)
        self.transformer = Transformer(tower.transformer, causal=True)
        self.context_length, self.vocab_size = tower.context_length, tower.vocab_size
        self.token_embedding, self.ln_final = tower.token_embedding, tower.ln_final
        self.positional_embedding = tower.positional_embedding
        self.text_projection, self.logit_scale = tower.text_projection, model.logit_scale

    @property
    def dtype(self) -> torch.dtype:
        return self.visual.conv1.weight.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Map images (n, 3, height, width) to features (n, embed_dim), not normalised."""
        return self.visual(image.to(self.dtype))

    def encode_text(self, text: Tensor) -> Tensor:
        """Map token ids (n, 77) to features (n, embed_dim), not normalised."""
        return TextEncoder(self)(self.token_embedding(text).to(self.dtype), text)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of n images and m texts, (n, m) and (m, n)."""
        features = (self.encode_image(image), self.encode_text(text))
        images, texts = (F.normalize(f, dim=-1) for f in features)
        logits = self.logit_scale.exp() * images @ texts.t()
        return logits, logits.t()


def build_model(
    state_dict: Mapping[str, Tensor], design_details: Mapping[str, Any] | None = None
) -> CLIP:
    """Build a model from OpenAI's state dict, in half precision as OpenAI's.

    Args:
        state_dict: names to tensors.
        design_details: prompts inside the towers: ``vision_ctx`` in ``vision_depth`` layers and
            ``language_ctx`` in ``language_depth``, whose first takes the prompt learner's. MaPLe's
            are arguments of the towers, and need none.

    Raises:
        ClipError: ``design_details`` asks for something else, or for prompts in a ResNet.
    """
    design = dict(design_details or {})
    if unknown := design.keys() - DESIGN:
        raise ClipError(
            f"design_details {design}: the CLIP of this repository has no {sorted(unknown)}; put "
            "the clip folder of the trainer's repository beside it under another name"
        )
    model = CLIP(build(dict(state_dict), "fp16"))
    depth = design.get("vision_depth", 0)
    if depth and not isinstance(model.visual, VisionTransformer):
        raise ClipError(f"vision_depth {depth}: a ResNet takes no prompts, use ViT-B/16")
    if depth:
        model.visual.add_prompts(design["vision_ctx"], depth)
    if design.get("language_ctx"):
        model.transformer.add_prompts(design["language_ctx"], design["language_depth"])
    return model.eval()


def convert_weights(model: nn.Module) -> None:
    """Put the weights into half precision that OpenAI's models have in it, in place."""
    open_clip.model.convert_weights_to_lp(model)
    for module in model.modules():
        for name in ("text_projection", "proj"):
            if isinstance(projection := getattr(module, name, None), nn.Parameter):
                projection.data = projection.data.half()
