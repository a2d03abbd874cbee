"""Gaussian noise on weights while they train."""

import pytest
import torch

from qprompt import InvalidOptionError, add_noise_, draw_noise_, remove_


def test_noise_is_drawn_once_a_step_and_off_in_evaluation(learner):
    plain = learner.ctx.detach().clone()
    add_noise_(learner, 0.1)
    draw_noise_(learner)
    first = learner.ctx
    assert torch.equal(first, learner.ctx) and not torch.equal(first, plain)
    draw_noise_(learner)
    assert not torch.equal(first, learner.ctx)
    learner.eval()
    assert torch.equal(learner.ctx, plain)


@pytest.mark.parametrize("relative", [False, True])
def test_std_is_that_of_the_noise_or_a_fraction_of_the_weights_deviation(relative):
    module = torch.nn.Linear(200, 300)
    plain = module.weight.detach().clone()
    add_noise_(module, 0.5, relative=relative)
    torch.manual_seed(0)
    draw_noise_(module)
    expected = 0.5 * float(plain.std()) if relative else 0.5
    assert float((module.weight - plain).detach().std()) == pytest.approx(expected, rel=0.02)


def test_gradient_passes_and_the_state_is_that_of_the_plain_module(learner, make_learner):
    plain = make_learner()
    add_noise_(learner, 0.01)
    draw_noise_(learner)
    learner.ctx.sum().backward()
    assert torch.equal(learner.parametrizations.ctx.original.grad, torch.ones(4, 64))
    assert learner.state_dict().keys() == plain.state_dict().keys()
    other = add_noise_(make_learner(seed=1), 0.01)
    other.load_state_dict(learner.state_dict())
    plain.load_state_dict(other.state_dict())
    assert torch.equal(plain.ctx, learner.eval().ctx)
    assert type(remove_(other)) is type(plain) and torch.equal(other.ctx, plain.ctx)


def test_half_precision_is_read_and_the_latent_weights_are_in_full(learner):
    add_noise_(learner.half(), 0.01)
    draw_noise_(learner)
    learner.ctx.sum().backward()
    latent = learner.parametrizations.ctx.original
    assert learner.ctx.dtype == learner.eval().ctx.dtype == torch.float16
    assert latent.dtype == latent.grad.dtype == torch.float32


def test_no_noise_draws_no_random_numbers(learner):
    plain = learner.ctx.detach().clone()
    add_noise_(learner, 0.0)
    before = torch.get_rng_state()
    draw_noise_(learner)
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(learner.ctx, plain)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_a_wrong_std_is_named(learner, std):
    with pytest.raises(InvalidOptionError, match=f"noise_std must be a number >= 0, got {std}"):
        add_noise_(learner, std)
    assert not hasattr(learner, "parametrizations")
