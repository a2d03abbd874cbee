"""A frozen two-tower model with the parts of CLIP that prompt learners touch."""

import torch
from torch import nn

TEXT, VISION, EMBED, LAYERS = 16, 12, 8, 3
SOS, NAME, EOT = 0, 1, 39  # a prompt is SOS, context, one token for the class name, EOT


class Block(nn.Module):
    """Mixes tokens and widths, as a transformer layer does.

    With `n_ctx` it has prompts of its own, which take the place of the last tokens.
    """

    def __init__(self, width, n_ctx=0):
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, width)
        self.n_ctx = n_ctx
        if n_ctx:
            self.VPT_shallow = nn.Parameter(0.02 * torch.randn(n_ctx, width))

    def forward(self, x):
        if self.n_ctx:
            x = torch.cat([x[:, : -self.n_ctx], self.VPT_shallow.expand(len(x), -1, -1)], dim=1)
        return x + self.mlp(self.ln(x + x.mean(dim=1, keepdim=True)))


class VisionTransformer(nn.Module):
    """Images (n, 3, 4, 4) to features; the first prompts stand after the patches."""

    def __init__(self, n_ctx=0, depth=0):
        super().__init__()
        self.conv1 = nn.Linear(12, VISION)
        self.class_embedding = nn.Parameter(torch.randn(VISION))
        self.blocks = nn.ModuleList(
            Block(VISION, n_ctx if 0 < layer < depth else 0) for layer in range(LAYERS)
        )
        self.proj = nn.Parameter(torch.randn(VISION, EMBED) / VISION**0.5)
        if n_ctx:
            self.VPT = nn.Parameter(0.02 * torch.randn(n_ctx, VISION))

    def forward(self, image, shared=None, deep=()):
        """shared: (n_ctx, VISION) prompts of the first layer, deep: those of the next ones."""
        x = self.conv1(
            image.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2, 3).transpose(1, 2).flatten(2)
        )
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        if shared is None and hasattr(self, "VPT"):
            shared = self.VPT
        if shared is not None:
            x = torch.cat([x, shared.expand(len(x), -1, -1)], dim=1)
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                prompts = deep[layer - 1]
                x = torch.cat([x[:, : -len(prompts)], prompts.expand(len(x), -1, -1)], dim=1)
            x = block(x)
        return x[:, 0] @ self.proj


class CLIP(nn.Module):
    """Both towers; positional embedding for prompts of `n_ctx` context tokens."""

    def __init__(self, n_ctx, vision_ctx=0, depth=0):
        super().__init__()
        self.visual = VisionTransformer(vision_ctx, depth)
        self.token_embedding = nn.Embedding(EOT + 1, TEXT)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(n_ctx + 3, TEXT))
        self.transformer = nn.ModuleList(Block(TEXT) for _ in range(LAYERS))
        self.ln_final = nn.LayerNorm(TEXT)
        self.text_projection = nn.Parameter(torch.randn(TEXT, EMBED) / TEXT**0.5)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    @property
    def dtype(self):
        return self.visual.conv1.weight.dtype


def load_clip(prec, **design):
    """Return the same frozen weights every time, in half precision for "fp16"."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(**design)
    return model.half() if prec == "fp16" else model.float()


class TextEncoder(nn.Module):
    """Prompts (n, tokens, TEXT) to features at the last token."""

    def __init__(self, clip_model):
        super().__init__()
        for name in ("positional_embedding", "transformer", "ln_final", "text_projection"):
            setattr(self, name, getattr(clip_model, name))

    def forward(self, prompts, deep=()):
        """deep: for each layer after the first, the prompts that replace positions 1 to n_ctx."""
        x = prompts + self.positional_embedding
        for layer, block in enumerate(self.transformer):
            if 0 < layer <= len(deep):
                n_ctx = len(deep[layer - 1])
                prompt = deep[layer - 1].expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], prompt, x[:, 1 + n_ctx :]], dim=1)
            x = block(x)
        return self.ln_final(x)[:, -1] @ self.text_projection
