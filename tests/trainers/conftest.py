"""CLIP of ViT-B/32's size with random weights, and a deliberately plain CLIP to compare with."""

import math

import pytest
import torch
from safetensors.torch import load_file

import clip


class PlainCLIP:
    """CLIP written out from a state dict in OpenAI's layout: all 77 positions, nothing shared.

    Radford et al., 2021; deep prompts as in Khattak et al., 2023, section 3.2: the prompts of a
    layer take the place of what the layer before made of its own.
    """

    def __init__(self, state):
        self.state = state

    def text(self, embedded, eot, deep=(), normalise=True):
        """Embeddings (n, 77, width) to features; ``deep`` at positions 1, 2, ..."""
        mask = torch.full((77, 77), -math.inf).triu(1)
        x = embedded + self.state["positional_embedding"]
        x = self._layers(x, "", deep, 1, mask)
        x = self._norm(x, "ln_final")[torch.arange(len(x)), eot] @ self.state["text_projection"]
        return x / x.norm(dim=-1, keepdim=True) if normalise else x

    def image(self, images, prompts=(), deep=(), normalise=True):
        """Images to features; prompts follow class token and patches."""
        weight = self.state["visual.conv1.weight"]
        size, n = weight.shape[-1], len(images)
        patches = images.unfold(2, size, size).unfold(3, size, size)  # n, 3, rows, columns, ...
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(n, -1, weight[0].numel())
        x = patches @ weight.reshape(len(weight), -1).T
        x = torch.cat([self.state["visual.class_embedding"].expand(n, 1, -1), x], dim=1)
        x = x + self.state["visual.positional_embedding"]
        start = x.shape[1]
        if len(prompts):
            x = torch.cat([x, prompts.expand(n, -1, -1)], dim=1)
        x = self._layers(self._norm(x, "visual.ln_pre"), "visual.", deep, start, 0)
        x = self._norm(x, "visual.ln_post")[:, 0] @ self.state["visual.proj"]
        return x / x.norm(dim=-1, keepdim=True) if normalise else x

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def _linear(self, x, name, kind=".weight", bias=".bias"):
        return x @ self.state[name + kind].T + self.state[name + bias]

    def _layers(self, x, tower, deep, start, mask):
        names = [name for name in self.state if name.startswith(f"{tower}transformer.resblocks.")]
        number = 1 + max(int(name.removeprefix(tower).split(".")[2]) for name in names)
        for i in range(number):
            if 1 <= i <= len(deep):
                prompts = deep[i - 1]
                tokens = list(x.unbind(1))
                for j, prompt in enumerate(prompts):
                    tokens[start + j] = prompt.expand(len(x), -1)
                x = torch.stack(tokens, dim=1)
            name = f"{tower}transformer.resblocks.{i}."
            x = x + self._attention(self._norm(x, name + "ln_1"), name + "attn.", mask)
            hidden = self._linear(self._norm(x, name + "ln_2"), name + "mlp.c_fc")
            x = x + self._linear(hidden * torch.sigmoid(1.702 * hidden), name + "mlp.c_proj")
        return x

    def _attention(self, x, name, mask):
        n, length, width = x.shape
        qkv = self._linear(x, name, "in_proj_weight", "in_proj_bias")
        q, k, v = (t.reshape(n, length, -1, 64).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(64) + mask).softmax(dim=-1)
        mixed = (scores @ v).transpose(1, 2).reshape(n, length, width)
        return self._linear(mixed, name + "out_proj")


@pytest.fixture(scope="session")
def vit_b32(vit_b32_file):
    """A backbone loaded from random weights in OpenAI's layout, and the plain one of the same."""
    state = load_file(vit_b32_file)
    plain = PlainCLIP({name: tensor.float() for name, tensor in state.items()})
    return clip.load(vit_b32_file).requires_grad_(False), plain


@pytest.fixture(scope="session")
def tiny_pair():
    """The tiny backbone, and the plain one of the same weights."""
    backbone = clip.load("tiny").requires_grad_(False)
    return backbone, PlainCLIP(backbone.state_dict())


@pytest.fixture(scope="session")
def assert_close():
    """Agreement of tensors to 1e-4 of the largest value."""

    def check(ours, expected):
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()

    return check
