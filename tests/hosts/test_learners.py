"""Learners that do more with weights than an optimizer: averages and gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from qprompt import named_quantizers, quantize_, remove_
from qprompt.dassl import quantized


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("strict", [True, False])
def test_promptsrc_ends_with_the_quantized_average(host, monkeypatch, strict, epochs):
    quantized(host.trainers.PromptSRC)
    monkeypatch.setattr(host.trainers.PromptSRC, "strict", strict)
    options = {"BITS": 2, "INTERVAL": 3, "KL_THRESHOLD": 0.0, "OPTIM__MAX_EPOCH": epochs}
    run = host.build("QPromptSRC", **options)
    latents, update_lr = [], run.update_lr

    def remember():
        update_lr()
        latents.append(remove_(copy.deepcopy(run.model), keep_latent=True).state_dict())

    monkeypatch.setattr(run, "update_lr", remember)
    run.train()

    plain = remove_(copy.deepcopy(run.model), keep_latent=True)
    for name, weight in plain.state_dict().items():
        average = sum(
            factor * state[name] for factor, state in zip(run.gauss, latents, strict=True)
        )
        torch.testing.assert_close(weight, average, msg=name)
    assert epochs == 1 or not torch.equal(plain.image_encoder.VPT, latents[-1]["image_encoder.VPT"])
    quantize_(plain, 2)
    for (name, quantizer), (_, fresh) in zip(
        named_quantizers(run.model), named_quantizers(plain), strict=True
    ):
        if epochs > 1:
            assert torch.equal(quantizer.codebook, fresh.codebook), name
            assert torch.equal(quantizer.counts, fresh.counts), name
        assert quantizer.normalized == 1 and quantizer.fits.frac() == quantizer.steps.frac() == 0

    again = host.build("QPromptSRC", **options)
    again.load_model(run.output_dir, epoch=epochs)
    for (_, one), (_, other) in zip(
        named_quantizers(run.model), named_quantizers(again.model), strict=True
    ):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
    assert torch.equal(again.model.image_encoder.VPT, run.model.image_encoder.VPT)
    assert epochs == 1 or torch.equal(plain.image_encoder.VPT, run.model.image_encoder.VPT)


def test_prograd_projects_the_gradients_of_the_quantized_model(host):
    """The same projected step as a plain learner takes that holds the quantized values."""
    quantized(host.trainers.ProGrad)
    run, plain = host.build("QProGrad", BITS=2), host.build("ProGrad")
    learner = run.model.prompt_learner
    with torch.no_grad():
        plain.model.prompt_learner.ctx.copy_(learner.ctx)
    conflicts = 0
    for trainer in (run, plain):
        trainer.num_batches, trainer.batch_idx = 99, 0
    for batch in run.train_loader_x:
        run.forward_backward(batch)
        plain.forward_backward(batch)
        assert run.conflicts == plain.conflicts
        latent, other = learner.parametrizations.ctx.original, plain.model.prompt_learner.ctx
        assert torch.equal(latent.grad, other.grad)
        conflicts += sum(along < 0 for along in run.conflicts)
        with torch.no_grad():
            other.copy_(learner.ctx)
    assert conflicts, "no gradient was projected"
