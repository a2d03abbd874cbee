"""MaPLe: coupled prompts in several layers of both towers of CLIP (Khattak et al., 2023, CVPR)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import clip
from dassl.engine import TRAINER_REGISTRY
from trainers.compact import CompactTrainer, Constant
from trainers.context import ContextLearner
from trainers.layers import check_depth
from trainers.prompted import PromptedCLIP
from trainers.upstream import load_clip_to_cpu  # noqa: F401 (for others' trainers)


class MultiModalPromptLearner(ContextLearner):
    """Text prompts for the first ``depth`` layers, and image prompts projected from them.

        P~_i = F_i(P_i),    F_i linear,    i = 0..depth-1

    Source: Khattak et al., 2023, sections 3.2.1 to 3.2.3.

    Args:
        backbone: an open_clip CLIP with a vision transformer.
        classnames, n_ctx, ctx_init: as for :class:`ContextLearner`.
        depth: number of layers with prompts of their own, 1 to the number of layers.

    Attributes:
        ctx: parameter (n_ctx, text width), the prompts P_0 of the first layer.
        proj: F_0, from text to vision width.
        compound_prompts_text: P_1, P_2, ..., each (n_ctx, text width).
        compound_prompt_projections: F_1, F_2, ...; all start equal.

    Raises:
        UserError: a depth that the backbone has not, and as :class:`ContextLearner`.
        clip.UnsupportedBackboneError: the image tower is no vision transformer.
    """

    proj: nn.Module

    def __init__(
        self,
        backbone: nn.Module,
        classnames: list[str],
        n_ctx: int = 2,
        ctx_init: str = "a photo of a",
        depth: int = 9,
    ) -> None:
        vision = clip.vision_tower(backbone)
        for tower in vision, clip.text_tower(backbone):
            check_depth("PROMPT_DEPTH", depth, tower.transformer, 1)
        super().__init__(backbone, classnames, n_ctx, ctx_init)
        widths = self.ctx.shape[-1], vision.class_embedding.shape[-1]
        self.proj = nn.Linear(*widths).to(self.ctx)
        # float32 in half precision, too, as in the authors' code: cast where they are used
        deeper = [torch.empty(self.ctx.shape, device=self.ctx.device) for _ in range(depth - 1)]
        self.compound_prompts_text = nn.ParameterList(nn.init.normal_(p, std=0.02) for p in deeper)
        projection = nn.Linear(*widths).to(self.ctx.device)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(projection) for _ in deeper)

    def forward(self) -> clip.Prompts:
        """Return the prompts of both towers, each image prompt that of its text prompt."""
        ctx = self.ctx  # quantized as it is read
        prompts = self.build_prompts(ctx[None])  # the prefix is one: (1, n_ctx, text width)
        prompts = prompts._replace(image=self.proj(ctx))  # (n_ctx, vision width)
        if not self.compound_prompts_text:
            return prompts
        # in one tensor, (depth - 1, n_ctx, width), for one product instead of depth - 1
        deep = torch.stack(tuple(self.compound_prompts_text))
        return prompts._replace(deep_image=self._project(deep).unbind(), deep_text=deep.unbind())

    def _project(self, deep: Tensor) -> Tensor:
        """Return F_i(P_i), i = 1, 2, ..."""
        projections: Sequence[Any] = list(self.compound_prompt_projections)
        if self.is_compact:
            return torch.stack([constant(None) for constant in projections])
        weights = torch.stack([projection.weight for projection in projections])
        biases = torch.stack([projection.bias for projection in projections])
        # in this order gradients lie in memory as their weights do, and are not copied
        return torch.baddbmm(biases[..., None], weights, deep.mT).mT

    @property
    def is_compact(self) -> bool:
        """Whether the projections' results stand in their place."""
        return isinstance(self.proj, Constant)

    def compact(self) -> MultiModalPromptLearner:
        """Return a copy that is enough for inference: the projections' results in their place."""
        prompts, learner = self(), copy.deepcopy(self)
        learner.proj = Constant(prompts.image)
        learner.compound_prompt_projections = nn.ModuleList(map(Constant, prompts.deep_image))
        return learner


class MultiModalCLIP(PromptedCLIP):
    """CLIP with MaPLe's prompts in both towers."""

    frozen_image_tower = False


@TRAINER_REGISTRY.register()
class MaPLe(CompactTrainer):
    """Multi-modal prompt learning (Khattak et al., 2023)."""

    node = "MAPLE"
    model_name = "MultiModalPromptLearner"

    def build_prompted_clip(self, backbone: nn.Module, classnames: list[str]) -> PromptedCLIP:
        learner = MultiModalPromptLearner(
            backbone,
            classnames,
            n_ctx=self.settings.N_CTX,
            ctx_init=self.settings.CTX_INIT,
            depth=self.settings.PROMPT_DEPTH,
        )
        return MultiModalCLIP(backbone, learner, **self.text_options())

    def checkpointed_module(self) -> nn.Module:
        return self.model
