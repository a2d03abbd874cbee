"""SLIP's files against timm's own image tower and PyTorch's own transformer layers."""

import argparse

import pytest
import timm
import torch
from torch import nn

import clip

LAYERS = 3


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


@pytest.fixture(scope="module")
def make_slip():
    """Returns timm's image tower and a state dict in SLIP's layout, with random weights."""

    def make(architecture, text_width=512, image_size=224, **options):
        torch.manual_seed(0)
        tower = timm.create_model(
            f"vit_{architecture}_patch16_224",
            num_classes=0,
            depth=LAYERS,
            img_size=image_size,
            **options,
        ).eval()
        text = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(49408, text_width),
                "ln_final": nn.LayerNorm(text_width),
                "transformer": clip_layers(text_width),
            }
        )
        for parameter in [*tower.parameters(), *text.parameters()]:
            if parameter.ndim == 1:  # biases and gains, which start at 0 and 1
                nn.init.normal_(parameter, 0.5, std=0.3)
        state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
        state |= text.state_dict()
        state |= {
            "positional_embedding": torch.randn(77, text_width) * 0.1,
            "image_projection": torch.randn(tower.num_features, 512) * 0.05,
            "text_projection": torch.randn(text_width, 512) * 0.05,
            "logit_scale": torch.tensor(2.6),
            "image_mlp.layer1.weight": torch.zeros(4, tower.num_features),  # of its other loss
        }
        return tower, state

    return make


def clip_layers(width):
    """Parameters under CLIP's names, in an order of modules that does not matter here."""
    blocks = nn.ModuleList()
    for _ in range(LAYERS):
        mlp = {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        norms = {"ln_1": nn.LayerNorm(width), "ln_2": nn.LayerNorm(width)}
        attention = nn.MultiheadAttention(width, width // 64)
        blocks.append(nn.ModuleDict({"attn": attention, **norms, "mlp": nn.ModuleDict(mlp)}))
    return nn.ModuleDict({"resblocks": blocks})


def save(state, path):
    """As SLIP's training leaves it: of several processes, with its arguments."""
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    arguments = argparse.Namespace(model="SLIP_VITB16", lr=3e-3, betas=(0.9, 0.98))
    torch.save({"epoch": 25, "state_dict": wrapped, "args": arguments}, path)
    return str(path)


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "options"), [("small", {"num_heads": 12}), ("base", {}), ("large", {})]
)
def test_images_are_encoded_as_by_timm(make_slip, tmp_path, architecture, options):
    tower, state = make_slip(architecture, **options)
    model = clip.load(save(state, tmp_path / "slip.pt"))
    images = torch.randn(2, 3, 224, 224)
    expected = tower(images) @ state["image_projection"]
    torch.testing.assert_close(model.encode_image(images), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(clip.encode_image(model, images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_texts_are_encoded_as_by_pytorchs_transformer(make_slip, tmp_path):
    _, state = make_slip("small", num_heads=12, image_size=32)
    layers = []
    for i in range(LAYERS):
        layer = nn.TransformerEncoderLayer(
            512, 8, 2048, 0.0, quick_gelu, batch_first=True, norm_first=True
        ).eval()
        prefix = f"transformer.resblocks.{i}."
        own = {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}
        places = {"attn": "self_attn", "ln_1": "norm1", "ln_2": "norm2"}
        places |= {"mlp.c_fc": "linear1", "mlp.c_proj": "linear2"}
        for clips, pytorchs in places.items():
            own = {
                pytorchs + name[len(clips) :] if name.startswith(clips + ".") else name: tensor
                for name, tensor in own.items()
            }
        layer.load_state_dict(own)
        layers.append(layer)
    tokens = clip.tokenize(["a photo of a dog.", "x"])
    x = state["token_embedding.weight"][tokens] + state["positional_embedding"]
    mask = nn.Transformer.generate_square_subsequent_mask(77)
    for layer in layers:
        x = layer(x, src_mask=mask, is_causal=True)
    x = x[torch.arange(2), tokens.argmax(-1)]
    x = nn.functional.layer_norm(x, (512,), state["ln_final.weight"], state["ln_final.bias"])
    expected = x @ state["text_projection"]
    model = clip.load(save(state, tmp_path / "slip.pt"))
    torch.testing.assert_close(clip.encode_text(model, tokens), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trainer", ["QCoCoOp", "QMaPLe", "QPromptSRC"])
def test_prompts_train_in_both_towers(make_slip, build, tmp_path, result, trainer):
    _, state = make_slip("small", text_width=128, num_heads=12, image_size=32)
    file = save(state, tmp_path / "slip.pt")
    options = ["MODEL.BACKBONE.NAME", file, "OPTIM.MAX_EPOCH", 1, "DATASET.NUM_SHOTS", 1]
    build(trainer, tmp_path / "run", opts=options).train()
    assert result(tmp_path / "run")["bits"]
