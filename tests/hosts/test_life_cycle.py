"""What a host's trainers do in their lives, quantized: each learner on each engine."""

from __future__ import annotations

import importlib
import json
import os

import pytest
import torch

from qprompt import named_quantizers, quantize_, read_metadata, step_, unpack
from qprompt.dassl import quantized

ADAPTIVE = {"BITS": 2, "INTERVAL": 2, "KL_THRESHOLD": 0.0}
TRAINERS = ["CoOp", "CoCoOp", "ProGrad", "MaPLe", "PromptSRC"]
with_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, "GradScaler"), reason="this torch has no GradScaler for the CPU"
)


@pytest.fixture(params=TRAINERS)
def learner(request, host):
    """The name of a learner whose counterpart is registered."""
    quantized(getattr(host.trainers, request.param))
    return request.param


def registered(run):
    model = getattr(run.model, "module", run.model)
    return model.prompt_learner if run.name == "prompt_learner" else model


def values(run):
    """What the model reads of its quantized parameters, by name."""
    module, found = registered(run), {}
    for name, _ in named_quantizers(module):
        owner, _, attribute = name.rpartition(".")
        found[name] = getattr(module.get_submodule(owner), attribute).detach().clone()
    return found


@torch.no_grad()
def logits(run):
    run.set_model_mode("eval")
    return torch.cat([run.model_inference(batch["img"]) for batch in run.test_loader])


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def equal(learner, one, other):
    """To the last bit, but that PromptSRC's sum rounds the frozen token vectors, too."""
    if learner == "PromptSRC":
        return torch.allclose(one, other, atol=1e-2 if one.dtype == torch.float16 else 1e-4)
    return torch.equal(one, other)


def folder(run):
    return os.path.join(run.output_dir, run.name)


@pytest.mark.parametrize("mode", ["qat", "ptq"])
@pytest.mark.parametrize("final", ["last_step", "best_val"])
def test_evaluation_repeats_what_training_ended_with(host, learner, mode, final, capsys):
    options = {**ADAPTIVE, "MODE": mode, "TEST__FINAL_MODEL": final}
    run = host.build("Q" + learner, **options)
    start = values(run)
    run.train()
    expected = logits(run)
    assert not start or final == "best_val" or not same(values(run), start)
    assert all(len(value.unique()) <= 4 for value in values(run).values())

    again = host.build("Q" + learner, "evaluation", **options)
    again.load_model(run.output_dir, epoch=None if final == "best_val" else 3)
    assert same(values(again), values(run)) and equal(learner, logits(again), expected)
    file, checkpoint = "prompt.safetensors", "model.pth.tar-3"
    if final == "best_val":
        file, checkpoint = "prompt-best.safetensors", "model-best.pth.tar"
    file, checkpoint = (os.path.join(folder(run), name) for name in (file, checkpoint))
    packed = unpack(file)
    assert same({name: packed[name] for name in values(run)}, values(run))
    plain = registered(host.build(learner, "plain")).named_parameters()
    assert packed.keys() == {name for name, weight in plain if weight.requires_grad}
    epoch = torch.load(checkpoint, weights_only=False)["epoch"]
    metadata = read_metadata(file)
    node = {"CTX_INIT": "a photo of a", "N_CTX": 4}
    assert json.loads(metadata.pop("settings")) == {
        getattr(host.trainers, learner).node: node,
        "QPROMPT": {"BITS": ADAPTIVE["BITS"], "MODE": mode},
    }
    prepared = json.loads(metadata.pop("input"))
    assert prepared["size"] == [224, 224] and prepared["std"] == [1, 1, 1]
    assert json.loads(metadata.pop("classnames")) == run.dm.dataset.classnames
    assert metadata.pop("seed") == "1"
    assert metadata == {
        "trainer": "Q" + learner,
        "backbone": "miniature",
        "ctx_init": "a photo of a",
        "epoch": str(epoch),
    }
    again.test()
    assert "accuracy: " in capsys.readouterr().out.split("=> result")[-1]


