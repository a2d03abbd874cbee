import math

import pytest
import torch
from torch import nn

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler
from dassl.utils import UnknownNameError, UserError


def make(**settings):
    cfg = get_cfg_default().OPTIM
    for key, value in {"NAME": "sgd", "LR": 0.1, "MAX_EPOCH": 8, **settings}.items():
        cfg[key] = value
    return cfg


def curve(cfg, epochs=9):
    param = nn.Parameter(torch.zeros(2))
    optim = build_optimizer([param], cfg)
    sched = build_lr_scheduler(optim, cfg)
    rates = []
    for _ in range(epochs):
        rates.append(optim.param_groups[0]["lr"])
        param.grad = torch.ones(2)
        optim.step()
        sched.step()
    return rates


def torch_curve(make_sched, epochs=9):
    optim = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    sched = make_sched(optim)
    rates = []
    for _ in range(epochs):
        rates.append(optim.param_groups[0]["lr"])
        optim.step()
        sched.step()
    return rates


def test_nesterov_needs_momentum():
    with pytest.raises(UserError, match="SGD_NESTEROV needs MOMENTUM above 0.* got 0.0 and 0.0"):
        curve(make(SGD_NESTEROV=True, MOMENTUM=0.0))


SCHEDULES = {
    "cosine": ({}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8)),
    "single_step": ({"STEPSIZE": (3,)}, lambda o: torch.optim.lr_scheduler.StepLR(o, 3)),
    "multi_step": (
        {"STEPSIZE": (2, 5)},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5]),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [-1, 0, 1, 3])
@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("recount", [True, False])
def test_schedules_agree_with_torch(name, warmup, kind, recount):
    settings, oracle = SCHEDULES[name]
    settings = {"LR_SCHEDULER": name, "WARMUP_EPOCH": warmup, "WARMUP_TYPE": kind, **settings}
    rates = curve(make(**settings, WARMUP_RECOUNT=recount))
    expected = torch_curve(oracle)
    warmup = max(warmup, 0)
    linear = [1e-5, *(0.1 * e / warmup for e in range(1, warmup))] if warmup else []
    head = [1e-5] * warmup if kind == "constant" else linear
    tail = expected[: 9 - warmup] if recount else expected[warmup:]
    assert rates == pytest.approx(head + tail, abs=1e-12)
    if recount:
        warm_up = {"constant": ConstantWarmupScheduler, "linear": LinearWarmupScheduler}[kind]
        assert torch_curve(lambda o: warm_up(o, oracle(o), warmup, 1e-5)) == pytest.approx(rates)


def test_coop_setting():
    rates = curve(make(LR_SCHEDULER="cosine", WARMUP_EPOCH=1, WARMUP_TYPE="constant"), 3)
    cosine = 0.1 * (1 + math.cos(math.pi / 8)) / 2
    assert rates == pytest.approx([1e-5, 0.1, cosine])


def test_single_step_without_stepsize_is_constant():
    assert curve(make(), 8) == [0.1] * 8


def test_state_is_plain_and_restores():
    cfg = make(LR_SCHEDULER="cosine")
    optim = build_optimizer([nn.Parameter(torch.zeros(1))], cfg)
    sched = build_lr_scheduler(optim, cfg)
    assert sched.state_dict() == {"last_epoch": 0}
    sched.load_state_dict({"last_epoch": 4})
    assert optim.param_groups[0]["lr"] == pytest.approx(0.05)
    assert sched.get_last_lr() == [optim.param_groups[0]["lr"]]


@pytest.mark.parametrize("epochs", [1, 4])
def test_the_state_of_a_warm_up_restores(epochs, tmp_path):
    def start():
        optim = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 8)
        return optim, LinearWarmupScheduler(optim, cosine, 2, 1e-5)

    def go_on(optim, sched):
        rates = []
        for _ in range(4):
            optim.step()
            sched.step()
            rates.append(optim.param_groups[0]["lr"])
        return rates

    optim, sched = start()
    for _ in range(epochs):
        optim.step()
        sched.step()
    states = {"optim": optim.state_dict(), "sched": sched.state_dict()}
    torch.save(states, tmp_path / "states")
    states = torch.load(tmp_path / "states", weights_only=True)
    again, sched_again = start()
    again.load_state_dict(states["optim"])
    sched_again.load_state_dict(states["sched"])
    assert go_on(again, sched_again) == pytest.approx(go_on(optim, sched))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("amsgrad", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("radam", torch.optim.RAdam),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_optimizers(name, kind):
    model = nn.Linear(2, 2)
    optim = build_optimizer(model, make(NAME=name, WEIGHT_DECAY=0.0))
    assert type(optim) is kind
    assert optim.defaults.get("amsgrad", False) is (name == "amsgrad")
    params = optim.param_groups[0]["params"]
    assert all(p is q for p, q in zip(params, model.parameters(), strict=True))
    before = model(torch.ones(1, 2)).sum()
    before.backward()
    optim.step()
    assert model(torch.ones(1, 2)).sum() < before


def test_parameter_groups():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optim = build_optimizer([{"params": [a]}, {"params": [b], "lr": 0.5}], make())
    assert [group["lr"] for group in optim.param_groups] == [0.1, 0.5]


def test_bad_input():
    with pytest.raises(UnknownNameError, match="sdg.*sgd"):
        build_optimizer(nn.Linear(1, 1), make(NAME="sdg"))
    with pytest.raises(ValueError, match="no parameters"):
        build_optimizer(nn.ReLU(), make())
    for settings in ({"LR_SCHEDULER": "cos"}, {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "cos"}):
        with pytest.raises(UnknownNameError, match="cos"):
            curve(make(**settings))
