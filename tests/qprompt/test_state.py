"""State dicts that were averaged, cast or written by an earlier release."""

from __future__ import annotations

import copy

import pytest
import torch

from qprompt import InvalidOptionError, named_quantizers, quantize_, refit_, remove_, step_


def trained(make_learner, train, seed=0, **options):
    options = {"bits": 2, "interval": 2, "kl_threshold": 0.0, **options}
    module = quantize_(make_learner(seed=seed), **options)
    train(module, 5, after=lambda: step_(module))
    return module


def summed(states, weights):
    """As PromptSRC does it: entry by entry, whatever the entry is."""
    total = {key: value * weights[0] for key, value in states[0].items()}
    for state, weight in zip(states[1:], weights[1:], strict=True):
        total = {key: total[key] + value * weight for key, value in state.items()}
    return total


def averaged_in_place(states, weights):
    average = copy.deepcopy(states[0])
    for state in states[1:]:
        for key, value in average.items():
            value.mul_(0.75).add_(state[key], alpha=0.25)
    return average


def averaged_by_name(states, weights):
    """Averages what it takes for weights and copies the rest from the last."""
    average = averaged_in_place(states, weights)
    return {key: average[key] if "original" in key else states[-1][key] for key in average}


def halved(states, weights):
    return {key: value.half() for key, value in states[0].items()}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("combine", [summed, averaged_in_place, averaged_by_name, halved])
def test_codebooks_are_fitted_to_combined_weights(make_learner, train, combine, normalize, strict):
    modules = [trained(make_learner, train, seed, normalize=normalize) for seed in range(3)]
    state = combine([module.state_dict() for module in modules], [0.2, 0.3, 0.4999999])
    target = modules[-1]
    fits = {name: int(quantizer.fits) for name, quantizer in named_quantizers(target)}
    result = target.load_state_dict(state, strict=strict)
    assert not result.missing_keys and not result.unexpected_keys

    latent = remove_(copy.deepcopy(target), keep_latent=True)
    assert torch.equal(latent.ctx, state["parametrizations.ctx.original"].float())
    fresh = quantize_(latent, 2, normalize=normalize)
    for (name, quantizer), (_, other) in zip(
        named_quantizers(target), named_quantizers(fresh), strict=True
    ):
        assert torch.equal(quantizer.codebook, other.codebook)
        assert torch.equal(quantizer.counts, other.counts)
        assert int(quantizer.steps) == 0 and int(quantizer.fits) == fits[name] + 1
        assert bool(quantizer.normalized) == normalize
    x = torch.ones(1, 8)
    assert torch.equal(target(x), fresh(x))

    again = trained(make_learner, train, 7, normalize=normalize)
    again.load_state_dict(target.state_dict())
    assert torch.equal(again(x), target(x))


def test_unchanged_weights_keep_their_codebook(make_learner, train):
    module = trained(make_learner, train, interval=4)
    other = trained(make_learner, train, 1)
    other.load_state_dict({key: value * 1.0 for key, value in module.state_dict().items()})
    books = [dict(named_quantizers(m))["ctx"] for m in (module, other)]
    assert torch.equal(books[0].codebook, books[1].codebook) and books[1].steps == 1
    refit_(module)
    assert not torch.equal(books[0].codebook, books[1].codebook), "any fit would do"


def test_average_of_parameters_alone(make_learner, train):
    modules = [trained(make_learner, train, seed) for seed in range(2)]
    average = {
        name: (one + other).detach() / 2
        for (name, one), other in zip(
            modules[0].named_parameters(), modules[1].parameters(), strict=True
        )
    }
    modules[0].load_state_dict(average, strict=False)
    fresh = quantize_(remove_(copy.deepcopy(modules[0]), keep_latent=True), 2)
    x = torch.ones(1, 8)
    assert torch.equal(modules[0](x), fresh(x))


def test_weights_that_were_quantized_are_not_taken_as_rounded(make_learner, train):
    state = trained(make_learner, train).state_dict()
    fewer = quantize_(make_learner(), 2, params="ctx")
    with pytest.raises(InvalidOptionError, match="'deep.0' was quantized .* same `params`"):
        fewer.load_state_dict(state, strict=False)


def test_state_of_the_first_release_loads(make_learner, train):
    """It had integers and no checksum."""
    module = trained(make_learner, train, interval=4)
    state = {
        key: value.long() if key.endswith(("counts", "steps", "fits", "normalized")) else value
        for key, value in module.state_dict().items()
        if not key.endswith("checksum")
    }
    other = trained(make_learner, train, 1)
    other.load_state_dict(state, strict=True)
    for key, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_teacher_that_averages_parameters(make_learner, train):
    student = trained(make_learner, train)
    teacher = copy.deepcopy(student)
    train(student, 5)
    with torch.no_grad():
        for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            mine.lerp_(theirs, 0.3)
    assert refit_(teacher) is teacher
    fresh = quantize_(remove_(copy.deepcopy(teacher), keep_latent=True), 2)
    x = torch.ones(1, 8)
    assert torch.equal(teacher(x), fresh(x)) and not torch.equal(teacher(x), student(x))
