from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from qprompt import (
    InvalidOptionError,
    InvalidWeightsError,
    NoParameterError,
    named_quantizers,
    quantize_,
    remove_,
    step_,
)

ALL = ["ctx", "deep.0", "deep.1", "deep.2", "proj.weight"]


def names(module):
    return sorted(name for name, _ in named_quantizers(module))


def latent(module, name="ctx"):
    return module.parametrizations[name].original


def test_default_is_every_trainable_tensor_with_two_dimensions(learner):
    assert quantize_(learner, 2) is learner
    assert names(learner) == ALL
    values = [learner.ctx, *learner.deep, learner.proj.weight]
    assert [len(value.unique()) for value in values] == [4] * 5


@pytest.mark.parametrize(
    "params, expected",
    [("ctx", ["ctx"]), (r"^deep\.[02]$", ["deep.0", "deep.2"]), ("bias", ["proj.bias"])],
)
def test_params_is_searched_in_qualified_names(learner, params, expected):
    quantize_(learner, params=params)
    assert names(learner) == expected
    outer = nn.ModuleDict({"prompt_learner": remove_(learner)})
    quantize_(outer, params=r"^prompt_learner\.ctx$")
    assert names(outer) == ["prompt_learner.ctx"]


def test_parameter_list_yields_quantized_tensors(learner):
    quantize_(learner, 1, params="deep")
    for read in (learner.deep[1], list(learner.deep)[1], learner.deep[-2], learner.deep[1:][0]):
        assert len(read.unique()) == 2 and torch.equal(read, learner.deep[1])
    assert len(learner.deep) == 3 and "2x32" in repr(learner)


