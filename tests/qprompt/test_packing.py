from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from qprompt import (
    InvalidOptionError,
    InvalidWeightsError,
    NoParameterError,
    PackedFileError,
    PackedMismatchError,
    load_packed_,
    named_quantizers,
    pack,
    payload_bytes,
    quantize_,
    read_metadata,
    remove_,
    step_,
    unpack,
)
from qprompt.packed_file import pack_bits, unpack_bits

BITS = [1, 2, 3, 4, 8]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 1), (3, 5), (7, 13), (4, 160), (2, 3, 7)]


def single(shape, dtype=torch.float32):
    module = nn.Module()
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    module.ctx = nn.Parameter(values.to(dtype))
    return module


@pytest.fixture
def packed(learner, train, tmp_path):
    """A trained learner and its file."""
    quantize_(learner, 3, interval=2, kl_threshold=0.0)
    train(learner, 5, after=lambda: step_(learner))
    path = tmp_path / "prompt.safetensors"
    pack(learner, path, trainer="QCoOp")
    return learner, path


def values(module):
    return [module.ctx, *module.deep, module.proj.weight]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("codebook", ["kmeans", "uniform", "normal"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_trains_is_what_ships(tmp_path, shape, bits, dtype, codebook, normalize):
    module = quantize_(single(shape, dtype), bits, codebook=codebook, normalize=normalize)
    with torch.no_grad():
        module.parametrizations.ctx.original.mul_(1.3).add_(0.003)
    path = tmp_path / "prompt.safetensors"
    size = pack(module, path)
    number = module.ctx.numel()
    assert size == payload_bytes(module) == (number * bits + 7) // 8 + 2 * 2**bits
    value = unpack(path)["ctx"]
    assert value.dtype == dtype and torch.equal(value, module.ctx)

    for target in (single(shape, dtype), quantize_(single(shape, dtype), bits)):
        with torch.no_grad():
            next(target.parameters()).zero_()
        load_packed_(target, path)
        assert torch.equal(target.ctx, module.ctx)
    again = tmp_path / "again.safetensors"
    assert pack(target, again) == size and torch.equal(unpack(again)["ctx"], value)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=50))
def test_bit_packing_has_an_inverse(bits, numbers):
    indices = torch.tensor(numbers, dtype=torch.long) % 2**bits
    packed = pack_bits(indices, bits)
    assert packed.dtype == torch.uint8 and len(packed) == (len(numbers) * bits + 7) // 8
    assert torch.equal(unpack_bits(packed, bits, [len(numbers)]), indices)


def test_bit_order_is_part_of_the_format():
    assert pack_bits(torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 1]), 1).tolist() == [1, 1]
    assert pack_bits(torch.tensor([1, 2, 7]), 3).tolist() == [0b11_010_001, 0b1]


def test_one_bit_prompt_of_the_paper(tmp_path):
    path = tmp_path / "prompt.safetensors"
    facts = {"trainer": "QCoOp", "backbone": "ViT-B/16", "ctx_init": "a photo of a", "epoch": 200}
    module = quantize_(single((4, 512)))
    assert pack(module, path, **facts) == 260
    assert path.stat().st_size < 1024
    assert [p.name for p in tmp_path.iterdir()] == ["prompt.safetensors"]
    assert read_metadata(path) == {name: str(value) for name, value in facts.items()}
    with safe_open(path, framework="np") as file:
        assert {key: file.get_tensor(key).dtype.name for key in file.keys()} == {  # noqa: SIM118
            "ctx.codebook": "float16",
            "ctx.indices": "uint8",
        }
        assert all(isinstance(value, str) for value in file.metadata().values())
        assert json.loads(file.metadata()["quantized"]) == {
            "ctx": {"bits": 1, "shape": [4, 512], "dtype": "float32"}
        }


def test_whole_learner_round_trip(packed, make_learner):
    learner, path = packed
    biases = learner.proj.bias.half()
    stored = unpack(path)
    assert set(stored) == {"ctx", "deep.0", "deep.1", "deep.2", "proj.weight", "proj.bias"}
    assert torch.equal(stored["proj.bias"], biases)
    for target in (make_learner(seed=3), quantize_(make_learner(seed=3), 3)):
        load_packed_(target, path)
        for mine, trained in zip(values(target), values(learner), strict=True):
            assert torch.equal(mine, trained)
        assert torch.equal(target.proj.bias, biases.float())
    assert torch.equal(remove_(target).ctx, learner.ctx)


def test_training_goes_on_after_loading(packed, make_learner, train):
    learner, path = packed
    target = quantize_(make_learner(seed=3), 3, interval=2, kl_threshold=0.0)
    load_packed_(target, path)
    fits = []
    train(target, 6, after=lambda: fits.append(step_(target)))
    assert sum(fits) > 0
    assert not torch.equal(target.ctx, learner.ctx) and len(target.ctx.unique()) <= 8
    other = quantize_(make_learner(seed=4), 3)
    other.load_state_dict(target.state_dict())
    assert torch.equal(other.ctx, target.ctx)


