import io
import os
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from dassl.optim.lr_scheduler import EpochLR
from dassl.utils import (
    CheckpointError,
    atomic_write,
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
    set_random_seed,
)
from dassl.utils.tools import rng_state


class Scheduler:
    """Stands for upstream's pickled scheduler, which holds its successor and an optimizer."""

    created = 0

    def __init__(self, optimizer, successor=None):
        self.optimizer, self.successor, self.last_epoch = optimizer, successor, 3

    def __setstate__(self, state):
        Scheduler.created += 1
        self.__dict__.update(state)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def learner():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def upstream_state():
    model = learner()
    optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optim.step()
    torch_sched = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 5)
    sched = Scheduler(optim, torch_sched)
    return model, {
        "state_dict": model.state_dict(),
        "epoch": 3,
        "optimizer": optim.state_dict(),
        "scheduler": sched.__dict__,
        "val_result": np.float64(71.5),
    }


def test_upstream_checkpoint_is_read_without_creating_its_objects(tmp_path, capsys):
    model, state = upstream_state()
    torch.save(state, tmp_path / "model.pth.tar-3")
    Scheduler.created = 0
    loaded = load_checkpoint(tmp_path / "model.pth.tar-3")
    assert Scheduler.created == 0
    assert loaded["epoch"] == 3 and "scheduler" not in loaded
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded["state_dict"][name], tensor)
    momenta = [s["momentum_buffer"] for s in loaded["optimizer"]["state"].values()]
    assert [m.shape for m in momenta] == [(2, 3), (2,)]
    assert "scheduler" in capsys.readouterr().out


def test_upstream_checkpoint_resumes_at_its_epoch(tmp_path):
    _, state = upstream_state()
    torch.save(state, tmp_path / "model.pth.tar-3")
    (tmp_path / "checkpoint").write_text("model.pth.tar-3\n")
    model = nn.Linear(3, 2)
    optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sched = EpochLR(optim, lambda lr, epoch: lr / (1 + epoch))
    assert resume_from_checkpoint(tmp_path, model, optim, sched) == 3
    assert sched.last_epoch == 3
    assert optim.param_groups[0]["lr"] == pytest.approx(0.025)
    assert torch.equal(model.weight, state["state_dict"]["weight"])


@pytest.mark.parametrize("where", ["scheduler", "state_dict", "top"])
def test_nothing_in_a_checkpoint_is_executed(tmp_path, where):
    victim = tmp_path / "pwned"
    state = {"state_dict": {"w": torch.ones(2)}, "scheduler": None}
    if where == "top":
        state = Malicious(victim)
    elif where == "scheduler":
        state["scheduler"] = Malicious(victim)
    else:
        state["state_dict"]["w2"] = Malicious(victim)
    torch.save(state, tmp_path / "bad")
    if where == "scheduler":
        assert torch.equal(load_checkpoint(tmp_path / "bad")["state_dict"]["w"], torch.ones(2))
    else:
        with pytest.raises(CheckpointError, match="bad"):
            load_checkpoint(tmp_path / "bad")
    assert not victim.exists()
    pickle.loads(pickle.dumps(Malicious(victim)))  # the attack itself works
    assert victim.exists()


