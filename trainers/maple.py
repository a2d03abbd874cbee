"""MaPLe: coupled prompts in several layers of both towers of CLIP (Khattak et al., 2023, CVPR)."""

from __future__ import annotations

import copy

import torch
from torch import nn

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
        ctx, deep_text = self.ctx, tuple(self.compound_prompts_text)  # quantized as they are read
        projections = zip(self.compound_prompt_projections, deep_text, strict=True)
        return self.build_prompts(ctx[None])._replace(  # the prefix is one: (1, n_ctx, text width)
            deep_text=deep_text,
            image=self.proj(ctx),  # (n_ctx, vision width)
            deep_image=tuple(project(prompt) for project, prompt in projections),
        )

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