def test_optimizer_built_before_trains_the_latent_weights(learner, train):
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=0.01)
    held = [id(p) for p in optimizer.param_groups[0]["params"]]
    ctx = learner.ctx
    before = ctx.detach().clone()
    quantize_(learner, 1)
    assert latent(learner) is ctx
    train(learner, 3, optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == held
    assert not torch.equal(ctx, before) and len(ctx.unique()) == ctx.numel()
    assert len(learner.ctx.unique()) == 2


def test_gradient_is_straight_through(learner, make_learner):
    x = torch.ones(1, 8)
    quantize_(learner, 2)
    plain = make_learner()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            owner, _, attribute = name.rpartition(".")
            parameter.copy_(getattr(learner.get_submodule(owner), attribute))
    assert torch.equal(learner(x), plain(x))
    learner(x).backward()
    plain(x).backward()
    assert torch.equal(latent(learner).grad, plain.ctx.grad)
    torch.testing.assert_close(latent(learner.deep, "1").grad, plain.deep[1].grad)
    assert torch.equal(latent(learner.proj, "weight").grad, plain.proj.weight.grad)


def test_only_step_changes_codebooks(learner, train):
    quantize_(learner, 2, interval=4, kl_threshold=0.0)
    books = {name: q.codebook.clone() for name, q in named_quantizers(learner)}
    train(learner, 3, after=lambda: learner.eval() and learner.ctx.shape and learner.train())
    for name, quantizer in named_quantizers(learner):
        assert torch.equal(books[name], quantizer.codebook)
    fitted = []
    train(learner, 12, after=lambda: fitted.append(step_(learner)))
    assert fitted[:3] == [0, 0, 0] and sum(fitted) > 0
    assert sum(fitted) == sum(int(q.fits) - 1 for _, q in named_quantizers(learner))


def test_training_twice_is_bit_identical(make_learner, train):
    runs = []
    for _ in range(2):
        module = quantize_(make_learner(), 2, interval=2, kl_threshold=0.0)
        train(module, 10, after=lambda module=module: step_(module))
        runs.append(module.state_dict())
    for key, tensor in runs[0].items():
        assert torch.equal(tensor, runs[1][key]), key


def test_whole_model_registration_leaves_frozen_weights_alone(learner):
    clip = nn.Linear(64, 64).requires_grad_(False)
    model = quantize_(nn.ModuleDict({"prompt_learner": learner, "image_encoder": clip}))
    assert names(model) == ["prompt_learner." + name for name in ALL]


def test_quantizing_twice(learner):
    quantize_(learner, 1, params="ctx")
    with pytest.raises(InvalidOptionError, match="quantized already: ctx; call remove_"):
        quantize_(learner, 1)
    assert names(learner) == ["ctx"]
    quantize_(learner, 4, params="proj.weight|deep")
    assert {name: q.bits for name, q in named_quantizers(learner)}["proj.weight"] == 4
    assert names(learner) == ALL


def test_nothing_matches(learner):
    with pytest.raises(NoParameterError, match=r"matching 'ctxx'.*ctx \(4, 64\), .*proj.bias"):
        quantize_(learner, params="ctxx")
    with pytest.raises(NoParameterError, match="none"):
        quantize_(learner.requires_grad_(False))


def test_bad_options_change_nothing(learner):
    before = set(learner.state_dict())
    with pytest.raises(InvalidOptionError, match="got 9"):
        quantize_(learner, bits=9)
    with pytest.raises(InvalidOptionError, match="regular expression, got '\\('"):
        quantize_(learner, params="(")
    with torch.no_grad():
        learner.proj.weight[0, 0] = float("nan")
    with pytest.raises(InvalidWeightsError, match="parameter 'proj.weight'"):
        quantize_(learner)
    assert set(learner.state_dict()) == before


def test_tied_parameters(learner):
    learner.other = nn.Module()
    learner.other.alias = learner.ctx
    with pytest.raises(InvalidOptionError, match="ctx, other.alias"):
        quantize_(learner)
    quantize_(learner, params="deep")


@pytest.mark.parametrize("keep_latent", [False, True])
def test_remove_restores_a_plain_module(learner, make_learner, train, keep_latent):
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.1)
    quantize_(learner, 2)
    train(learner, 2, optimizer=optimizer)
    kept, value = latent(learner), learner.ctx.detach().clone()
    if keep_latent:
        value = kept.detach().clone()
    assert remove_(learner, keep_latent) is learner
    assert type(learner) is type(make_learner()) and type(learner.deep) is nn.ParameterList
    assert learner.ctx is kept and torch.equal(learner.ctx, value)
    assert set(learner.state_dict()) == set(make_learner().state_dict())
    train(learner, 1, optimizer=optimizer)
    assert not torch.equal(learner.ctx, value)
    assert names(learner) == [] and not learner._load_state_dict_pre_hooks
    learner.load_state_dict(make_learner().state_dict())


def test_deep_copies_are_independent(learner, make_learner, train):
    quantize_(learner, 2, params="ctx|deep")
    twin = copy.deepcopy(learner)
    assert torch.equal(twin.ctx, learner.ctx) and latent(twin) is not latent(learner)
    value = learner.ctx.detach().clone()
    train(twin, 2, after=lambda: step_(twin))
    quantize_(twin, 1, params="proj.weight")
    assert torch.equal(learner.ctx, value) and "proj.weight" not in names(learner)
    remove_(twin)
    assert torch.equal(learner.ctx, value) and len(learner.deep[0].unique()) == 4
    another = copy.deepcopy(learner)
    another.load_state_dict(make_learner(seed=5).state_dict())
    assert not torch.equal(another.ctx, value) and torch.equal(learner.ctx, value)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("prefix", ["", "model.prompt_learner."])
