"""The prompt learners and the prompted models."""

import copy
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from fork.backbone import EMBED, EOT, LAYERS, NAME, SOS, TEXT, VISION, TextEncoder


class PromptLearner(nn.Module):
    """CoOp: a context between the start token and the class name."""

    def __init__(self, classnames, clip_model, n_ctx):
        super().__init__()
        self.ctx = nn.Parameter((0.02 * torch.randn(n_ctx, TEXT)).to(clip_model.dtype))
        names = torch.arange(len(classnames)) + NAME
        tokens = torch.stack([torch.full_like(names, SOS), names, torch.full_like(names, EOT)], 1)
        with torch.no_grad():
            embedding = clip_model.token_embedding(tokens)
        self.register_buffer("token_prefix", embedding[:, :1])
        self.register_buffer("token_suffix", embedding[:, 1:])

    def construct(self, ctx):
        ctx = ctx.expand(len(self.token_prefix), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)

    def forward(self):
        return self.construct(self.ctx)


class ConditionalPromptLearner(PromptLearner):
    """CoCoOp: a context that a small network shifts for each image."""

    def __init__(self, classnames, clip_model, n_ctx):
        super().__init__(classnames, clip_model, n_ctx)
        layers = [
            ("linear1", nn.Linear(EMBED, EMBED // 2)),
            ("relu", nn.ReLU(inplace=True)),
            ("linear2", nn.Linear(EMBED // 2, TEXT)),
        ]
        self.meta_net = nn.Sequential(OrderedDict(layers)).to(clip_model.dtype)

    def forward(self, features):
        return [self.construct(self.ctx + bias) for bias in self.meta_net(features)]


class MultiModalPromptLearner(PromptLearner):
    """MaPLe: prompts for the layers of the text tower, projected into the image tower."""

    def __init__(self, classnames, clip_model, n_ctx):
        super().__init__(classnames, clip_model, n_ctx)
        dtype = clip_model.dtype
        self.proj = nn.Linear(TEXT, VISION).to(dtype)
        self.compound_prompts_text = nn.ParameterList(
            [nn.Parameter(0.02 * torch.randn(n_ctx, TEXT, dtype=dtype)) for _ in range(LAYERS - 1)]
        )
        self.compound_prompt_projections = nn.ModuleList(
            [copy.deepcopy(self.proj) for _ in range(LAYERS - 1)]
        )

    def forward(self):
        deep = []
        for index, layer in enumerate(self.compound_prompt_projections):
            deep.append(layer(self.compound_prompts_text[index]))
        return super().forward(), self.proj(self.ctx), self.compound_prompts_text, deep


class VLPromptLearner(PromptLearner):
    """PromptSRC: a text context beside a frozen copy of the image tower."""

    def __init__(self, classnames, clip_model, n_ctx, frozen_clip):
        super().__init__(classnames, clip_model, n_ctx)
        self.ZS_image_encoder = frozen_clip.visual


class CustomCLIP(nn.Module):
    """CoOp's model."""

    def __init__(self, prompt_learner, clip_model):
        super().__init__()
        self.prompt_learner = prompt_learner
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def logits(self, image, text):
        image = image / image.norm(dim=-1, keepdim=True)
        text = text / text.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image @ text.transpose(-1, -2)

    def forward(self, image):
        image = self.image_encoder(image.type(self.dtype))
        return self.logits(image, self.text_encoder(self.prompt_learner()))


class ConditionalCLIP(CustomCLIP):
    """CoCoOp's model: a loss in training, logits in evaluation."""

    def forward(self, image, label=None):
        features = self.image_encoder(image.type(self.dtype))
        pairs = zip(features, self.prompt_learner(features), strict=True)
        logits = torch.stack([self.logits(row, self.text_encoder(p)) for row, p in pairs])
        return F.cross_entropy(logits, label) if self.prompt_learner.training else logits


class MultiModalCLIP(CustomCLIP):
    """MaPLe's model: a loss in training, logits in evaluation."""

    def forward(self, image, label=None):
        prompts, shared, deep_text, deep_vision = self.prompt_learner()
        text = self.text_encoder(prompts, deep_text)
        logits = self.logits(self.image_encoder(image.type(self.dtype), shared, deep_vision), text)
        return F.cross_entropy(logits, label) if self.prompt_learner.training else logits


class RegularizedCLIP(CustomCLIP):
    """PromptSRC's model: in training also what the frozen image tower says."""

    def forward(self, image, label=None):
        logits = super().forward(image)
        if not self.prompt_learner.training:
            return logits
        image = image.type(self.dtype)
        with torch.no_grad():
            frozen = self.prompt_learner.ZS_image_encoder(image)
        return F.cross_entropy(logits, label), self.image_encoder(image), frozen