def test_plain_malicious_pickle_is_refused(tmp_path):
    path = tmp_path / "legacy"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "pwned")))
    with pytest.raises(CheckpointError, match="legacy"):
        load_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_pickle_cannot_alter_what_it_may_call(tmp_path):
    # BUILD with slot state sets attributes on its target: here, on what rebuilds tensors
    attack = b"ctorch._utils\n_rebuild_tensor_v2\n(N(dS'__defaults__'\nNstb."
    from dassl.utils import safe_unpickler

    before = torch._utils._rebuild_tensor_v2.__defaults__
    safe_unpickler.load(io.BytesIO(attack))
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "model.pth.tar-1"
    path.write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="model.pth.tar-1.*truncated"):
        load_checkpoint(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(CheckpointError, match="model.pth.tar-1.*holds a list"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_checksums_are_verified(tmp_path):
    """torch.load reads past them: one bit of a weight would be another number."""
    path = tmp_path / "w"
    weights = torch.arange(1.0, 7).reshape(2, 3)
    torch.save({"weight": weights}, path)
    content = path.read_bytes()
    place = content.index(weights.numpy().tobytes())
    path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
    assert not torch.equal(torch.load(path, weights_only=True)["weight"], weights)
    with pytest.raises(CheckpointError, match='"w/data/0?.*checksum|checksum of .*data/0'):
        load_checkpoint(path)
    torch.save({"weight": weights}, path, _use_new_zipfile_serialization=False)  # has none
    assert torch.equal(load_checkpoint(path)["weight"], weights)


def run():
    model = learner()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, EpochLR(optimizer, lambda lr, epoch: lr / (1 + epoch))


def trained_state():
    model, optimizer, scheduler = run()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    return {**state, "scheduler": {"last_epoch": 1}, "rng": rng_state()}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"state_dict": None}, 'has no "state_dict"'),
        ({"state_dict": [torch.ones(1)]}, "is a list, not tensors by name"),
        ({"state_dict": "weights"}, "is a str, not tensors by name"),
        ({"state_dict": {1: torch.ones(2)}}, "has 1: Tensor among its weights"),
        ({"state_dict.weight": "x"}, "has 'weight': str among its weights"),
        ({"state_dict.module.weight": torch.ones(2, 3)}, 'with and without "module."'),
        ({"state_dict.weight": torch.ones(2, 3).int()}, "weight in .* kind torch.int32"),
        ({"state_dict.weight": torch.ones(2, 3) + 0j}, "weight in .* kind torch.complex64"),
        ({"state_dict.weight": torch.full((2, 3), torch.nan)}, "weight in .* NaN .* earlier"),
        ({"state_dict.bias": torch.tensor([1, torch.inf])}, "bias in .* NaN or infinity"),
        ({"state_dict.bias": torch.ones(7)}, "size mismatch for bias"),
        *(({"epoch": epoch}, f"says that {epoch}") for epoch in (None, -5, 99, 10**30, True, 1.0)),
        *(({"val_result": value}, f"val_result {value!r}") for value in ("high", True)),
        ({"optimizer": None}, "optimizer state is None"),
        ({"optimizer": Scheduler(None)}, "optimizer state is None"),
        ({"optimizer": [1]}, r"optimizer state is \[1\]"),
        ({"optimizer.param_groups": []}, "KeyError: 0"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "different number of parameter groups"),
        ({"optimizer.param_groups.0.momentum": "x"}, "momentum is 'x'"),
        ({"optimizer.param_groups.0.weight_decay": True}, "weight_decay is True"),
        ({"optimizer.param_groups.0.nesterov": 7}, "nesterov is 7"),
        ({"optimizer.state.0.momentum_buffer": torch.ones(5)}, r"momentum_buffer .* \[2, 3\]"),
        ({"optimizer.state.0.momentum_buffer": 0}, r"momentum_buffer holds no \[2, 3\] finite"),
        ({"optimizer.state.0": []}, r"state of weight 0 is \[\]"),
        ({"optimizer.state.0.step": "x"}, "could not convert string"),
        ({"optimizer.state.0.momentum_buffer": torch.ones(2, 3) * 0j}, "momentum_buffer holds"),
        ({"optimizer.state.7": {"momentum_buffer": torch.ones(5)}}, "KeyError: 7"),
        ({"scheduler": "x"}, "TypeError"),
        ({"scheduler.last_epoch": "x"}, "TypeError"),
        ({"scheduler.last_epoch": float("nan")}, "last_epoch is nan"),
        ({"rng": None}, "TypeError"),
        ({"rng.python": "abc"}, "AttributeError"),
        ({"rng.numpy.state.pos": -5}, "position -5"),
        ({"rng.torch": torch.ones(3)}, "TypeError"),
        ({"rng": Scheduler(None)}, "rng holds objects"),
    ],
)
def test_nonsense_is_refused_and_nothing_changes(tmp_path, changes, message):
    state = trained_state()
    save_checkpoint(state, tmp_path)
    for key, value in changes.items():
        *path, last = key.split(".") if "module" not in key else key.split(".", 1)
        place = state
        for name in path:
            place = place[int(name) if name.isdigit() else name]
        place[int(last) if last.isdigit() else last] = value
    torch.save(state, tmp_path / "model.pth.tar-1")
    parts = run()
    with torch.no_grad():
        parts[0].weight.zero_()
    content = (tmp_path / "model.pth.tar-1").read_bytes()
    generators = random.getstate(), torch.get_rng_state()
    with pytest.raises(CheckpointError, match=message) as caught:
        resume_from_checkpoint(tmp_path, *parts)
    assert str(tmp_path / "model.pth.tar-1") in str(caught.value)
    assert not parts[0].weight.any() and not parts[1].state
    assert parts[1].param_groups[0]["lr"] == 0.1 and parts[2].last_epoch == 0
    assert random.getstate() == generators[0]
    assert torch.equal(torch.get_rng_state(), generators[1])
    assert (tmp_path / "model.pth.tar-1").read_bytes() == content


def test_weights_that_do_not_fit_leave_the_model_unchanged(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: torch.ones_like(value) for name, value in before.items()}
    for wrong in (torch.ones(1, 7), torch.full((1, 2), torch.nan)):
        torch.save({**state, "1.weight": wrong}, tmp_path / "w")
        with pytest.raises(CheckpointError, match="1.weight"):
            load_pretrained_weights(model, tmp_path / "w")
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_messages_stay_shorter_than_a_screen(tmp_path):
    names = [f"{index}." * 200 for index in range(50)]
    torch.save({name: torch.ones(1) for name in names}, tmp_path / "w")
    many = nn.ModuleList(nn.Linear(3, 2) for _ in range(200))
    with pytest.raises(CheckpointError, match="and 4[0-9] more") as caught:
        load_pretrained_weights(many, tmp_path / "w")
    assert len(str(caught.value)) < 1000
    torch.save({name: torch.ones(1) for name in many.state_dict()}, tmp_path / "w")
    with pytest.raises(CheckpointError, match="size mismatch") as caught:
        load_pretrained_weights(many, tmp_path / "w")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["", "../model.pth.tar-1", "/", "x/", "\0", "\xff" * 2000])