def test_plain_checkpoint_is_loaded_and_fitted(learner, make_learner, strict, prefix):
    plain = make_learner(seed=7)
    state = OrderedDict((prefix + name, t) for name, t in plain.state_dict().items())
    model = learner
    for name in reversed(prefix.split(".")[:-1]):
        model = nn.ModuleDict({name: model})
    quantize_(model, 2, interval=1, kl_threshold=0.0)
    with torch.no_grad():
        latent(learner).mul_(torch.rand(4, 64))
    step_(model)
    result = model.load_state_dict(state, strict=strict)
    assert not result.missing_keys and not result.unexpected_keys
    assert prefix + "ctx" in state, "the caller's dictionary was changed"
    assert torch.equal(latent(learner), plain.ctx)
    quantize_(plain, 2)
    for (_, mine), (_, fresh) in zip(named_quantizers(model), named_quantizers(plain), strict=True):
        for name, tensor in fresh.state_dict().items():
            assert torch.equal(mine.state_dict()[name], tensor), name
    assert torch.equal(learner.ctx, plain.ctx)


def test_plain_checkpoint_of_another_precision(learner, make_learner):
    quantize_(learner.half(), 2)
    learner.load_state_dict(make_learner(seed=7).state_dict())
    fresh = quantize_(make_learner(seed=7), 2)
    assert learner.ctx.dtype == torch.float16 and torch.equal(learner.ctx.float(), fresh.ctx)
    for (_, mine), (_, other) in zip(
        named_quantizers(learner), named_quantizers(fresh), strict=True
    ):
        assert torch.equal(mine.codebook, other.codebook)


def test_quantized_checkpoint_keeps_its_codebook(learner, make_learner, train):
    quantize_(learner, 2, interval=2, kl_threshold=0.0)
    train(learner, 5, after=lambda: step_(learner))
    other = quantize_(make_learner(seed=3), 2, interval=2, kl_threshold=0.0)
    other.load_state_dict(learner.state_dict())
    x = torch.ones(1, 8)
    assert torch.equal(other(x), learner(x))
    for module in (learner, other):
        train(module, 5, after=lambda module=module: step_(module))
    assert torch.equal(other(x), learner(x))
    assert torch.equal(latent(other), latent(learner))


def test_checkpoints_that_do_not_fit(learner, make_learner):
    plain = make_learner().state_dict()
    quantize_(learner, 2)
    with pytest.raises(RuntimeError, match="size mismatch for parametrizations.ctx.original"):
        learner.load_state_dict({**plain, "ctx": torch.ones(2, 64)})
    with pytest.raises(InvalidOptionError, match="'ctx' was trained with bits=3, .* bits=2"):
        learner.load_state_dict(quantize_(make_learner(), 3).state_dict())
    with pytest.raises(InvalidWeightsError, match="'ctx'"):
        learner.load_state_dict({**plain, "ctx": torch.full((4, 64), float("nan"))})
    del plain["ctx"]
    assert "parametrizations.ctx.original" in learner.load_state_dict(plain, strict=False)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_conversion_after_attaching(learner, dtype):
    quantize_(learner, 4)
    value, books = learner.ctx.detach(), [q.codebook.clone() for _, q in named_quantizers(learner)]
    learner.to(dtype)
    assert learner.ctx.dtype == dtype and len(learner.ctx.float().unique()) <= 16
    torch.testing.assert_close(learner.ctx.float(), value, atol=2e-3, rtol=1e-2)
    for book, (_, quantizer) in zip(books, named_quantizers(learner), strict=True):
        assert torch.equal(book, quantizer.codebook)
    step_(learner)