def test_loading_between_precisions(tmp_path):
    module = quantize_(single((4, 64), torch.bfloat16), 4)
    pack(module, tmp_path / "p")
    target = quantize_(single((4, 64), torch.float32), 4)
    load_packed_(target, tmp_path / "p")
    assert torch.equal(target.ctx, module.ctx.float())


def test_equal_prompts_give_equal_files(packed, tmp_path):
    learner, _ = packed
    metadata = {f"key{i}": f"\u00e9 {i}" for i in range(20)}
    for name, order in (("one", metadata), ("other", dict(reversed(metadata.items())))):
        pack(learner, tmp_path / name, **order)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "other").read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    assert read_metadata(tmp_path / "one") == metadata
    digest = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    zeros = content.replace(digest["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(zeros).hexdigest() == digest["sha256"]


def test_every_byte_counts(tmp_path):
    path = tmp_path / "prompt.safetensors"
    pack(quantize_(single((3, 5))), path)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(PackedFileError, match=path.name):
            unpack(path)


def test_packing_again_replaces_the_file(packed, train):
    learner, path = packed
    train(learner, 3)
    pack(learner, path)
    assert torch.equal(unpack(path)["ctx"], learner.ctx)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_failed_packing_keeps_the_old_file(packed):
    learner, path = packed
    before = path.read_bytes()
    with torch.no_grad():
        learner.proj.parametrizations.bias.original.fill_(1e6)
    with pytest.raises(InvalidWeightsError, match="'proj.bias'"):
        pack(learner, path)
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pack(quantize_(single((2, 2))), path.parent / "nowhere" / "prompt.safetensors")


def test_what_cannot_be_packed(learner, tmp_path):
    with pytest.raises(NoParameterError, match="call quantize_ first"):
        pack(learner, tmp_path / "p")
    with pytest.raises(InvalidOptionError, match="format_version are reserved"):
        pack(quantize_(learner), tmp_path / "p", format_version=3)
    with torch.no_grad():
        learner.parametrizations.ctx.original[0] = 1e9
    with pytest.raises(InvalidWeightsError, match="'ctx'"):
        pack(learner, tmp_path / "p")
    for normalize in (True, False):
        module = quantize_(single((2, 2)), normalize=normalize)
        with torch.no_grad():
            module.parametrizations.ctx.original[0] = float("nan")
        with pytest.raises(InvalidWeightsError, match="'ctx'"):
            pack(module, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_what_half_precision_turns_into_zeros_is_said(tmp_path):
    module = quantize_(single((4, 8)))
    with torch.no_grad():
        module.parametrizations.ctx.original.mul_(1e-8)
    with pytest.warns(UserWarning, match="'ctx', at most 4e-10 in size, is all zeros"):
        pack(module, tmp_path / "prompt")
    with torch.no_grad():
        module.parametrizations.ctx.original.zero_()
    pack(module, tmp_path / "prompt")


def test_module_that_cannot_hold_the_values_stays_as_it_was(tmp_path):
    module = single((4, 8))
    module.first = nn.Parameter(torch.ones(2, 2))
    with torch.no_grad():
        module.ctx[0] = 65504
    pack(quantize_(module), tmp_path / "prompt")
    target = single((4, 8), torch.bfloat16)
    target.first = nn.Parameter(torch.zeros(2, 2))
    quantize_(target)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(InvalidWeightsError, match="'ctx' needs the centroid 65536"):
        load_packed_(target, tmp_path / "prompt")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_file_of_another_module(packed, make_learner):
    _, path = packed
    target = make_learner()
    target.extra = nn.Parameter(torch.ones(2, 2))
    del target.deep
    target.ctx = nn.Parameter(torch.ones(2, 64))
    with pytest.raises(PackedMismatchError) as caught:
        load_packed_(target, path)
    for part in (
        path.name,
        "unexpected deep.0",
        "missing extra",
        "(4, 64) in the file and (2, 64)",
    ):
        assert part in str(caught.value)
    assert torch.equal(target.ctx, torch.ones(2, 64))
    with pytest.raises(PackedMismatchError, match="ctx has 3 bits in the file and 1 here"):
        load_packed_(quantize_(make_learner(), 1), path)
    with pytest.raises(PackedMismatchError, match="proj.bias has 16 bits in the file"):
        load_packed_(quantize_(quantize_(make_learner(), 3), 3, params="proj.bias"), path)


def test_names_of_whole_model_registration(packed, make_learner, tmp_path):
    learner, _ = packed
    model = nn.ModuleDict({"prompt_learner": learner, "clip": nn.Linear(3, 3)})
    model.clip.requires_grad_(False)
    pack(model, tmp_path / "whole")
    assert all(name.startswith("prompt_learner.") for name in unpack(tmp_path / "whole"))
    target = nn.ModuleDict({"prompt_learner": make_learner(), "clip": nn.Linear(3, 3)})
    target.clip.requires_grad_(False)
    load_packed_(target, tmp_path / "whole")
    assert torch.equal(target.prompt_learner.ctx, learner.ctx)
    assert not any(named_quantizers(target))
