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


def test_every_truncation_is_a_checkpoint_error(tmp_path):
    path = tmp_path / "model.pth.tar-1"
    torch.save(upstream_state()[1], path)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="model.pth.tar-1.*truncated"):
            load_checkpoint(path)
    path.write_text("not a checkpoint")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")


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
