"""Finding and reading weights."""

import urllib.request
import warnings
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import save_file

import clip
from clip import tiny


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty home, and a network that fails and records that it was asked."""
    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    return asked


@pytest.fixture(scope="module")
def state():
    return tiny.state_dict()


def logits(model):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = clip.tokenize(["a photo of the digit two.", "a photo of the letter A."])
    image = image.to(clip.compute_dtype(model))
    with torch.no_grad():
        image_features, text_features, scale = model(image, tokens)
    return scale * image_features @ text_features.t()


def archive(state, path):
    """Write a TorchScript archive that holds a CLIP's tensors under their names, as OpenAI's do."""
    model = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float16).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, the format is not ours to choose
        torch.jit.save(torch.jit.trace(Wrapper(model).eval(), torch.zeros(1)), path)


class Wrapper(torch.nn.Module):
    """Holds a CLIP's tensors under their own names, with a forward that needs none of them."""

    def __init__(self, model):
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, x):
        return x + 0 * self.logit_scale


def test_tiny_loads_without_asking_the_network(offline):
    model = clip.load("tiny")
    assert not model.training
    assert model.visual.image_size in (32, (32, 32))
    assert model.token_embedding.weight.shape == (49408, 128)
    assert offline == []


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".jit.pt"])
def test_every_file_form_gives_the_same_model(state, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".jit.pt":
        archive(state, path)
    else:
        torch.save(state, path)
    assert torch.equal(logits(clip.load(str(path))), logits(clip.load("tiny")))


@pytest.mark.parametrize("keys", [["model_state_dict"], ["model", "state_dict"]])
def test_weights_are_found_where_training_code_keeps_them(state, tmp_path, keys):
    content = {f"module.{name}": value for name, value in state.items()}
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "weights.pt")
    assert torch.equal(logits(clip.load(str(tmp_path / "weights.pt"))), logits(clip.load("tiny")))


def test_single_precision_file_loses_nothing(state, tmp_path):
    exact = {name: value.float() + 1e-6 for name, value in state.items()}
    path = tmp_path / "weights.safetensors"
    save_file(exact, path)
    loaded = clip.load(str(path)).state_dict()
    assert all(torch.equal(loaded[name], exact[name]) for name in exact)


def test_interrupted_download_leaves_nothing_behind(monkeypatch, tmp_path):
    def cut(url, cache_dir):
        (Path(cache_dir) / "ViT-B-16.pt").write_bytes(b"half of it")
        raise RuntimeError("the checksum does not match")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("qprompt.clip.weights.download_pretrained_from_url", cut)
    with pytest.raises(clip.WeightsNotFoundError, match="checksum does not match"):
        clip.load("ViT-B/16")
    assert list((tmp_path / ".cache/clip").iterdir()) == []


def test_cached_openai_file_is_used_without_asking_the_network(offline, state, tmp_path):
    cache = tmp_path / ".cache" / "clip"
    cache.mkdir(parents=True)
    torch.save(state, cache / "ViT-B-16.pt")
    with pytest.warns(UserWarning, match="not OpenAI's published file"):
        model = clip.load("ViT-B/16")
    assert torch.equal(logits(model), logits(clip.load("tiny")))
    assert offline == []


@pytest.mark.parametrize("name", ["RN50", "RN101", "ViT-B/32", "ViT-B/16", "ViT-L/14"])
def test_no_cache_and_no_network_says_which_file_to_put_where(offline, name):
    with pytest.raises(clip.WeightsNotFoundError) as error:
        clip.load(name)
    expected = Path("~/.cache/clip").expanduser() / f"{name.replace('/', '-')}.pt"
    assert f"put it at {expected}" in str(error.value)
    assert len(offline) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close(precision):
    model = clip.load("tiny", precision=precision)
    assert model.transformer.resblocks[0].mlp.c_fc.weight.dtype == clip.compute_dtype(model)
    assert model.ln_final.weight.dtype == torch.float32
    expected = logits(clip.load("tiny"))
    assert (logits(model).float() - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B/61", "Did you mean 'ViT-B/16'"),
        ("nothing.pt", "neither a file nor"),
        ("ViT-B-99:openai", "no architecture 'ViT-B-99'; nearest: ViT-B-"),
        ("ViT-B-32:laion_of_nowhere", "known: openai"),
    ],
)
def test_unknown_names_get_the_nearest_known_one(name, message):
    with pytest.raises(ValueError, match=message):
        clip.load(name)


def test_unknown_precision():
    with pytest.raises(ValueError, match="int8"):
        clip.load("tiny", precision="int8")


def test_truncated_file_is_named(state, tmp_path):
    path = tmp_path / "cut.pt"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.pt cannot be read"):
        clip.load(str(path))


@pytest.mark.parametrize("jit", [False, True])
def test_damaged_file_is_named(state, tmp_path, jit):
    path = tmp_path / "damaged.pt"
    archive(state, path) if jit else torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(clip.ClipError, match="damaged.pt .*checksum.*download it again"):
        clip.load(str(path))


def test_weights_that_are_no_numbers_are_refused(state, tmp_path):
    path = tmp_path / "nan.pt"
    torch.save({**state, "ln_final.bias": state["ln_final.bias"] * torch.nan}, path)
    with pytest.raises(clip.ClipError, match="nan.pt holds NaN or infinity in 'ln_final.bias'"):
        clip.load(str(path))


@pytest.mark.parametrize(
    "content, message",
    [
        ({"weight": torch.zeros(2)}, "other.pt holds no CLIP"),
        ({"state_dict": {1: 2}}, "other.pt holds no CLIP"),
        ([torch.zeros(2)], "other.pt holds a list, not weights by name"),
        ({"model": torch.zeros(2)}, "other.pt holds a Tensor, not weights by name"),
    ],
)
def test_file_of_something_else_is_named(tmp_path, content, message):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(clip.ClipError, match=message):
        clip.load(str(path))


@pytest.mark.parametrize("name", ["{}", "ViT-B-32:{}"])
def test_pickled_model_gets_advice(tmp_path, name):
    path = tmp_path / "model.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(clip.ClipError, match=r"model.pt .*torch.save\(model.state_dict") as caught:
        clip.load(name.format(path))
    assert "weights_only" not in str(caught.value)


def test_file_that_executes_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(ValueError, match="evil.pt cannot be read"):
        clip.load(str(path))
    assert not (tmp_path / "executed").exists()


def test_open_clip_architecture_with_a_file(tmp_path):
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", precision="fp32")
    path = tmp_path / "open_clip.pt"
    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    loaded = clip.load(f"ViT-B-32:{path}")
    tokens = clip.tokenize("a dog")
    with torch.no_grad():
        assert torch.equal(loaded.encode_text(tokens), model.eval().encode_text(tokens))


def test_open_clip_file_of_another_architecture(tmp_path, state):
    path = tmp_path / "tiny.safetensors"
    save_file(state, path)
    with pytest.raises(ValueError, match="does not fit ViT-B-32"):
        clip.load(f"ViT-B-32:{path}")