@pytest.mark.parametrize("learner", TRAINERS[:-1], indirect=True)  # PromptSRC forgets its sum
def test_resumed_in_the_middle_it_ends_as_undisturbed(host, learner, monkeypatch):
    whole = host.build("Q" + learner, "whole", **ADAPTIVE)
    whole.train()
    cut = host.build("Q" + learner, "cut", **ADAPTIVE)

    def interrupt():
        if cut.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cut, "before_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = host.build("Q" + learner, "cut", **ADAPTIVE)
    resumed.train()
    assert resumed.start_epoch == 2
    assert same(registered(resumed).state_dict(), registered(whole).state_dict())


def old_checkpoint(run, directory):
    """The layout of upstream's checkpoints: other classes' token vectors, a pickled scheduler."""
    state = dict(registered(run).state_dict())
    for name in [name for name in state if name.endswith(("token_prefix", "token_suffix"))]:
        state[name] = torch.zeros(7, 5, state[name].shape[-1])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, float)
    checkpoint = {"state_dict": state, "epoch": 50, "optimizer": {}}
    path = directory / run.name / "model.pth.tar-50"
    path.parent.mkdir(parents=True)
    torch.save({**checkpoint, "scheduler": {"last_epoch": 50, "successor": scheduler}}, path)
    return str(path)


@pytest.mark.parametrize("way", ["load_model", "INIT_WEIGHTS"])
def test_checkpoint_of_the_plain_trainer(host, learner, way, tmp_path, capsys):
    plain = host.build(learner, "plain")
    plain.train()
    path = old_checkpoint(plain, tmp_path / "old")
    init = {"MODEL__INIT_WEIGHTS": path} if way == "INIT_WEIGHTS" else {}
    run = host.build("Q" + learner, BITS=2, **init)
    if not init:
        capsys.readouterr()
        run.load_model(str(tmp_path / "old"), epoch=50)
        printed = capsys.readouterr().out
        for name in values(run):
            line = f"QPrompt: {name}, bits=2, codebook=kmeans, normalize=True, fits="
            assert line in printed
    learned = {name: p for name, p in registered(plain).named_parameters() if p.requires_grad}
    quantize_(registered(plain), 2)
    assert same(values(run), values(plain))
    held = {id(p) for group in run.optim.param_groups for p in group["params"]}
    latent = {name: p for name, p in registered(run).named_parameters() if p.requires_grad}
    assert len(latent) == len(learned) and {id(p) for p in latent.values()} <= held
    for name, weight in latent.items():
        plain_name = name.replace("parametrizations.", "").replace(".original", "")
        assert torch.equal(weight, learned[plain_name])


def test_the_plain_trainer_evaluates_a_quantized_checkpoint(host, learner, tmp_path):
    run = host.build("Q" + learner, **ADAPTIVE)
    run.train()
    plain = host.build(learner, "plain")
    plain.load_model(run.output_dir, epoch=3)
    assert equal(learner, logits(plain), logits(run))
    path = os.path.join(folder(run), "model.pth.tar-3")
    again = host.build("Q" + learner, BITS=2, MODEL__INIT_WEIGHTS=path)
    assert same(values(again), values(run))


def test_evaluation_of_initial_weights_is_quantized_after_training_too(host, tmp_path):
    quantized(host.trainers.CoOp)
    plain = host.build("CoOp", "plain")
    path = old_checkpoint(plain, tmp_path / "old")
    run = host.build("QCoOp", BITS=2, MODE="ptq", MODEL__INIT_WEIGHTS=path)
    run.load_model("")
    assert same(values(run), values(host.build("QCoOp", BITS=2, MODEL__INIT_WEIGHTS=path)))


