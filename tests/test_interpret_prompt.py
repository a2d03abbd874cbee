"""interpret_prompt.py, in this process."""

import sys

import pytest
import torch
from torch import nn

import clip
import interpret_prompt
import qprompt


@pytest.fixture
def interpret(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["interpret_prompt.py", *map(str, arguments)])
        interpret_prompt.main()
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def ctx():
    """The embeddings of three words."""
    embedding = clip.load("tiny").token_embedding.weight.detach()
    return embedding[clip.tokenize("photo three zero")[0, 1:4]]


def test_checkpoints(interpret, ctx, tmp_path):
    path = tmp_path / "model.pth.tar-2"
    expected = [
        f"{i}: ['{word}</w>'] ['0.0000']" for i, word in enumerate(["photo", "three", "zero"], 1)
    ]
    for name, value in (("ctx", ctx), ("prompt_learner.ctx", ctx)):
        torch.save({"state_dict": {name: value}}, path)
        assert interpret(path, 1, "--backbone", "tiny") == expected
    torch.save({"state_dict": {"ctx": ctx[:, None]}}, path)  # a context for each class
    assert interpret(path, 1, "--backbone", "tiny")[2:4] == [
        "Class 1",
        "1: ['three</w>'] ['0.0000']",
    ]


def test_quantized_prompts(interpret, ctx, tmp_path):
    learner = nn.Module()
    learner.ctx = nn.Parameter(ctx.clone())
    qprompt.quantize_(learner, bits=4)
    packed, checkpoint = tmp_path / "prompt.safetensors", tmp_path / "model.pth.tar-2"
    qprompt.pack(learner, packed, backbone="tiny")
    state = learner.state_dict()
    torch.save({"state_dict": state}, checkpoint)
    found = interpret(packed, 2)
    assert [line[:11] for line in found] == ["1: ['photo<", "2: ['three<", "3: ['zero</"]
    assert interpret(checkpoint, 2, "--backbone", "tiny") == found
    state.pop("ctx", None)  # as older versions wrote it
    torch.save({"state_dict": state}, checkpoint)
    assert interpret(checkpoint, 2, "--backbone", "tiny") == found


def test_what_cannot_be_interpreted(interpret, ctx, tmp_path):
    path = tmp_path / "model.pth.tar-2"
    torch.save({"state_dict": {"proj": ctx}}, path)
    with pytest.raises(SystemExit, match=r"holds no context \(ctx\), only proj"):
        interpret(path, 1)
    torch.save({"state_dict": {"ctx": ctx[:, :7]}}, path)
    with pytest.raises(SystemExit, match="7 numbers a vector .* 128"):
        interpret(path, 1, "--backbone", "tiny")
    torch.save({"state_dict": {"ctx": ctx}}, path)
    with pytest.raises(SystemExit, match="topk is 0"):
        interpret(path, 0, "--backbone", "tiny")
