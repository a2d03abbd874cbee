"""qprompt export: runs and checkpoints become packed prompts, as MODE ptq packs them."""

import json
import pickle

import pytest
import torch

import qprompt
from qprompt.use.export import export

FAST = ["OPTIM.MAX_EPOCH", 1, "OPTIM.WARMUP_EPOCH", -1, "OPTIM.LR", 0.02]
LEARNERS = ["CoOp", "CoCoOp", "MaPLe", "VPT", "IVLP", "PromptSRC"]


@pytest.fixture
def trained(build, tmp_path):
    """The folder of a short run on the base classes."""

    def trained(trainer, *opts):
        build(trainer, tmp_path / trainer, opts=[*FAST, *opts]).train()
        return tmp_path / trainer

    return trained


def same(one, other):
    one, other = qprompt.unpack(one), qprompt.unpack(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def packed_of(run):
    (file,) = run.glob("*/prompt.safetensors")
    return file


@pytest.mark.parametrize("plain", LEARNERS)
def test_a_plain_checkpoint_is_quantized_as_mode_ptq_does(trained, tmp_path, plain):
    ptq = trained(f"Q{plain}", "TRAINER.QPROMPT.MODE", "ptq", "TRAINER.QPROMPT.BITS", 3)
    run, file = trained(plain), tmp_path / "p.safetensors"
    export(str(run), str(file), bits=3)
    assert same(file, packed_of(ptq))
    own, expected = qprompt.read_metadata(file), qprompt.read_metadata(packed_of(ptq))
    nodes, expected_nodes = (json.loads(known.pop("settings")) for known in (own, expected))
    assert own.items() == expected.items() - {("epoch", "1")}
    quantization, expected_quantization = (n.pop("QPROMPT") for n in (nodes, expected_nodes))
    assert nodes == expected_nodes and quantization.items() <= expected_quantization.items()
    assert qprompt.load(file).apply().classes(None) == json.loads(own["classnames"])


def test_a_quantized_run_gives_what_it_packed(trained, tmp_path, result):
    run = trained("QMaPLe", "TRAINER.QPROMPT.BITS", 2)
    export(str(run), str(tmp_path / "run.safetensors"))
    assert same(tmp_path / "run.safetensors", next(run.glob("*/prompt-inference.safetensors")))
    accuracies = json.loads(qprompt.read_metadata(tmp_path / "run.safetensors")["accuracies"])
    assert accuracies == {"Digits, base classes": result(run)["metrics"]["accuracy"]}
    (checkpoint,) = run.glob("*/model.pth.tar-1")
    export(str(checkpoint), str(tmp_path / "checkpoint.safetensors"))
    assert same(tmp_path / "checkpoint.safetensors", packed_of(run))
    export(str(run), str(tmp_path / "other.safetensors"), bits=5)
    assert len(qprompt.unpack(tmp_path / "other.safetensors")["prompt_learner.ctx"].unique()) > 4
    with pytest.raises(qprompt.InvalidOptionError, match="exists: move it away"):
        export(str(run), str(tmp_path / "run.safetensors"))


class Scheduler:
    """An object that a checkpoint of upstream pickles beside its tensors."""

    def __init__(self):
        self.optimizer = {"lr": 0.1}

    def __reduce__(self):
        return (pickle.loads, (pickle.dumps("executed"),), {"last_epoch": 5})


def test_upstreams_checkpoint(tmp_path, evaluated_from):
    """Frozen CLIP, buffers of other classes, "module." and pickled objects are left out."""
    torch.manual_seed(0)
    learned = {"prompt_learner.ctx": torch.randn(2, 128), "image_encoder.VPT": torch.randn(2, 128)}
    state = {
        **learned,
        "prompt_learner.token_prefix": torch.zeros(5, 1, 128),
        "prompt_learner.token_suffix": torch.zeros(5, 74, 128),
        "image_encoder.conv1.weight": torch.zeros(3),
        "text_encoder.ln_final.weight": torch.zeros(3),
        "logit_scale": torch.zeros(()),
    }
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    path, file = tmp_path / "model.pth.tar-50", tmp_path / "p.safetensors"
    torch.save({"state_dict": state, "epoch": 50, "scheduler": Scheduler()}, path)
    with pytest.raises(qprompt.InvalidOptionError, match="give --backbone"):
        export(str(path), str(file))
    settings = {"CTX_INIT": "a picture of some"}
    export(str(path), str(file), 8, "PromptSRC", "tiny", settings)
    values = qprompt.unpack(file)
    assert values.keys() == learned.keys()
    assert all((values[key] - learned[key]).abs().max() < 0.1 for key in learned)
    assert qprompt.read_metadata(file)["trainer"] == "QPromptSRC"
    assert qprompt.load(file).apply().learned.words == "a picture of some"
    run = evaluated_from("QPromptSRC", file)
    assert torch.equal(run.model.prompt_learner.prompt_learner.ctx, values["prompt_learner.ctx"])


@pytest.fixture
def evaluated_from(build):
    """train.py --eval-only's trainer for a packed prompt that lies outside a run."""

    def evaluated_from(trainer, file):
        node = f"TRAINER.{trainer[1:].upper()}"
        opts = [f"{node}.PROMPT_DEPTH_TEXT", 1, f"{node}.PROMPT_DEPTH_VISION", 1]
        opts += [f"{node}.N_CTX_TEXT", 2, f"{node}.N_CTX_VISION", 2, "TRAINER.QPROMPT.BITS", 8]
        run = build(trainer, "", opts=opts)
        run.load_model(str(file))
        return run

    return evaluated_from


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "cannot be read as a checkpoint"),
        ({"state_dict": {"backbone.proj": torch.zeros(2)}}, "holds nothing that was learned"),
        ({"state_dict": {"fc.0.weight": torch.rand(2, 3)}}, "fc.0.weight are: give --trainer"),
        ({"state_dict": [1]}, "holds no state dict"),
    ],
)
def test_what_is_no_prompt(tmp_path, content, message):
    path = tmp_path / "model.pth.tar-2"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(qprompt.QPromptError, match=message):
        export(str(path), str(tmp_path / "p.safetensors"), backbone="tiny")


def test_a_folder_without_a_prompt(tmp_path):
    with pytest.raises(qprompt.QPromptError, match="no checkpoint and no packed prompt"):
        export(str(tmp_path), str(tmp_path / "p.safetensors"))
