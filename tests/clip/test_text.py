"""Tokenization and text encoding against open_clip's own."""

import copy
import functools

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip import IMAGENET_CLASSNAMES
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch.nn import functional as F

import clip
from qprompt.clip.rows import Rows
from qprompt.clip.tokenizer import VOCABULARY_SIZE

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
    return CLIP(48, vision, text, quick_gelu=request.param).eval().requires_grad_(False)


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


def prompts_of(model, texts, common, beginnings=1):
    """Embedded texts as beginnings and ends; further beginnings are random."""
    tokens = clip.tokenize(texts)
    embedded = clip.embed_tokens(model, tokens).detach()
    generator = torch.Generator().manual_seed(0)
    more = torch.randn(beginnings - 1, common, 64, generator=generator).to(embedded)
    lengths = [int(end) + 1 - common for end in tokens.argmax(-1)]
    prefix = torch.cat([embedded[:1, :common], more]).requires_grad_()
    suffix = embedded[:, common:].clone().requires_grad_()
    return clip.Prompts(prefix, suffix, tuple(lengths))


def written_out(model, prompts):
    """Every prompt over all 77 positions, by open_clip's transformer."""
    prefix, suffix, lengths = prompts[:3]
    rows = [torch.cat([start, end]) for start in prefix for end in suffix]
    x = torch.stack(rows) + model.positional_embedding
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    last = torch.tensor(lengths).repeat(len(prefix)) + prefix.shape[1] - 1
    x = x[torch.arange(len(x)), last] @ model.text_projection
    return x.unflatten(0, (len(prefix), len(suffix)))


def with_gradients(encode, prompts):
    inputs = [prompts.prefix, prompts.suffix, *prompts.deep_text]
    output = encode()
    weights = torch.linspace(-1, 2, output.numel()).view_as(output).to(output)
    return output, torch.autograd.grad((output * weights).sum(), inputs)


