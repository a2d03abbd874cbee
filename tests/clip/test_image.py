"""Image encoding with prompts against open_clip's own forward pass, and deep prompts in text."""

import copy

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

import clip

LAYERS = 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=LAYERS, width=64, head_width=32, patch_size=16, image_size=32)
    return CLIP(48, vision, CLIPTextCfg(width=64, heads=2, layers=LAYERS)).eval().double()


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def prompts(number, n_ctx=2):
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(n_ctx, 64, generator=generator).double() for _ in range(number)]


def among_patches(image, deep=()):
    """Prompts that only the image tower reads."""
    none = torch.empty(0, 1, 64).double()
    return clip.Prompts(none, none, (), image=image, deep_image=tuple(deep))


def states(transformer, encode):
    """The tokens that enter each layer while ``encode`` runs."""
    seen = []
    hooks = [
        layer.ln_1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        for layer in transformer.resblocks
    ]
    encode()
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def test_without_prompts_it_is_the_models_own(model, images):
    torch.testing.assert_close(clip.encode_image(model, images), model.encode_image(images))
    none = torch.empty(0, 64).double()  # no tokens, and below no image prompts at all
    text = among_patches(None)
    torch.testing.assert_close(clip.encode_image(model, images, text), model.encode_image(images))
    torch.testing.assert_close(
        clip.encode_image(model, images, among_patches(none)), model.encode_image(images)
    )


@torch.no_grad()
@pytest.mark.parametrize("depth", range(1, LAYERS + 1))
def test_the_last_tokens_of_the_first_layers_are_the_prompts(model, images, depth):
    first, *deep = prompts(depth)
    given = among_patches(first, deep)
    seen = states(model.visual.transformer, lambda: clip.encode_image(model, images, given))
    assert [x.shape for x in seen] == [(5, 1 + 4 + 2, 64)] * LAYERS
    assert torch.equal(seen[0][:, -2:], model.visual.ln_pre(first).expand(5, -1, -1))
    for prompt, x in zip(deep, seen[1:], strict=False):
        assert torch.equal(x[:, -2:], prompt.expand(5, -1, -1))
    for x in seen[depth:]:
        assert x[:, -2:].std(dim=0).min() > 0, "a prompt beyond the last depth"


def test_gradients_reach_every_prompt_and_no_weight(model, images):
    model = copy.deepcopy(model).requires_grad_(False)
    given = [prompt.requires_grad_() for prompt in prompts(LAYERS)]
    clip.encode_image(model, images, among_patches(given[0], given[1:])).square().sum().backward()
    text = clip.embed_tokens(model, clip.tokenize("a photo of a dog."))
    deep = [prompt.requires_grad_() for prompt in prompts(LAYERS - 1)]
    texts = clip.Prompts(text[:, :5], text[:, 5:], (3,), tuple(deep))
    clip.encode_prompts(model, texts).square().sum().backward()
    assert all(prompt.grad.abs().sum(dim=-1).gt(0).all() for prompt in given + deep)
    assert all(weight.grad is None for weight in model.parameters())


def test_patch_embedding_keeps_no_graph(model, images):
    model = copy.deepcopy(model).requires_grad_(False)
    outputs = []
    model.visual.conv1.register_forward_hook(lambda *args: outputs.append(args[-1]))
    prompt = prompts(1)[0].requires_grad_()
    assert clip.encode_image(model, images, among_patches(prompt)).requires_grad
    assert not outputs[0].requires_grad


def test_towers_that_take_no_prompts_are_named(images):
    resnet = CLIP(
        48,
        CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, head_width=8, image_size=32),
        CLIPTextCfg(width=64, heads=2, layers=1),
    )
    resnet.visual.eval()
    assert clip.encode_image(resnet, images.float()).shape == (5, 48)
    with pytest.raises(clip.UnsupportedBackboneError, match="ModifiedResNet.*such as ViT-B/16"):
        clip.encode_image(resnet, images.float(), among_patches(torch.zeros(2, 64)))


def test_more_deep_prompts_than_layers(model, images):
    first, *deep = prompts(LAYERS + 1)
    with pytest.raises(ValueError, match="3 deep prompts for 3 layers.*at most 2"):
        clip.encode_image(model, images, among_patches(first, deep))
