"""Damaged, mutated and hostile files: each loads as it was saved, or is refused by name.

A few thousand by default; 10,000 of each kind: `python -m pytest tests/reliability -m slow`.
"""

import copy
import fractions
import hashlib
import json
import math
import random
import resource
import struct
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import qprompt
from dassl.optim.lr_scheduler import EpochLR
from dassl.utils import CheckpointError, resume_from_checkpoint, save_checkpoint

SCREEN = 1000  # letters
MEMORY = 2**29  # bytes beyond what the process has already
TIMES = [500, pytest.param(10_000, marks=pytest.mark.slow)]


@contextmanager
def bounded_memory():
    """Make allocations fail that no file of a few hundred bytes has reason for."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


class Learner(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.ctx = nn.Parameter(torch.randn(3, 7))
        self.proj = nn.Linear(4, 3)
        self.register_buffer("count", torch.tensor(seed))


def learner(seed):
    return qprompt.quantize_(Learner(seed), 2)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def flip(rng, content):
    """One bit."""
    position = rng.randrange(8 * len(content))
    damaged = bytearray(content)
    damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)


def cut(rng, content):
    """Bytes dropped, doubled or added, in the middle or at the end."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    end = rng.choice([end, len(content)])
    middle = rng.choice([b"", content[start:end] * 2, rng.randbytes(9) + content[start:end]])
    return content[:start] + middle + content[end:]


def nested(depth):
    return [nested(depth - 1)] if depth else []


# ---- packed prompts


class Pairs(list):
    """A JSON object whose keys may stand in it twice."""


def parse(text):
    return json.loads(text, object_pairs_hook=Pairs)


