"""Packed prompts as text: what goes into a message comes out of it, or is refused."""

import json
import string

import pytest
import torch

from qprompt import PackedFileError
from qprompt.packed_file import PackedFile, PackedTensor
from qprompt.packed_text import KEPT, decode_text, encode_text

METADATA = {
    "trainer": "QCoOp",
    "backbone": "ViT-B/16",
    "ctx_init": "",
    "classnames": json.dumps(["annual crop", "forest"]),
    "dataset": "EuroSAT",
    "epoch": "200",
}
# as train.py packs them
SETTINGS = (
    '{"COOP":{"CLASS_TOKEN_POSITION":"end","CSC":false,"CTX_INIT":"","N_CTX":16,"W":8.0},'
    '"QPROMPT":{"BITS":1,"CODEBOOK":"kmeans","MODE":"qat","NORMALIZE":true,"PARAMS":""}}'
)
INPUT = (
    '{"interpolation":"bicubic","mean":[0.48145466,0.4578275,0.40821073],"size":[224,224],'
    '"std":[0.26862954,0.26130258,0.27577711]}'
)


def prompt(bits=1, shape=(4, 512), dtype=torch.float16, **metadata):
    generator = torch.Generator().manual_seed(bits)
    indices = torch.randint(2**bits, shape, generator=generator)
    codebook = torch.randn(2**bits, generator=generator).sort().values.half()
    packed = {"ctx": PackedTensor(indices, codebook, dtype)}
    return PackedFile(packed, {"bias": torch.ones(3).half()}, {**METADATA, **metadata})


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 512)])
def test_text_holds_the_prompt_and_what_using_it_needs(bits, shape):
    packed = prompt(bits, shape, torch.float32)
    text = encode_text(packed)
    decoded = decode_text(text)
    assert decoded.values.keys() == packed.values.keys()
    for name, value in packed.values.items():
        assert decoded.values[name].dtype == value.dtype
        assert torch.equal(decoded.values[name], value)
    assert decoded.metadata == {k: v for k, v in packed.metadata.items() if k in KEPT}
    assert encode_text(decoded) == text


def test_text_of_one_bit_has_about_400_characters():
    text = encode_text(prompt(settings=SETTINGS, input=INPUT)._replace(plain={}))
    assert len(text) <= 400
    assert set(text) <= {*string.ascii_letters, *string.digits, *"-_."}


def test_line_breaks_of_a_message_do_not_matter():
    text = encode_text(prompt())
    broken = "  " + "\r\n".join(text[i : i + 72] for i in range(0, len(text), 72)) + "\n"
    assert decode_text(broken).values.keys() == {"ctx", "bias"}


def test_every_changed_or_missing_character_is_noticed():
    text = encode_text(prompt())
    for i in range(len(text) - 1):
        swapped = text[:i] + ("A" if text[i] != "A" else "B") + text[i + 1 :]
        for changed in (swapped, text[:i] + text[i + 1 :], text[:i], text[:i] + "?" + text[i:]):
            with pytest.raises(PackedFileError):
                decode_text(changed)


def test_texts_of_the_first_release_are_read():
    """`ctx` = arange(6).reshape(2, 3) / 8 - 0.25 with 1 bit, as in test_packed_files.VERSION_1."""
    text = "qp1.8_LWNpdZG4LDTKfEpkFSIhyYZ7BEt7HRwAaMIbZgMQUGCgAAsAA0OA"
    file = decode_text(text)
    assert file.metadata == {"trainer": "QCoOp"}
    assert file.values["ctx"].tolist() == [[-0.125] * 3, [0.25] * 3]


@pytest.mark.parametrize("text", ["", "qp2.8_LWNpdZG4", "hello, here is my prompt"])
def test_other_texts_are_told_from_damaged_ones(text):
    with pytest.raises(PackedFileError, match="no packed prompt.*'qp1.'"):
        decode_text(text)
