"""What the mixin reads, writes and reports, besides training."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from qprompt import (
    InvalidOptionError,
    NoParameterError,
    named_quantizers,
    read_metadata,
    unpack,
)
from qprompt.dassl import quantized


def files(directory, model="prompt_learner"):
    return sorted(name for name in os.listdir(os.path.join(directory, model)) if "prompt" in name)


def test_bad_options_are_found_before_anything_is_built(host, monkeypatch):
    quantized(host.trainers.CoOp)
    monkeypatch.setattr(
        host.trainers.CoOp, "build_data_loader", lambda self: pytest.fail("data were loaded")
    )
    with pytest.raises(InvalidOptionError, match="TRAINER.QPROMPT: bits .* got 9"):
        host.build("QCoOp", BITS=9)
    with pytest.raises(InvalidOptionError, match="HALF_LATENTS is set and PREC is amp"):
        host.build("QCoOp", HALF_LATENTS=True, TRAINER__COOP__PREC="amp")


def test_params_choose_what_is_quantized(host):
    quantized(host.trainers.MaPLe)
    run = host.build("QMaPLe", PARAMS=r"ctx|proj\.weight")
    found = {name for name, _ in named_quantizers(run.model)}
    assert found == {"prompt_learner.ctx", "prompt_learner.proj.weight"}
    with pytest.raises(NoParameterError, match="matching 'deep'.*ctx"):
        host.build("QMaPLe", PARAMS="deep")


def test_post_training_quantization_trains_and_saves_the_plain_model(host):
    quantized(host.trainers.CoOp)
    run, plain = host.build("QCoOp", BITS=2, MODE="ptq"), host.build("CoOp", "plain")
    for trainer in (run, plain):
        trainer.train()
    saved, expected = (
        torch.load(
            os.path.join(trainer.output_dir, "prompt_learner", "model.pth.tar-3"),
            weights_only=False,
        )["state_dict"]
        for trainer in (run, plain)
    )
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], expected[key]) for key in saved)
    image = run.test_loader[0]["img"]
    assert not torch.equal(run.model_inference(image), plain.model_inference(image))


def test_saving_for_ptq_leaves_the_weights_as_they_were(host):
    quantized(host.trainers.CoOp)
    run = host.build("QCoOp", MODE="ptq")
    learner = run.model.prompt_learner
    weights, value = learner.ctx, learner.ctx.detach().clone()
    run.save_model(0, run.output_dir)
    assert learner.ctx is weights and torch.equal(weights, value)
    path = os.path.join(run.output_dir, "prompt_learner", "prompt.safetensors")
    assert len(unpack(path)["ctx"].unique()) == 2


def test_best_checkpoint_has_a_packed_prompt_of_its_own(host, tmp_path):
    quantized(host.trainers.CoOp)
    run = host.build("QCoOp")
    run.save_model(0, str(tmp_path / "last"))
    run.save_model(0, str(tmp_path / "both"), is_best=True)
    run.save_model(0, str(tmp_path / "positional"), True)
    run.save_model(0, str(tmp_path / "best"), val_result=1.0, model_name="model-best.pth.tar")
    assert files(tmp_path / "last") == ["prompt.safetensors"]
    both = ["prompt-best.safetensors", "prompt.safetensors"]
    assert files(tmp_path / "both") == files(tmp_path / "positional") == both
    assert files(tmp_path / "best") == ["prompt-best.safetensors"]


def test_killed_before_its_last_checkpoint_it_ends_with_all_files(host, monkeypatch):
    quantized(host.trainers.CoOp)
    run = host.build("QCoOp")
    save_model = host.trainers.CoOp.save_model

    def killed(self, epoch, *args, **kwargs):
        if epoch == 2:
            raise KeyboardInterrupt
        save_model(self, epoch, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(host.trainers.CoOp, "save_model", killed)
        run.train()
    path = os.path.join(run.output_dir, "prompt_learner", "prompt.safetensors")
    assert read_metadata(path)["epoch"] == "3", "written before the checkpoint"
    again = host.build("QCoOp")
    again.train()
    assert again.start_epoch == 2 and files(run.output_dir) == ["prompt.safetensors"]


def test_prompts_that_are_gone_or_stale_are_packed_again(host):
    quantized(host.trainers.CoOp)
    run = host.build("QCoOp")
    run.train()
    path = os.path.join(run.output_dir, "prompt_learner", "prompt.safetensors")
    with open(path, "rb") as file:
        whole = file.read()
    host.build("QCoOp").save_model(0, run.output_dir)
    with open(path, "rb") as file:
        stale = file.read()
    with open(os.path.join(run.output_dir, "prompt_learner", "checkpoint"), "w") as file:
        file.write("model.pth.tar-3\n")
    for content in (stale, whole[:100], None):
        if content is None:
            os.unlink(path)
        else:
            with open(path, "wb") as file:
                file.write(content)
        host.build("QCoOp").train()
        with open(path, "rb") as file:
            assert file.read() == whole


def test_packed_prompt_of_a_host_that_saves_elsewhere(host, monkeypatch, tmp_path):
    quantized(host.trainers.CoOp)
    run = host.build("QCoOp")
    monkeypatch.setattr(host.trainers.CoOp, "save_model", lambda *_, **__: None)
    run.save_model(0, str(tmp_path / "elsewhere"), False, 1.0, "model-best.pth.tar")
    assert files(tmp_path / "elsewhere") == ["prompt-best.safetensors"]


def test_checkpoint_without_the_prompt_is_reported(host, capsys):
    quantized(host.trainers.MaPLe)
    run = host.build("QMaPLe")
    run.model.load_state_dict({"prompt_learner.proj.bias": torch.ones(12)}, strict=False)
    report = capsys.readouterr().out.partition("the checkpoint lacks ")[2]
    missing = set(report.partition(";")[0].split(", "))
    trainable = {name for name, weight in run.model.named_parameters() if weight.requires_grad}
    assert missing == trainable - {"prompt_learner.proj.parametrizations.bias.original"}


def test_refits_are_counted_and_summed_up(host, monkeypatch):
    quantized(host.trainers.MaPLe)
    run = host.build("QMaPLe", BITS=2, INTERVAL=5, KL_THRESHOLD=0.0)
    refits, forward_backward = [], run.forward_backward

    def remember(batch):
        summary = forward_backward(batch)
        refits.append(summary["refits"])
        return summary

    monkeypatch.setattr(run, "forward_backward", remember)
    run.train()
    assert all(type(number) is float for number in refits)
    assert refits[:4] == [0.0] * 4 and sum(refits) > 0
    summary = run.run_summary()
    assert summary["codebook_fits"] == sum(refits) + 6
    weights, biases = 3 * 4 * 16 + 3 * 16 * 12, 3 * 12
    assert summary["stored_bytes"] == weights * 2 // 8 + 6 * 4 * 2 + biases * 2
    assert summary["bits"] == 2


def test_summary_of_a_step_gains_the_number_of_refits(host):
    quantized(host.trainers.CoOp)
    quantized(host.trainers.ProGrad)
    for name, mode, keys in (
        ("QCoOp", "qat", {"loss", "refits"}),
        ("QCoOp", "ptq", {"loss"}),
        ("QProGrad", "qat", {"refits"}),
    ):
        run = host.build(name, MODE=mode)
        run.num_batches, run.batch_idx = 9, 0
        summary = run.forward_backward(run.train_loader_x[0])
        assert set(summary) == keys and summary.get("refits", 0.0) == 0.0


def test_summary_extends_that_of_the_host(host, monkeypatch):
    quantized(host.trainers.CoOp)
    inherited = {"stored_bytes": 7, "more": 1}
    monkeypatch.setattr(host.trainers.CoOp, "run_summary", lambda self: inherited, raising=False)
    summary = host.build("QCoOp").run_summary()
    assert summary["more"] == 1 and summary["stored_bytes"] > 7
    unquantized = host.build("QCoOp", MODE="ptq")
    assert unquantized.run_summary() == {**inherited, "bits": None}


def test_packed_prompt_names_the_context_of_the_nearest_node(host):
    class Other(host.trainers.WholeModel):
        node, build_custom_clip = "MAPLE", host.trainers.MaPLe.build_custom_clip

    host.registry.register()(Other)
    for plain in (host.trainers.CoOp, host.trainers.ProGrad, host.trainers.MaPLe, Other):
        quantized(plain)
    options = {"TRAINER__COOP__CTX_INIT": "", "TRAINER__MAPLE__CTX_INIT": "a bad photo"}
    for name, context in (
        ("QCoOp", ""),
        ("QProGrad", ""),  # a CoOp
        ("QMaPLe", "a bad photo"),
        ("QOther", "a photo of a"),  # of the first node that has one
    ):
        assert host.build(name, **options).packed_metadata()["ctx_init"] == context


@pytest.mark.parametrize("keeps_tokens", [True, False])
def test_packed_prompt_names_the_words_that_the_host_chose(host, monkeypatch, keeps_tokens):
    """KgCoOp and ProGrad only ask whether CTX_INIT is set; ProGrad fills up with placeholders."""
    words = ["<start>", "x", "x", "a", "photo", "of", "a", "pear", "<end>"]
    tokenizer = SimpleNamespace(decode=lambda ids: "".join(f"{words[i]} " for i in ids))
    monkeypatch.setattr(host.trainers.learners, "_tokenizer", tokenizer, raising=False)
    quantized(host.trainers.ProGrad)
    run = host.build("QProGrad")
    run.cfg.defrost()
    run.cfg.TRAINER.COOP.CTX_INIT = True
    learner = run.model.prompt_learner
    if keeps_tokens:
        learner.tokenized_prompts, learner.n_ctx = torch.arange(len(words))[None], 6
    assert run.packed_metadata()["ctx_init"] == ("a photo of a" if keeps_tokens else "")
