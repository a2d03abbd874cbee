"""Prompts on the Hugging Face Hub: from a local cache, since tests have no network."""

import sys

import pytest
import torch

import qprompt


@pytest.fixture
def cached(monkeypatch, tmp_path, learner):
    """Put a packed file into the Hub's cache under an address; return its values."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    qprompt.quantize_(learner, 1)

    def cached(repository, file, revision="main"):
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("0123456789" * 4)
        for at in (snapshot, folder / "refs"):
            at.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(snapshot.name)
        qprompt.pack(learner, snapshot / file)
        return qprompt.unpack(snapshot / file)

    return cached


@pytest.mark.parametrize(
    "address, file, revision",
    [
        ("hf://me/mine", "prompt.safetensors", "main"),
        ("hf://me/mine/ctx-1.safetensors", "ctx-1.safetensors", "main"),
        ("hf://me/mine@v2", "prompt.safetensors", "v2"),
        ("hf://me/mine@v2/other.safetensors", "other.safetensors", "v2"),
    ],
)
def test_load_takes_an_address(cached, address, file, revision):
    wanted = cached("me/mine", file, revision)
    tensors = qprompt.load(address).tensors
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("address", ["hf://mine", "hf://me/", "hf://me/mine@", "hf://"])
def test_another_form_is_refused(address):
    with pytest.raises(qprompt.HubError, match="hf://user/repository"):
        qprompt.load(address)


def test_what_is_not_to_be_had_is_named(cached):
    cached("me/mine", "prompt.safetensors")
    with pytest.raises(qprompt.HubError, match="hf://me/other.*check the address"):
        qprompt.load("hf://me/other")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(qprompt.HubError, match="pip install huggingface_hub"):
        qprompt.load("hf://me/mine")