def test_pointer_to_no_checkpoint(tmp_path, name):
    save_checkpoint(trained_state(), tmp_path)
    (tmp_path / "checkpoint").write_bytes(name.encode("latin-1"))
    with pytest.raises((CheckpointError, FileNotFoundError), match=str(tmp_path)) as caught:
        resume_from_checkpoint(tmp_path, learner())
    assert len(str(caught.value)) < 2000


def test_pointer_written_on_windows(tmp_path):
    save_checkpoint(trained_state(), tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"\xef\xbb\xbfmodel.pth.tar-1\r\n")
    assert resume_from_checkpoint(tmp_path, *run()) == 1


def test_layout_and_random_state(tmp_path):
    model = learner()
    set_random_seed(5)
    random.gauss(0, 1)
    np.random.randn()
    state = {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 2}
    save_checkpoint(state, tmp_path, is_best=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint", "model-best.pth.tar", "model.pth.tar-2"]
    assert (tmp_path / "checkpoint").read_text().strip() == "model.pth.tar-2"
    plain = torch.load(tmp_path / "model.pth.tar-2", weights_only=True)
    assert set(plain["state_dict"]) == {"weight", "bias"}
    expected = draw(), random.gauss(0, 1), np.random.randn()
    set_random_seed(6)
    assert resume_from_checkpoint(tmp_path, nn.Linear(3, 2)) == 2
    assert (draw(), random.gauss(0, 1), np.random.randn()) == expected


def test_model_name_leaves_the_resume_point(tmp_path):
    state = {"state_dict": learner().state_dict(), "epoch": 2}
    save_checkpoint(state, tmp_path)
    save_checkpoint({**state, "epoch": 3}, tmp_path, model_name="model-best.pth.tar")
    assert (tmp_path / "checkpoint").read_text().strip() == "model.pth.tar-2"


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"new, but")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["save", "name"])
def test_killed_between_writes(tmp_path, monkeypatch, step):
    state = {"state_dict": learner().state_dict(), "epoch": 1}
    save_checkpoint(state, tmp_path)
    replace = os.replace

    def killed(source, target):
        if os.path.basename(target) == ("model.pth.tar-2" if step == "save" else "checkpoint"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({**state, "epoch": 2}, tmp_path)
    assert resume_from_checkpoint(tmp_path, nn.Linear(3, 2)) == 1


def test_pretrained_weights_report(tmp_path, capsys):
    source = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    target = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    state = source.state_dict()
    state["1.running_mean"] = torch.ones(7)
    state["old"] = torch.ones(1)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w")
    load_pretrained_weights(target, tmp_path / "w")
    assert torch.equal(target[0].weight, source[0].weight)
    out = capsys.readouterr().out
    assert "* not in the file: 2.weight, 2.bias\n" in out
    assert "* not in the model: old\n" in out
    assert "kept as built: 1.running_mean\n" in out


def test_shape_mismatch_names_tensor_and_shapes(tmp_path):
    torch.save(nn.Linear(5, 2).state_dict(), tmp_path / "w")
    with pytest.raises(CheckpointError, match=r"weight.*\[2, 5\].*\[2, 3\]") as error:
        load_pretrained_weights(nn.Linear(3, 2), tmp_path / "w")
    assert str(tmp_path / "w") in str(error.value)


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "w")
    with pytest.raises(CheckpointError, match="weight"):
        load_pretrained_weights(nn.Linear(3, 2), tmp_path / "w")


def test_load_hooks_of_modules_see_the_names(tmp_path):
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.original = nn.Parameter(torch.zeros(2))
            self._register_load_state_dict_pre_hook(self._rename)  # public from torch 2.5 on

        def _rename(self, state, prefix, *args):
            if prefix + "ctx" in state:
                state[prefix + "original"] = state.pop(prefix + "ctx")

    torch.save({"ctx": torch.ones(2)}, tmp_path / "w")
    model = Renamed()
    load_pretrained_weights(model, tmp_path / "w")
    assert torch.equal(model.original, torch.ones(2))


def test_resume_refuses_another_model(tmp_path):
    save_checkpoint({"state_dict": learner().state_dict(), "epoch": 1}, tmp_path)
    with pytest.raises(CheckpointError, match="missing extra"):
        model = nn.Linear(3, 2)
        model.extra = nn.Parameter(torch.zeros(1))
        resume_from_checkpoint(tmp_path, model)
    with pytest.raises(CheckpointError, match="unexpected bias"):
        resume_from_checkpoint(tmp_path, nn.Linear(3, 2, bias=False))
