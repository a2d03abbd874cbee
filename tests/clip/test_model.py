"""OpenAI's shape of a model, for trainers of other repositories, against open_clip's own."""

from __future__ import annotations

import pytest
import torch

import clip as package
from clip import Prompts, clip, tiny
from clip.model import TextEncoder, convert_weights
from clip.simple_tokenizer import SimpleTokenizer

TEXTS = ["a photo of a cat.", "X X X X zero."]


@pytest.fixture(scope="module")
def reference():
    return package.load("tiny")


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(**design):
    """A model as trainers build it."""
    state = torch.load(clip._download(clip._MODELS["tiny"]), weights_only=True)
    return clip.build_model(state, design or None).float()


@torch.no_grad()
def test_towers(reference, images):
    model, tokens = build(), clip.tokenize(TEXTS)
    assert model.visual.input_resolution == 32 and model.dtype == torch.float32
    text = reference.encode_text(tokens)
    torch.testing.assert_close(model.encode_text(tokens), text, atol=1e-4, rtol=1e-4)
    embedded = model.token_embedding(tokens)
    torch.testing.assert_close(TextEncoder(model)(embedded, tokens), text, atol=1e-4, rtol=1e-4)
    image = reference.encode_image(images)
    torch.testing.assert_close(model.encode_image(images), image, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.visual(images), image, atol=1e-4, rtol=1e-4)
    per_image, per_text = model(images, tokens)
    features, words, scale = reference(images, tokens)
    torch.testing.assert_close(per_image, scale * features @ words.t(), atol=1e-3, rtol=1e-3)
    assert torch.equal(per_image, per_text.t())


def test_names_of_tensors_are_those_of_openai():
    state = tiny.state_dict()
    model = build()
    assert model.state_dict().keys() == state.keys()
    design = {"vision_depth": 3, "vision_ctx": 2, "language_depth": 3, "language_ctx": 4}
    added = {name: p.shape for name, p in build(**design).named_parameters() if name not in state}
    blocks = {f"transformer.resblocks.{layer}.VPT_shallow": (4, 128) for layer in (1, 2)}
    vision = {f"visual.{name}": (2, 128) for name in blocks}
    assert added == {"visual.VPT": (2, 128), **blocks, **vision}


@torch.no_grad()
def test_prompts_inside_the_towers(reference, images):
    design = {"trainer": "IVLP", "vision_depth": 3, "vision_ctx": 2, "language_depth": 3}
    model, tokens = build(**design, language_ctx=4), clip.tokenize(TEXTS)
    own = [block.VPT_shallow for block in model.transformer.resblocks[1:3]]
    deep = [block.VPT_shallow for block in model.visual.transformer.resblocks[1:3]]
    embedded = model.token_embedding(tokens)
    ends = tuple((tokens.argmax(dim=-1)).tolist())
    # prefix: start and the tokens that deep prompts replace
    prompts = Prompts(embedded[:1, :5], embedded[:, 5:], [end - 4 for end in ends], tuple(own))
    embedded[:, 1:5] = embedded[0, 1:5]
    expected = package.encode_prompts(reference, prompts)[0]
    text = TextEncoder(model)(embedded, tokens)
    torch.testing.assert_close(text, expected, atol=1e-4, rtol=1e-4)
    outputs = model.transformer([(embedded + model.positional_embedding).transpose(0, 1), own, 0])
    assert len(outputs) == 3 and outputs[1] is own
    last = model.ln_final(outputs[0].transpose(0, 1))[torch.arange(2), torch.tensor(ends)]
    torch.testing.assert_close(last @ model.text_projection, expected, atol=1e-4, rtol=1e-4)

    prompts = prompts._replace(image=model.visual.VPT, deep_image=tuple(deep))
    expected = package.encode_image(reference, images, prompts)
    torch.testing.assert_close(model.visual(images), expected, atol=1e-4, rtol=1e-4)
    plain = build(trainer="MaPLe", maple_length=2)
    given = plain.visual(images, model.visual.VPT, deep)
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)


def test_other_designs_are_refused():
    with pytest.raises(package.ClipError, match="num_experts"):
        build(trainer="IVLP_MoE", num_experts=4)


def test_half_precision_as_openai():
    state = torch.load(clip._download("tiny"), weights_only=True)
    model = clip.build_model(state)
    half = {name for name, p in model.named_parameters() if p.dtype == torch.float16}
    assert model.dtype == torch.float16 and model.ln_final.weight.dtype == torch.float32
    assert {"text_projection", "visual.proj", "visual.conv1.weight"} <= half
    model.float()
    convert_weights(model)
    assert {name for name, p in model.named_parameters() if p.dtype == torch.float16} == half


def test_names_of_clip():
    assert "ViT-B/16" in clip.available_models()
    model, preprocess = clip.load("tiny")
    image = pytest.importorskip("PIL.Image").new("RGB", (50, 40))
    assert model.encode_image(preprocess(image)[None]).shape == (1, 128)
    assert SimpleTokenizer().encode("a cat") == clip.tokenize("a cat")[0, 1:3].tolist()
