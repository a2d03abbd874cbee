"""Whole runs: what they leave behind, that they repeat, and how they fail."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import qprompt
import train
from clip.tiny.train import new_model

LEARNER = "prompt_learner"


def weights(trainer):
    return {
        name: value.clone() for name, value in trainer.model.prompt_learner.state_dict().items()
    }


def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(trainer):
    trainer.set_model_mode("eval")
    return trainer.model_inference(images())


@pytest.fixture(scope="session")
def trained(command, tmp_path_factory):
    """The folder of one finished QCoOp run, made by train.py as a process."""
    folder = tmp_path_factory.mktemp("runs") / "qcoop"
    done = command("QCoOp", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_checkpoint_packed_prompt_log_and_results(trained, result):
    for name in (f"{LEARNER}/model.pth.tar-2", f"{LEARNER}/checkpoint", "log.txt", "tensorboard"):
        assert (trained / name).exists(), name
    record = result(trained)
    assert record["trainer"] == "QCoOp" and record["seed"] == 1 and record["bits"] == 1
    assert record["config"]["TRAINER"]["QPROMPT"]["BITS"] == 1
    assert record["stored_bytes"] == 4 * 128 // 8 + 2 * 2
    assert record["wall_time_s"] > 0 and record["peak_memory_bytes"] > 1e6
    assert "torch" in record["versions"]
    with safe_open(trained / LEARNER / "prompt.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["trainer"] == "QCoOp" and metadata["backbone"] == "tiny"
    assert metadata["ctx_init"] == "" and metadata["epoch"] == "2"


def test_log_lines_are_those_that_parsers_of_dassl_logs_look_for(trained, result):
    log = (trained / "log.txt").read_text()
    assert "epoch [2/2] batch [" in log
    after = log.split("Finish training")[1]
    assert f"* accuracy: {result(trained)['metrics']['accuracy']:.2f}%" in after
    assert "refits" in log


def test_eval_only_repeats_the_accuracy_from_checkpoint_and_packed_file(
    main, command, trained, result, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(trained.parent))
        main("QCoOp", tmp_path / "checkpoint", "--eval-only", "--model-dir", f"~/{trained.name}/")
    packed = trained / LEARNER / "prompt.safetensors"
    done = command("QCoOp", tmp_path / "packed", "--eval-only", "--model-dir", str(packed))
    assert done.returncode == 0, done.stderr
    for name in ("checkpoint", "packed"):
        assert result(tmp_path / name)["metrics"] == result(trained)["metrics"]


@pytest.mark.parametrize("trainer", ["CoOp", "QCoOp"])
def test_same_seed_gives_the_same_bits(build, tmp_path, result, trainer):
    states, records = [], []
    for name in ("a", "b"):
        run = build(trainer, tmp_path / name)
        run.train()
        states.append(weights(run))
        records.append(result(tmp_path / name)["metrics"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert records[0] == records[1]


def test_seeds_differ_and_zero_is_a_seed(build, tmp_path):
    states = []
    for seed in (0, 0, 5):
        run = build("CoOp", tmp_path / "x", opts=["SEED", seed, "TRAINER.COOP.N_CTX", 2])
        assert seed == run.cfg.SEED
        states.append(weights(run)["ctx"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("half", ["base", "new"])
def test_packed_prompt_gives_bit_identical_logits(build, trained, half):
    options = ["DATASET.SUBSAMPLE_CLASSES", half]
    checkpoint = build("QCoOp", "", opts=options)
    checkpoint.load_model(str(trained))
    packed = build("QCoOp", "", opts=options)
    packed.load_model(str(trained / LEARNER / "prompt.safetensors"))
    plain = build("CoOp", "", opts=options)
    plain.load_model(str(trained / LEARNER / "prompt.safetensors"))
    assert torch.equal(logits(checkpoint), logits(packed))
    assert torch.equal(logits(checkpoint), logits(plain))
    untrained = build("CoOp", "", opts=options)
    assert not torch.equal(logits(checkpoint), logits(untrained))


def test_prompt_of_4_times_512_numbers_takes_260_bytes(build, tmp_path):
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32)
    wide = CLIP(512, vision, CLIPTextCfg(width=512, heads=8, layers=1), quick_gelu=True)
    backbone = tmp_path / "wide.safetensors"
    save_file({name: value.half() for name, value in wide.state_dict().items()}, backbone)

    run = build("QCoOp", tmp_path / "run", "--backbone", str(backbone))
    run.train()
    file = tmp_path / "run" / LEARNER / "prompt.safetensors"
    assert json.loads((tmp_path / "run/results.json").read_text())["stored_bytes"] == 260
    assert file.stat().st_size < 1500
    with safe_open(file, "pt") as tensors:
        assert sum(tensors.get_tensor(key).nbytes for key in tensors.keys()) == 260  # noqa: SIM118
    assert torch.equal(qprompt.unpack(file)["ctx"], run.model.prompt_learner.ctx.detach())
    for half in ("base", "new"):
        options = ["DATASET.SUBSAMPLE_CLASSES", half]
        ours = build("QCoOp", "", "--backbone", str(backbone), opts=options)
        ours.load_model(str(file))
        trained = build("QCoOp", "", "--backbone", str(backbone), opts=options)
        trained.load_model(str(tmp_path / "run"))
        assert torch.equal(logits(ours), logits(trained))


def test_plain_checkpoint_loads_into_the_quantized_trainer(build, tmp_path):
    plain = build("CoOp", tmp_path / "plain")
    plain.train()
    quantized = build("QCoOp", "", opts=["TRAINER.QPROMPT.BITS", 8])
    quantized.load_model(str(tmp_path / "plain"))
    learned = plain.model.prompt_learner.ctx
    assert len(quantized.model.prompt_learner.ctx.unique()) <= 256
    assert (quantized.model.prompt_learner.ctx - learned).abs().max() < 0.1 * learned.abs().max()


def test_init_weights_from_a_plain_checkpoint(build, tmp_path):
    plain = build("CoOp", tmp_path / "plain")
    plain.train()
    path = tmp_path / "plain" / LEARNER / "model.pth.tar-2"
    quantized = build("QCoOp", "", opts=["MODEL.INIT_WEIGHTS", path])
    latent = quantized.model.prompt_learner.parametrizations.ctx.original
    assert torch.equal(latent, plain.model.prompt_learner.ctx)


@pytest.mark.parametrize("mode", ["qat", "ptq"])
def test_every_mode_trains_and_evaluates_to_the_same_accuracy(build, tmp_path, result, mode):
    options = ["TRAINER.QPROMPT.MODE", mode, "TRAINER.QPROMPT.BITS", 2]
    build("QCoOp", tmp_path / "run", opts=options).train()
    again = build("QCoOp", tmp_path / "eval", opts=options)
    again.load_model(str(tmp_path / "run"))
    again.test()
    assert result(tmp_path / "eval")["metrics"] == result(tmp_path / "run")["metrics"]
    assert (tmp_path / "run" / LEARNER / "prompt.safetensors").exists()


@pytest.mark.parametrize("std", [0.0, 0.02])
def test_noise_trains_a_plain_prompt_and_none_of_it_is_the_plain_trainer(
    build, tmp_path, result, std
):
    options = ["TRAINER.QPROMPT.MODE", "noise", "TRAINER.QPROMPT.NOISE_STD", std]
    noisy = build("QCoOp", tmp_path / "noise", opts=options)
    noisy.train()
    plain = build("CoOp", tmp_path / "plain")
    plain.train()
    assert (weights(noisy)["ctx"] == weights(plain)["ctx"]).all() == (std == 0)
    assert result(tmp_path / "noise")["bits"] is None
    assert not list(tmp_path.rglob("*.safetensors"))
    again = build("CoOp", tmp_path / "eval")
    again.load_model(str(tmp_path / "noise"))
    again.test()
    assert result(tmp_path / "eval")["metrics"] == result(tmp_path / "noise")["metrics"]


def test_interrupted_run_ends_like_an_undisturbed_one(build, tmp_path, result, monkeypatch):
    options = ["TRAIN.CHECKPOINT_FREQ", 1, "OPTIM.MAX_EPOCH", 3, "TRAINER.QPROMPT.INTERVAL", 1]
    options += ["TRAINER.QPROMPT.STATISTICS", True]
    build("QCoOp", tmp_path / "whole", opts=options).train()

    cut = build("QCoOp", tmp_path / "cut", opts=options)
    before_epoch = type(cut).before_epoch

    def interrupt(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        before_epoch(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(cut), "before_epoch", interrupt)
        cut.train()
    assert not (tmp_path / "cut/results.json").exists()
    resumed = build("QCoOp", tmp_path / "cut", opts=options)
    resumed.train()
    assert result(tmp_path / "cut")["metrics"] == result(tmp_path / "whole")["metrics"]
    states = [
        torch.load(tmp_path / name / LEARNER / "model.pth.tar-3", weights_only=True)["state_dict"]
        for name in ("cut", "whole")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    cut, whole = (
        (tmp_path / name / LEARNER / "weights.csv").read_text() for name in ("cut", "whole")
    )
    assert cut == whole and [line[0] for line in whole.splitlines()[1:]] == [*"0123"]


def test_zero_shot_run_stores_nothing(build, tmp_path, result):
    run = build("ZeroshotCLIP", tmp_path)
    run.train()
    assert result(tmp_path)["stored_bytes"] == 0
    assert result(tmp_path)["metrics"]["accuracy"] > 50


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("precision", ["fp16", "amp"])
def test_half_precision_without_gpu_warns_once_and_runs_in_float32(build, precision):
    with pytest.warns(UserWarning, match=f"PREC {precision} runs as fp32") as caught:
        run = build("CoOp", "", opts=["TRAINER.COOP.PREC", precision])
    assert len(caught) == 1
    assert run.model.prompt_learner.ctx.dtype == torch.float32


# ---- folders of other runs, and damaged files


def test_finished_run_of_another_configuration_is_not_overwritten(build, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    before = (folder / "results.json").read_bytes()
    run = build("QCoOp", folder, opts=["TRAINER.QPROMPT.BITS", 4])
    with pytest.raises(RuntimeError, match="TRAINER.QPROMPT.BITS"):
        run.train()
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "model.pth.tar-2"),
        ("missing", r"no checkpoint of epoch 2 \(epochs there: none\)"),
        ("other shape", r"ctx.*\[4, 128\]"),
    ],
)
def test_damaged_checkpoints_are_named(build, trained, tmp_path, damage, message):
    folder = shutil.copytree(trained, tmp_path / "run")
    path = folder / LEARNER / "model.pth.tar-2"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "missing":
        path.unlink()
    words = "a photo of" if damage == "other shape" else "a photo of a"
    run = build("QCoOp", "", opts=["TRAINER.COOP.CTX_INIT", words])
    with pytest.raises((OSError, RuntimeError, ValueError), match=message):
        run.load_model(str(folder), epoch=2)


def test_evaluation_refuses_a_codebook_of_other_meaning(build, trained):
    run = build("QCoOp", "", opts=["TRAINER.QPROMPT.NORMALIZE", False])
    with pytest.raises(ValueError, match="'ctx' was trained with normalize=True"):
        run.load_model(str(trained))


def test_results_of_other_weights_are_not_overwritten(build, tmp_path):
    first = build("CoOp", tmp_path / "eval", opts=["DATASET.NUM_SHOTS", 1])
    first.test()
    record = (tmp_path / "eval/results.json").read_bytes()
    other = build("CoOp", tmp_path / "eval", opts=["DATASET.NUM_SHOTS", 1])
    with torch.no_grad():
        other.model.prompt_learner.ctx.add_(torch.randn(4, 128, generator=torch.manual_seed(0)))
    with pytest.raises(RuntimeError, match="other metrics of the same configuration"):
        other.test()
    assert (tmp_path / "eval/results.json").read_bytes() == record


def test_finished_run_keeps_its_record_when_started_again(build, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    record = (folder / "results.json").read_bytes()
    build("QCoOp", folder).train()
    assert (folder / "results.json").read_bytes() == record


def test_truncated_packed_prompt_is_named(build, trained, tmp_path):
    path = tmp_path / "prompt.safetensors"
    path.write_bytes((trained / LEARNER / "prompt.safetensors").read_bytes()[:-20])
    with pytest.raises(qprompt.PackedFileError, match="prompt.safetensors"):
        build("QCoOp", "").load_model(str(path))


@pytest.mark.parametrize("resume", [False, True])
def test_upstreams_checkpoint_loads_and_resumes(build, tmp_path, resume):
    """A CoOp checkpoint as upstream writes it: token buffers of 77 positions and a scheduler."""
    run = build("CoOp", tmp_path / "out")
    folder = tmp_path / LEARNER
    folder.mkdir()
    context = torch.randn(4, 128)
    state = {
        "ctx": context,
        "token_prefix": torch.zeros(5, 1, 128),
        "token_suffix": torch.zeros(5, 72, 128),
    }
    scheduler = {
        "last_epoch": 50,
        "successor": torch.optim.lr_scheduler.LambdaLR(
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), float
        ),
    }
    optimizer = run.optim.state_dict()
    checkpoint = {"state_dict": state, "epoch": 50, "optimizer": optimizer, "scheduler": scheduler}
    torch.save(checkpoint, folder / "model.pth.tar-50")
    if resume:
        (folder / "checkpoint").write_text("model.pth.tar-50\n")
        assert run.resume_model_if_exist(str(tmp_path)) == 50
    else:
        run.load_model(str(tmp_path), epoch=50)
    assert torch.equal(run.model.prompt_learner.ctx, context)
    quantized = build("QCoOp", "", opts=["TRAINER.QPROMPT.BITS", 2])
    quantized.load_model(str(tmp_path), epoch=50)
    assert len(quantized.model.prompt_learner.ctx.unique()) == 4


def test_tiny_model_can_be_made_anew():
    """The architecture of the training script is that of the shipped weights."""
    from clip import tiny

    shipped = tiny.state_dict()
    fresh = new_model().state_dict()
    assert {k: v.shape for k, v in shipped.items()} == {k: v.shape for k, v in fresh.items()}


def test_the_feature_cache_is_used_switched_off_and_cleared_by_flags(tmp_path, main, capsys):
    folder = tmp_path / "features"
    opts = ["TEST.FEATURE_CACHE", folder]
    main("ZeroshotCLIP", tmp_path / "a", opts=opts)
    assert len(list(folder.iterdir())) == 2  # images and texts
    capsys.readouterr()
    main("ZeroshotCLIP", "", "--clear-feature-cache", opts=opts)
    assert capsys.readouterr().out == f"2 files deleted from {folder}\n"
    assert not list(folder.iterdir())
    args = train.parse_args(["--no-feature-cache"])
    assert train.setup_cfg(args).TEST.FEATURE_CACHE == ""


def test_ancestors_of_a_quantized_trainer():
    from trainers.qcoop import QCoOp

    names = [ancestor.__name__ for ancestor in QCoOp.__mro__[:-1]]  # all but object
    assert names[:4] == ["QCoOp", "Quantized", "CoOp", "PromptTrainer"]
    assert names[4:] == ["TrainerX", "SimpleTrainer", "TrainerBase"]
