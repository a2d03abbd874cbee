"""The command line `qprompt export`."""

import json

import pytest
import torch
from PIL import Image

import qprompt
from qprompt.use.command import main


@pytest.fixture
def run(capsys):
    """Run `qprompt` with some arguments; return its exit code and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as exit:
            main(list(map(str, arguments)))
        return exit.value.code or 0, capsys.readouterr()

    return run


def test_text_is_printed_alone_and_gives_the_prompt_back(run, packed):
    code, printed = run("export", packed("CoOp"), "--text")
    assert code == 0
    found, wanted = qprompt.from_text(printed.out).tensors, qprompt.load(packed("CoOp")).tensors
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_qr_code_is_drawn_once(run, packed, tmp_path):
    pytest.importorskip("segno")
    path = tmp_path / "code.png"
    assert run("export", packed("CoOp"), "--qr", path)[0] == 0
    with Image.open(path) as image:
        assert image.width == image.height > 4 * 21
    assert "exists" in run("export", packed("CoOp"), "--qr", path)[0]
    assert "fewer bits" in run("export", packed("MaPLe", 4), "--qr", tmp_path / "other.png")[0]


def test_a_card_lies_beside_the_packed_prompt(run, packed, tmp_path):
    output = tmp_path / "prompt.safetensors"
    code, printed = run("export", packed("CoOp"), "-o", output, "--card")
    assert code == 0
    assert printed.out.splitlines()[-1] == str(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name:")


def test_sixteen_bits_are_half_precision(run, tmp_path):
    values = torch.randn(4, 128)
    torch.save({"state_dict": {"ctx": values}}, tmp_path / "model.pth.tar-1")
    output = tmp_path / "plain.safetensors"
    source = tmp_path / "model.pth.tar-1"
    assert run("export", source, "-o", output, "--bits", 16, "--backbone", "tiny")[0] == 0
    prompt = qprompt.load(output)
    assert (prompt.trainer, prompt.packed.payload_bytes) == ("CoOp", 1024)
    assert torch.equal(prompt.tensors["ctx"], values.half())
    assert json.loads(prompt.metadata["settings"]).keys() == {"COOP"}
    assert prompt.apply().classifier(["one", "two"]).shape == (2, 128)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["p"], "say what to write"),
        (["p", "q", "--onnx", "folder"], "--onnx takes one RUN, 2 are given"),
        (["p", "--text", "--bits", "2"], "give --output"),
    ],
)
def test_wrong_usage_is_told_from_errors(run, arguments, message):
    code, printed = run("export", *arguments)
    assert code == 2
    assert message in printed.err
