"""MaPLe and independent prompts in the shape of upstream's files: towers that take prompts."""

import copy
import os.path as osp

import torch
import torch.nn as nn
from torch.nn import functional as F

from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint

from .coop_fork import TextEncoder as PlainTextEncoder


def load_clip_to_cpu(cfg, design_details):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    try:
        model, state_dict = torch.jit.load(path, map_location="cpu").eval(), None
    except RuntimeError:
        state_dict = torch.load(path, map_location="cpu")
    return clip.build_model(state_dict or model.state_dict(), design_details)


class TextEncoder(PlainTextEncoder):
    def forward(self, prompts, tokenized_prompts, compound_prompts_deeper_text):
        x = prompts + self.positional_embedding.type(self.dtype)
        # counter: how many of the prompts are in place
        outputs = self.transformer([x.permute(1, 0, 2), compound_prompts_deeper_text, 0])
        x = self.ln_final(outputs[0].permute(1, 0, 2)).type(self.dtype)
        ends = tokenized_prompts.argmax(dim=-1)
        return x[torch.arange(len(x)), ends] @ self.text_projection


class MultiModalPromptLearner(nn.Module):
    depth_node = "MAPLE"

    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        node, dtype = cfg.TRAINER[self.depth_node], clip_model.dtype
        n_ctx = node.get("N_CTX", node.get("N_CTX_TEXT"))
        width = clip_model.ln_final.weight.shape[0]
        tokens = clip.tokenize(node.CTX_INIT)
        with torch.no_grad():
            ctx_vectors = clip_model.token_embedding(tokens).type(dtype)[0, 1 : 1 + n_ctx]
        self.ctx = nn.Parameter(ctx_vectors)
        self.add_deep_prompts(node, n_ctx, width, dtype)
        prompts = [f"{node.CTX_INIT} {name}." for name in classnames]
        self.tokenized_prompts = torch.cat([clip.tokenize(prompt) for prompt in prompts])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1, :])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx :, :])

    def add_deep_prompts(self, node, n_ctx, width, dtype):
        vision_width = 128 if width == 128 else 768
        self.proj = nn.Linear(width, vision_width).type(dtype)
        deep = [torch.empty(n_ctx, width) for _ in range(node.PROMPT_DEPTH - 1)]
        self.compound_prompts_text = nn.ParameterList([nn.Parameter(prompt) for prompt in deep])
        for prompt in self.compound_prompts_text:
            nn.init.normal_(prompt, std=0.02)
        layer = nn.Linear(width, vision_width)
        self.compound_prompt_projections = nn.ModuleList([copy.deepcopy(layer) for _ in deep])

    def construct_prompts(self):
        ctx = self.ctx.unsqueeze(0).expand(len(self.token_prefix), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)

    def forward(self):
        deep = []
        for index, layer in enumerate(self.compound_prompt_projections):
            deep.append(layer(self.compound_prompts_text[index]))
        return self.construct_prompts(), self.proj(self.ctx), self.compound_prompts_text, deep


class VLPromptLearner(MultiModalPromptLearner):
    depth_node = "IVLP"

    def add_deep_prompts(self, node, n_ctx, width, dtype):
        pass  # they are in the towers

    def forward(self):
        return self.construct_prompts()


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model, learner, text_encoder):
        super().__init__()
        self.prompt_learner = learner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = text_encoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def features(self, image):
        prompts, shared_ctx, deep_text, deep_vision = self.prompt_learner()
        text_features = self.text_encoder(prompts, self.tokenized_prompts, deep_text)
        return self.image_encoder(image.type(self.dtype), shared_ctx, deep_vision), text_features

    def forward(self, image, label=None):
        image_features, text_features = self.features(image)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        if self.prompt_learner.training:
            return F.cross_entropy(logits, label)
        return logits


class IndependentCLIP(CustomCLIP):
    def features(self, image):
        text_features = self.text_encoder(self.prompt_learner(), self.tokenized_prompts)
        return self.image_encoder(image.type(self.dtype)), text_features


@TRAINER_REGISTRY.register()
class MaPLeFork(TrainerX):
    def build_clip(self, cfg, classnames):
        design_details = {
            "trainer": "MaPLe",
            "vision_depth": 0,
            "language_depth": 0,
            "vision_ctx": 0,
            "language_ctx": 0,
            "maple_length": cfg.TRAINER.MAPLE.N_CTX,
        }
        clip_model = load_clip_to_cpu(cfg, design_details).float()
        return CustomCLIP(cfg, classnames, clip_model, MultiModalPromptLearner, TextEncoder)

    def build_model(self):
        cfg = self.cfg
        self.model = self.build_clip(cfg, self.dm.dataset.classnames)
        for name, param in self.model.named_parameters():
            # VPT: prompts in the towers
            param.requires_grad_("prompt_learner" in name or "VPT" in name)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("MultiModalPromptLearner", self.model, self.optim, self.sched)
        if torch.cuda.device_count() > 1:
            self.model = nn.DataParallel(self.model)

    def forward_backward(self, batch):
        image, label = batch["img"].to(self.device), batch["label"].to(self.device)
        loss = self.model(image, label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def load_model(self, directory, epoch=None):
        model_file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            state_dict = load_checkpoint(osp.join(directory, name, model_file))["state_dict"]
            state_dict.pop("prompt_learner.token_prefix", None)
            state_dict.pop("prompt_learner.token_suffix", None)
            self._models[name].load_state_dict(state_dict, strict=False)


@TRAINER_REGISTRY.register()
class IVLPFork(MaPLeFork):
    def build_clip(self, cfg, classnames):
        node = cfg.TRAINER.IVLP
        design_details = {
            "trainer": "IVLP",
            "vision_depth": node.PROMPT_DEPTH_VISION,
            "language_depth": node.PROMPT_DEPTH_TEXT,
            "vision_ctx": node.N_CTX_VISION,
            "language_ctx": node.N_CTX_TEXT,
        }
        clip_model = load_clip_to_cpu(cfg, design_details).float()
        return IndependentCLIP(cfg, classnames, clip_model, VLPromptLearner, PlainTextEncoder)
