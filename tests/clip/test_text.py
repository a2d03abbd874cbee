"""Tokenization and text encoding against open_clip's own."""

import copy

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

import clip

TEXTS = [
    "a photo of a dog.",
    "a centered satellite photo of Annual Crop Land.",
    "a photo of the digit seven.",
    "Ünïcode & punctuation: it's 100% fine!",
    "x",
    " ".join(["word"] * 75),
]


@pytest.fixture(scope="module", params=[False, True], ids=["gelu", "quick_gelu"])
def model(request):
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=32)
    text = CLIPTextCfg(width=64, heads=2, layers=3)
    return CLIP(48, vision, text, quick_gelu=request.param).eval()


def test_tokenizer_agrees_with_open_clip():
    assert torch.equal(clip.tokenize(TEXTS), open_clip.get_tokenizer("ViT-B-32")(TEXTS))


def test_tokenize_accepts_one_text_and_none():
    assert clip.tokenize("a dog").shape == (1, 77)
    assert clip.tokenize([]).shape == (0, 77)


def test_too_long_text_is_named_instead_of_cut():
    with pytest.raises(clip.PromptTooLongError, match="78 tokens.*takes 77"):
        clip.tokenize(" ".join(["word"] * 76))


@torch.no_grad()
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], TEXTS[1:3]])
def test_encode_text_agrees_with_open_clip(model, texts):
    tokens = clip.tokenize(texts)
    torch.testing.assert_close(
        clip.encode_text(model, tokens), model.encode_text(tokens), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_tokens_after_the_end_do_not_matter(model):
    tokens = clip.tokenize(TEXTS[:3])
    eot = tokens.argmax(-1)
    prompts = clip.embed_tokens(model, tokens)
    changed = prompts.clone()
    for row, position in enumerate(eot):
        changed[row, position + 1 :] = 7.0
    torch.testing.assert_close(
        clip.encode_prompts(model, prompts, eot), clip.encode_prompts(model, changed, eot)
    )


def test_gradient_is_that_of_all_positions(model):
    model = copy.deepcopy(model).double()
    tokens = clip.tokenize(TEXTS[:3])
    eot = tokens.argmax(-1)
    ours = clip.embed_tokens(model, tokens).detach().requires_grad_()
    clip.encode_prompts(model, ours, eot).square().sum().backward()

    full = clip.embed_tokens(model, tokens).detach().requires_grad_()
    x = model.transformer(full + model.positional_embedding, attn_mask=model.attn_mask)
    x = model.ln_final(x)[torch.arange(3), eot] @ model.text_projection
    x.square().sum().backward()
    torch.testing.assert_close(ours.grad, full.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("architecture", ["ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_towers_that_cannot_take_prompts_are_refused(architecture):
    class Other(torch.nn.Module):
        """The traits by which such towers differ: no causal mask, pooling at the last token."""

        def __init__(self):
            super().__init__()
            self.attn_mask = None if "SigLIP" in architecture else torch.zeros(77, 77)
            self.text_pool_type = "last" if "SigLIP" in architecture else "argmax"
            self.cls_emb = None if "SigLIP" in architecture else torch.zeros(8)
            self.token_embedding = torch.nn.Embedding(clip.tokenizer.VOCABULARY_SIZE, 8)

    with pytest.raises(clip.UnsupportedBackboneError, match="causal"):
        clip.embed_tokens(Other(), clip.tokenize("x"))