@pytest.mark.parametrize("path", ["ctx", "proj.bias"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_latent_weights_in_full_precision(learner, dtype, path):
    """An optimizer that was built before moves them by steps that half precision would lose."""
    learner.to(dtype)
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-6)
    quantize_(learner, 2)
    prefix, _, name = path.rpartition(".")
    owner = learner.get_submodule(prefix)
    weight, start = latent(owner, name), latent(owner, name).detach().clone()
    assert weight.dtype == torch.float32 and getattr(owner, name).dtype == dtype
    getattr(owner, name).sum().backward()
    optimizer.step()
    torch.testing.assert_close(weight, start - 1e-6, rtol=0, atol=1e-8)
    value = getattr(owner, name).detach().clone()
    remove_(learner)
    assert getattr(owner, name) is weight and weight.dtype == weight.grad.dtype == dtype
    assert torch.equal(weight, value)


def test_latent_weights_can_be_kept_in_half_precision(learner):
    quantize_(learner.half(), 2).half()
    assert latent(learner).dtype == learner.ctx.dtype == torch.float16
    learner.ctx = torch.linspace(0, 1, 256).reshape(4, 64)
    assert latent(learner)[-1, -1] == 1 and len(learner.ctx.float().unique()) == 4


def test_half_latents_lose_the_steps_that_full_precision_keeps(make_learner):
    for half in (False, True):
        learner = quantize_(make_learner(), 2, params="ctx", half_latents=half)
        weight, start = latent(learner), latent(learner).detach().clone()
        assert weight.dtype == (torch.float16 if half else torch.float32)
        optimizer = torch.optim.SGD([weight], lr=1e-7)
        assert learner.ctx.dtype == torch.float32
        learner.ctx.sum().backward()
        optimizer.step()
        assert (weight == start).float().mean() == pytest.approx(float(half), abs=0.1)
        assert remove_(learner).ctx.dtype == torch.float32


def test_assignment_sets_the_latent_weights(learner):
    quantize_(learner, 1)
    held = latent(learner)
    learner.ctx = torch.linspace(0, 1, 256).reshape(4, 64)
    assert latent(learner) is held and held[-1, -1] == 1
    assert len(learner.ctx.unique()) == 2


def test_autocast_trains_and_keeps_the_values(learner):
    quantize_(learner, 2)
    value = learner.ctx.detach().clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(learner.ctx, value)
        loss = learner(torch.ones(1, 8))
    loss.backward()
    assert latent(learner).grad.abs().sum() > 0


def test_other_trainable_parameters_are_rounded_to_half_precision(learner, make_learner, train):
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=0.02)
    bias, frozen = learner.proj.bias, learner.frozen
    quantize_(learner, 1, params="ctx")
    train(learner, 3, optimizer=optimizer)
    latents = [
        latent(learner.proj, "bias"),
        latent(learner.proj, "weight"),
        latent(learner.deep, "1"),
    ]
    read = [learner.proj.bias, learner.proj.weight, learner.deep[1]]
    for weight, value in zip(latents, read, strict=True):
        assert torch.equal(value, weight.half().float()) and not torch.equal(value, weight)
    assert latents[0] is bias and bias.grad.abs().sum() > 0
    assert learner.frozen is frozen and names(learner) == ["ctx"]
    plain = make_learner(seed=7)
    result = learner.load_state_dict(plain.state_dict(), strict=True)
    assert not result.missing_keys and torch.equal(latents[1], plain.proj.weight)
    remove_(learner)
    assert learner.proj.bias is bias and type(learner.proj) is nn.Linear


def test_rounded_parameters_can_be_quantized_later(learner):
    weight = learner.proj.weight
    quantize_(learner, 1, params="ctx")
    quantize_(learner, 3, params="proj.weight")
    assert latent(learner.proj, "weight") is weight
    assert len(learner.proj.parametrizations.weight) == 1
    assert len(learner.proj.weight.unique()) == 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_is_idempotent_and_straight_through(dtype):
    module = nn.Linear(64, 64).to(dtype)
    with torch.no_grad():
        module.bias.copy_(torch.logspace(-9, 4, 64))
    quantize_(module, 1)
    once = module.bias.detach().clone()
    assert once.dtype == dtype and torch.equal(once, once.half().to(dtype))
    module.bias = once
    assert torch.equal(module.bias, once)
    module.bias.sum().backward()
    assert torch.equal(latent(module, "bias").grad.to(dtype), torch.ones_like(once))