def dump(node):
    if isinstance(node, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{dump(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(dump, node)) + "]"
    return json.dumps(node)


NAMES = ["ctx", "ctx.indices", "ctx.codebook", "proj.bias", "__metadata__", "bits", "sha256", ""]
DTYPES = "F32 I8 BOOL C64 F8_E4M3 F4 float16 int8 bool complex64 float8_e4m3fn float4_e2m1fn_x2"
NUMBERS = [None, True, -1, 0, 1, 7, 2**28, 2**31, 2**63, 2**64, 10**30, 1.5, math.nan, math.inf]
ODDITIES = [*NUMBERS, *NAMES, *DTYPES.split(), "uint1", "bits8", "quint8", "int4", "__class__"]
ODDITIES += ["1", "2", "3", "\0", "\ud800", "\n" * 50, "x" * 10_000, [], Pairs(), [2**64], [1] * 99]
ODDITIES += [[2**32, 2**32], [0, 2**62], [3, 7], [7, 3], [-3, -7], [21.0], nested(200)]


def edit(rng, node):
    """Change, drop, double, rename or add one item somewhere in a JSON value."""
    spots = [node]
    for spot in spots:
        values = (item[1] if isinstance(spot, Pairs) else item for item in spot)
        spots += [value for value in values if isinstance(value, list) and value]
    spot = rng.choice(spots)
    index = rng.randrange(len(spot))
    item, action = spot[index], rng.choice(["set", "set", "drop", "double", "rename"])
    oddity = copy.deepcopy(rng.choice(ODDITIES))
    if action == "drop":
        del spot[index]
    elif action == "double":
        other = rng.choice([item, rng.choice(spot)])
        spot.append((item[0], other[1]) if isinstance(spot, Pairs) else other)
    elif not isinstance(spot, Pairs):
        spot[index] = oddity
    elif action == "rename":
        spot[index] = rng.choice(NAMES), item[1]
    else:
        spot[index] = item[0], oddity


def edited(rng, content, seal):
    """A packed file with another header or payload; sealed, its digest is right again."""
    size = int.from_bytes(content[:8], "little")
    header, payload = parse(content[8 : 8 + size]), bytearray(content[8 + size :])
    metadata = dict(header)["__metadata__"]
    place = [key for key, _ in metadata].index("quantized")
    records = parse(metadata[place][1])
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        target = rng.choice(["records", "header", "metadata", "payload"])
        if target == "payload":
            at = rng.randrange(0, len(payload) - 1, 2)
            payload[at : at + 2] = struct.pack("<e", rng.choice([math.nan, math.inf, 1.0]))
        else:
            edit(rng, {"records": records, "header": header, "metadata": metadata}[target])
    for place, item in enumerate(metadata):
        if item[0] == "quantized":
            metadata[place] = "quantized", dump(records) if rng.random() < 0.9 else item[1]
    recorded = [value for key, value in metadata if key == "sha256"]
    text = dump(header).encode()
    changed = len(text).to_bytes(8, "little") + text + bytes(payload)
    if seal and recorded and isinstance(recorded[0], str):
        field = b'"sha256":"%s"'
        zeros = changed.replace(field % recorded[0].encode("utf-8", "replace"), field % (b"0" * 64))
        digest = hashlib.sha256(zeros).hexdigest().encode()
        changed = zeros.replace(field % (b"0" * 64), field % digest, 1)
    return changed


def of_version_1(content):
    """The same prompt as the first release wrote it."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]["sha256"]
    header["__metadata__"]["format_version"] = "1"
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.fixture
def packed(tmp_path):
    """A packed prompt: its file, its content, what loads from it."""
    source, path = learner(0), tmp_path / "prompt.safetensors"
    qprompt.pack(source, path, trainer="QCoOp", epoch=2)
    return path, path.read_bytes(), qprompt.unpack(path), qprompt.read_metadata(path)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("how", ["flipped", "cut", "edited", "edited and sealed", "version 1"])
def test_packed_prompts(packed, how, times):
    path, content, values, metadata = packed
    rng, target = random.Random(times), learner(1)
    before = copy.deepcopy(target.state_dict())
    old, outcomes = of_version_1(content), Counter()
    for _ in range(times):
        if how == "version 1":
            mutant = edited(rng, old, seal=False)
        elif how.startswith("edited"):
            mutant = edited(rng, content, seal=how.endswith("sealed"))
        else:
            mutant = {"flipped": flip, "cut": cut}[how](rng, content)
        path.write_bytes(mutant)
        try:
            with bounded_memory():
                qprompt.load_packed_(target, path)
        except (qprompt.PackedFileError, qprompt.PackedMismatchError) as error:
            assert str(path) in str(error) and len(str(error)) < SCREEN
            assert equal(target.state_dict(), before)
            outcomes[type(error).__name__] += 1
        else:
            loaded, says = qprompt.unpack(path), qprompt.read_metadata(path)
            assert all(torch.isfinite(value).all() for value in loaded.values())
            if how in ("flipped", "cut", "edited"):
                assert equal(loaded, values) and says == metadata, mutant
            outcomes["loads"] += 1
            target.load_state_dict(before)
    print(how, dict(outcomes))
    assert outcomes["PackedFileError"] > times / 2


# ---- checkpoints

FOREIGN = fractions.Fraction(1, 2)  # an object of a class that no checkpoint has reason to hold
LOOP = []
LOOP.append(LOOP)


def odd_values(rng, value):
    """Values that may stand in a checkpoint in place of another."""
    tensors = [torch.tensor(3), torch.tensor([1 + 2j]), torch.ones(5), torch.ones(2).to_sparse()]
    tensors += [torch.zeros(1).expand(2**40), torch.ones(0, 2**40), torch.ones(3, device="meta")]
    if isinstance(value, torch.Tensor):
        tensors += [value.long(), value.to(torch.complex64), torch.full_like(value, 9)]
        if value.is_floating_point():
            tensors += [value * math.nan, value / 0, value.half(), value.to(torch.float8_e5m2)]
    others = [*NUMBERS, -5, 99, "x", "x" * 10_000, b"x", [], {}, (), {1: 2}, nested(200)]
    return rng.choice([rng.choice(tensors), rng.choice([*others, LOOP, FOREIGN, [FOREIGN]])])


def changed(rng, state):
    """A checkpoint with another, no or one more value somewhere in it, or another key."""
    state = copy.deepcopy(state)
    spots = [(state, key) for key in state]
    for container, key in spots:
        value = container[key]
        if isinstance(value, dict):
            spots += [(value, name) for name in value]
        elif isinstance(value, list):
            spots += [(value, index) for index in range(len(value))]
    level = rng.choice([state, state, state["state_dict"], None])
    spots = [(spot, key) for spot, key in spots if level is None or spot is level]
    container, key = rng.choice(spots)
    action = rng.choice(["set", "set", "set", "drop", "rename", "add"])
    if action == "set":
        container[key] = odd_values(rng, container[key])
    elif action == "add" and isinstance(container, dict):
        name = rng.choice(["module.ctx", f"module.{key}", "x" * 5000, 1, None, (1, 2), "rng"])
        container[name] = odd_values(rng, container[key])
    elif action == "rename" and isinstance(container, dict):
        container[rng.choice([1, None, f"module.{key}", "other", "x" * 5000])] = container.pop(key)
    else:
        del container[key]
    return state


class Run:
    """A model with all that a checkpoint restores."""

    def __init__(self, seed):
        self.model = learner(seed)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = EpochLR(self.optimizer, lambda lr, epoch: lr / (1 + epoch))
        self.scaler = torch.amp.GradScaler("cpu")

    def step(self):
        for weight in self.model.parameters():
            weight.grad = torch.ones_like(weight)
        self.optimizer.step()
        self.scheduler.step()

    def state(self):
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def parts(self):
        return self.model, self.optimizer, self.scheduler, self.scaler

    def load(self, state):
        for part, name in zip(self.parts(), state, strict=True):
            part.load_state_dict(copy.deepcopy(state[name]))


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("how", ["flipped", "cut", "changed"])
def test_checkpoints(tmp_path, how, times):
    source = Run(0)
    source.step()
    save_checkpoint({**source.state(), "epoch": 1, "val_result": 71.5}, tmp_path)
    path = tmp_path / "model.pth.tar-1"
    content, state = path.read_bytes(), torch.load(path, weights_only=True)
    rng, run = random.Random(times), Run(1)
    before, outcomes = copy.deepcopy(run.state()), Counter()
    for _ in range(times):
        if how == "changed":
            torch.save(changed(rng, state), path)
        else:
            path.write_bytes({"flipped": flip, "cut": cut}[how](rng, content))
        mutant, generators = path.read_bytes(), (random.getstate(), torch.get_rng_state())
        try:
            with bounded_memory():
                epoch = resume_from_checkpoint(tmp_path, *run.parts())
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error)) < SCREEN
            assert same(run.state(), before)
            assert random.getstate() == generators[0]
            assert torch.equal(torch.get_rng_state(), generators[1])
            outcomes["refused"] += 1
        else:
            assert epoch == 1
            if how != "changed":
                assert same(run.state(), source.state())
            assert all(torch.isfinite(t).all() for t in run.model.state_dict().values())
            if not run.optimizer.param_groups[0]["differentiable"]:  # needs another kind of model
                run.step()
            outcomes["loads"] += 1
            run.load(before)
        assert path.read_bytes() == mutant
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", path.name]
    print(how, dict(outcomes))
    assert outcomes["refused"] > times / 4
