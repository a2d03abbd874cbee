"""Whole runs of learners: the same number from every file."""

import pytest
import torch

PLAIN = {
    "DePT": "prompt_learner",
    "KgCoOp": "prompt_learner",
    "ProGrad": "prompt_learner",
    "CLIPAdapter": "clip_adapter",
    "TipAdapterF": "tip_adapter",
    "VPT": "prompt_learner",
    "IVLP": "VLPromptLearner",
    "PromptSRC": "VLPromptLearner",
}
# no warm-up: its steps away from zero are zero in half precision, as packing warns
OPTS = ["TRAIN.CHECKPOINT_FREQ", 1, "OPTIM.WARMUP_EPOCH", -1]


@pytest.mark.parametrize("plain", [*PLAIN, "TipAdapter"])
def test_a_run_is_evaluated_again_from_its_checkpoint(build, tmp_path, result, plain):
    evaluate_again(build, tmp_path, result, plain, {"again": (plain, tmp_path / "run")})


@pytest.mark.parametrize("plain", PLAIN)
def test_a_quantized_run_is_evaluated_again_from_all_of_its_files(
    build, tmp_path, result, capsys, plain
):
    packed = tmp_path / "run" / PLAIN[plain] / "prompt.safetensors"
    ways = {
        "checkpoint": (f"Q{plain}", tmp_path / "run"),
        "packed": (f"Q{plain}", packed),
        "plain": (plain, packed),
    }
    evaluate_again(build, tmp_path, result, f"Q{plain}", ways)
    assert "the checkpoint lacks" not in capsys.readouterr().out


def evaluate_again(build, tmp_path, result, trainer, ways):
    build(trainer, tmp_path / "run", opts=OPTS).train()
    trained = result(tmp_path / "run")
    for name, (evaluated, source) in ways.items():
        again = build(evaluated, tmp_path / name)
        again.load_model(str(source))
        again.test()
        assert result(tmp_path / name)["metrics"] == trained["metrics"]
        assert again.run_summary().get("alpha") == trained.get("alpha")
        assert again.run_summary()["stored_bytes"] > 0


@pytest.mark.parametrize("trainer", ["QProGrad", "QDePT", "TipAdapterF"])
def test_an_interrupted_run_goes_on_to_the_same_end(build, tmp_path, result, trainer):
    opts = [*OPTS, "OPTIM.MAX_EPOCH", 3]
    build(trainer, tmp_path / "whole", opts=opts).train()
    run = build(trainer, tmp_path / "parts", opts=opts)
    after_epoch = run.after_epoch

    def interrupt():
        after_epoch()
        raise KeyboardInterrupt

    run.after_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.close_writer()
    build(trainer, tmp_path / "parts", opts=opts).train()
    parts, whole = (result(tmp_path / name) for name in ("parts", "whole"))
    assert parts["metrics"] == whole["metrics"] and parts.get("beta") == whole.get("beta")


@pytest.mark.parametrize(
    "trainer", ["QKgCoOp", "QProGrad", "QDePT", "QCLIPAdapter", "QTipAdapterF"]
)
@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bf16"),
        *[pytest.param("cuda", p, marks=pytest.mark.gpu) for p in ("fp16", "bf16", "amp")],
    ],
)
def test_precisions_train(build, tmp_path, result, trainer, device, precision):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    nodes = ("COOP", "DEPT", "CLIPADAPTER", "TIPADAPTER")
    opts = [word for node in nodes for word in (f"TRAINER.{node}.PREC", precision)]
    build(trainer, tmp_path, opts=[*opts, "USE_CUDA", device == "cuda"]).train()
    assert result(tmp_path)["metrics"]["accuracy"] > 50