@pytest.mark.parametrize("beginnings", [1, 3])
@pytest.mark.parametrize("common", [1, 2])
@pytest.mark.parametrize("options", [{}, {"full": True}, {"chunk": 1}, {"chunk": 7}])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], TEXTS[1:3] * 8])
def test_features_and_gradients_are_those_of_all_positions(
    model, texts, common, beginnings, options
):
    model = copy.deepcopy(model).double()
    prompts = prompts_of(model, texts, common, beginnings)
    ours, gradients = with_gradients(
        lambda: clip.encode_prompts(model, prompts, **options), prompts
    )
    full, expected = with_gradients(lambda: written_out(model, prompts), prompts)
    torch.testing.assert_close(ours, full, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("full", [False, True])
def test_tokens_after_the_end_are_not_read(model, full):
    prompts = prompts_of(model, TEXTS[:3], 1)
    expected = clip.encode_prompts(model, prompts, full=full)
    suffix = prompts.suffix.detach().clone()
    for row, length in enumerate(prompts.lengths):
        suffix[row, length:] = 1000.0
    changed = prompts._replace(suffix=suffix)
    torch.testing.assert_close(clip.encode_prompts(model, changed, full=full), expected)


@pytest.mark.parametrize("options", [{}, {"chunk": 2}])
def test_deep_prompts_shared_and_over_all_positions_agree(model, options):
    model = copy.deepcopy(model).double()
    deep = tuple(torch.randn(2, 64).double().requires_grad_() for _ in range(2))
    prompts = prompts_of(model, ["x x x dog", "x x x golden retriever", "x x x cat"], 4)
    prompts = prompts._replace(deep_text=deep)

    def run(**options):
        encode = functools.partial(clip.encode_prompts, model, prompts, **options)
        return with_gradients(encode, prompts)

    ours, full = run(**options), run(full=True)
    torch.testing.assert_close(ours, full, rtol=1e-8, atol=1e-8)
    assert all(gradient.abs().sum(dim=-1).gt(0).all() for gradient in ours[1][2:])


@given(lengths=st.lists(st.integers(1, 76), min_size=1, max_size=40))
def test_layout_packs_every_token_once_and_lets_it_attend_to_its_own_text(lengths):
    layout = Rows(lengths, 3, torch.empty(0))
    places = list(
        zip(layout.text.flatten().tolist(), layout.position.flatten().tolist(), strict=True)
    )
    ends = (layout.end - 3).tolist()
    assert [places[i] for i in ends] == [(i, n - 1) for i, n in enumerate(lengths)]
    mask = layout.attn_mask.flatten(0, 2) == 0  # what each token attends to: prefix and row
    assert mask[:, :3].all() and layout.attn_mask.stride(-2) % 8 == 0
    prefix = layout.whole_mask[:, 0, :3] == 0
    assert torch.equal(prefix, torch.ones_like(prefix).tril())
    row_length = layout.text.shape[1]
    for i, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        for place in range(end - length + 1, end + 1):
            start = place - place % row_length
            attended = [places[start + j] for j in mask[place, 3:].nonzero().flatten().tolist()]
            assert attended == [(i, j) for j in range(places[place][1] + 1)]


@pytest.mark.parametrize("extra", [1, 17])
def test_layout_of_class_names_has_little_padding(extra):
    ends = clip.tokenize([f"{name}." for name in IMAGENET_CLASSNAMES]).argmax(dim=-1)
    lengths = tuple((ends + extra).tolist())
    assert Rows(lengths, 1, torch.empty(0)).text.numel() < 1.1 * sum(lengths)


def saved_bytes(encode):
    """Bytes that the graph of a computation keeps for its gradient, each storage once."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encode()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("n_ctx", [4, 16])
def test_many_classes_take_an_eighth_of_the_memory(model, n_ctx):
    model = copy.deepcopy(model).requires_grad_(False)
    context = " ".join(["x"] * n_ctx)
    names = IMAGENET_CLASSNAMES[:200]
    prompts = prompts_of(model, [f"{context} {name}." for name in names], 1 + n_ctx)
    full, shared, chunked = (
        saved_bytes(functools.partial(clip.encode_prompts, model, prompts, **options))
        for options in ({"full": True}, {}, {"chunk": 20})
    )
    assert shared * 8 < full
    assert chunked * 3 < shared


@pytest.mark.parametrize("texts", [["a b", "a c"], ["a b", "a b c"], ["a b", "a b"], ["a"]])
def test_common_tokens_end_before_the_first_end(texts):
    tokens = clip.tokenize(texts)
    common = clip.count_common(tokens)
    assert 1 <= common <= tokens.argmax(-1).min()
    assert (tokens[:, :common] == tokens[0, :common]).all()
    assert common == tokens.argmax(-1).min() or len(tokens[:, common].unique()) > 1


@pytest.mark.parametrize("architecture", ["ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_towers_that_cannot_take_prompts_are_refused(architecture):
    class Other(torch.nn.Module):
        """The traits by which such towers differ: no causal mask, pooling at the last token."""

        def __init__(self):
            super().__init__()
            self.attn_mask = None if "SigLIP" in architecture else torch.zeros(77, 77)
            self.text_pool_type = "last" if "SigLIP" in architecture else "argmax"
            self.cls_emb = None if "SigLIP" in architecture else torch.zeros(8)
            self.token_embedding = torch.nn.Embedding(VOCABULARY_SIZE, 8)

    with pytest.raises(clip.UnsupportedBackboneError, match="causal"):
        clip.embed_tokens(Other(), clip.tokenize("x"))


def test_encoding_without_a_gradient_does_not_spoil_later_ones(model):
    texts = ["inference comes first", "and then", "training follows it here"]
    prompts = prompts_of(model, texts, 1)
    with torch.inference_mode():
        clip.encode_prompts(model, prompts)
    with_gradients(functools.partial(clip.encode_prompts, model, prompts), prompts)


@pytest.mark.parametrize("dims", [2, 3])
def test_logits_and_their_gradients_are_those_of_normalised_features(model, dims):
    generator = torch.Generator().manual_seed(dims)
    image, text = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((4, 48), (4, 5, 48)[-dims:])
    )
    logits = clip.compare_features(model, image, text)
    one, other = (F.normalize(features, dim=-1) for features in (image, text))
    expected = model.logit_scale.exp() * (one[:, None] * other).sum(dim=-1)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 2, logits.numel()).view_as(logits)
    gradients = torch.autograd.grad((logits * weights).sum(), [image, text])
    others = torch.autograd.grad((expected * weights).sum(), [image, text])
    torch.testing.assert_close(gradients, others, rtol=1e-5, atol=1e-5)