@pytest.mark.parametrize("learner", ["CoOp", "CoCoOp", "MaPLe", "PromptSRC"], indirect=True)
@pytest.mark.parametrize("prec", ["fp16", pytest.param("amp", marks=with_scaler)])
def test_precisions(host, learner, prec):
    node = f"TRAINER__{host.trainers.__dict__[learner].node}__PREC"
    if prec == "fp16":
        try:
            torch.ones(2, 2).half() @ torch.ones(2, 2).half()
        except RuntimeError:
            pytest.skip("this torch does not multiply half-precision matrices on the CPU")
    run = host.build("Q" + learner, **ADAPTIVE, **{node: prec})
    start = values(run)
    run.train()
    end = values(run)
    dtype = torch.float16 if prec == "fp16" else torch.float32
    for value in end.values():
        assert value.dtype == dtype and value.isfinite().all()
        assert len(value.float().unique()) <= 4
    assert not same(start, end)
    assert all(p.dtype == torch.float32 for p in registered(run).parameters() if p.requires_grad)
    packed = unpack(os.path.join(folder(run), "prompt.safetensors"))
    assert same({name: packed[name] for name in end}, end)
    again = host.build("Q" + learner, **ADAPTIVE, **{node: prec})
    again.load_model(run.output_dir, epoch=3)
    assert same(values(again), end) and equal(learner, logits(again), logits(run))


@with_scaler
def test_step_that_the_scaler_skips_moves_nothing(host):
    quantized(host.trainers.MaPLe)
    options = {"BITS": 2, "INTERVAL": 1, "KL_THRESHOLD": 0.0, "TRAINER__MAPLE__PREC": "amp"}
    run = host.build("QMaPLe", **options)
    run.num_batches, run.batch_idx = 9, 0
    run.set_model_mode("train")
    sound, run.scaler = run.scaler, torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    summary = run.forward_backward(run.train_loader_x[0])
    after = run.model.state_dict()
    assert run.scaler.get_scale() < 2.0**127 and summary["refits"] == 0
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.endswith(".steps") for name in changed)
    run.scaler = sound
    run.forward_backward(run.train_loader_x[0])
    latent = "prompt_learner.parametrizations.ctx.original"
    assert not torch.equal(before[latent], run.model.state_dict()[latent])


def test_conversion_after_attaching(host, learner):
    run = host.build("Q" + learner, BITS=2)
    before = values(run)
    for value in before.values():
        assert torch.equal(value.half().float(), value)
    books = {name: q.codebook.clone() for name, q in named_quantizers(registered(run))}
    run.model.half()
    halved = values(run)
    run.model.float()
    for name, quantizer in named_quantizers(registered(run)):
        assert torch.equal(quantizer.codebook, books[name])
        assert halved[name].dtype == torch.float16 and len(halved[name].float().unique()) <= 4
        torch.testing.assert_close(values(run)[name], before[name], atol=1e-3, rtol=1e-2)
    run.train()


def replicas(module, number, monkeypatch):
    """What nn.DataParallel makes of a module for its devices, all of them the CPU."""
    code = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors, devices, detach=False):
        return [[t.detach().clone() if detach else t * 1 for t in tensors] for _ in devices]

    monkeypatch.setattr(code, "_broadcast_coalesced_reshape", broadcast)
    monkeypatch.setattr(code, "_get_device_index", lambda device, *_: device)
    return code.replicate(module, list(range(number)))


def test_replicas_of_data_parallel(host, learner, monkeypatch):
    run = host.build("Q" + learner, **ADAPTIVE)
    run.set_model_mode("eval")
    image = run.test_loader[0]["img"]
    whole = run.model(image)
    module = registered(run)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    whole.sum().backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    gradients = [p.grad.clone() for p in trained]
    module.zero_grad(set_to_none=True)

    pieces = zip(replicas(run.model, 2, monkeypatch), image.chunk(2), strict=True)
    parts = torch.cat([replica(piece) for replica, piece in pieces])
    torch.testing.assert_close(parts, whole)
    parts.sum().backward()
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)
    assert same(module.state_dict(), before)
    step_(module)
    assert all(int(quantizer.steps) == 1 for _, quantizer in named_quantizers(module))


def test_trainer_that_wraps_its_model(host, learner, monkeypatch):
    monkeypatch.setattr(host.trainers.PromptTrainer, "devices", 2)
    single = host.build("Q" + learner, "single", **ADAPTIVE)
    assert isinstance(single.model, torch.nn.DataParallel)
    single.train()
    monkeypatch.setattr(host.trainers.PromptTrainer, "devices", 1)
    again = host.build("Q" + learner, "again", **ADAPTIVE)
    again.load_model(single.output_dir, epoch=3)
    assert same(values(again), values(single))
    assert equal(learner, logits(again), logits(single))
