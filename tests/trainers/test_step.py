"""What a training step asks of a GPU: kernels, copies and waits, at the depth of ViT-B/16.

step_kernels.json holds the kernels of a step, by operation; a test that fails prints its line.
"""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch.utils._pytree import tree_leaves

from tests.pretended_gpu import pretended_gpu

RECORD = json.loads(Path(__file__).with_name("step_kernels.json").read_text())
LIMITS = {"CoOp": 450, "QCoOp": 450, "MaPLe": 650, "QMaPLe": 750}
NO_REFIT = ["TRAINER.QPROMPT.KL_THRESHOLD", 1e9]


@pytest.fixture(scope="module")
def narrow_vit_b16(tmp_path_factory):
    """Weights of a CLIP with as many layers as ViT-B/16, and few numbers in each."""
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=12, width=64, head_width=32, patch_size=16, image_size=32)
    text = CLIPTextCfg(width=64, heads=1, layers=12)
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    save_file(CLIP(64, vision, text, quick_gelu=True).state_dict(), path)
    return str(path)


@pytest.fixture
def start(build, tmp_path, narrow_vit_b16):
    """Build a trainer and take its first step; return it and the batch."""

    def start(trainer, *opts):
        depth = ["TRAINER.MAPLE.PROMPT_DEPTH", 9] if "MaPLe" in trainer else []
        opts = ["MODEL.BACKBONE.NAME", narrow_vit_b16, *depth, *opts]
        built = build(trainer, tmp_path, opts=opts)
        built.set_model_mode("train")
        built.batch_idx, built.num_batches = 0, 100
        batch = next(iter(built.train_loader_x))
        built.forward_backward(batch)
        return built, batch

    return start


@pytest.mark.parametrize("trainer", LIMITS)
def test_step_on_a_gpu(start, trainer):
    """No more kernels than are recorded, one copy of results, and no other wait."""
    options = ["TRAINER.QPROMPT.INTERVAL", 3, "TRAINER.QPROMPT.KL_THRESHOLD", 1e9]
    kernels = []
    with pretended_gpu() as device:
        built, batch = start(trainer, *options)
        for compares in (False, True):  # codebooks with the weights, since the interval is over
            device.reset()
            built.forward_backward(batch)
            waits = {"copy to host, forward_backward": 1}
            if compares and trainer.startswith("Q"):
                waits["copy to host, _fit_drifted"] = 1
            assert device.waits == waits
            assert device.copies == {"to device": 1, "to host": len(waits)}
            kernels.append(device.kernels)
    recorded = Counter(RECORD[trainer])
    came, went = kernels[0] - recorded, recorded - kernels[0]
    line = json.dumps({trainer: dict(sorted(kernels[0].items()))})
    assert not came, f"{dict(came)} came in, {dict(went)} went: {line}"
    assert sum(kernels[0].values()) <= LIMITS[trainer]


def test_parameters_quantized_at_once_are_what_they_are_alone(start):
    with pretended_gpu() as device:
        model = start("QMaPLe")[0].model
        device.reset()
        together = model.learned_prompts()
        launches = sum(device.kernels.values())
        device.reset()
        alone = model.prompt_learner()
        assert launches < sum(device.kernels.values()) / 3
        prompts = [prompts[0].unbind() + prompts[3:6] for prompts in (together, alone)]
        for one, other in zip(*map(tree_leaves, prompts), strict=True):
            assert torch.equal(one, other)


def test_a_step_with_an_infinite_loss_is_not_saved(build, tmp_path):
    """It is noticed after the optimizer's step, and before the epoch ends."""
    run = build("QCoOp", tmp_path, opts=["TRAIN.CHECKPOINT_FREQ", 1])
    loss = run.loss

    def infinite(image, label):
        value, logits = loss(image, label)
        last = run.batch_idx + 1 == run.num_batches
        return value * float("inf") if run.epoch and last else value, logits

    run.loss = infinite
    with pytest.raises(FloatingPointError, match="Lower OPTIM.LR"):
        run.train()
    saved = {path.name for path in (tmp_path / "prompt_learner").iterdir()}
    assert saved == {"checkpoint", "model.pth.tar-1", "prompt.safetensors"}


@pytest.fixture
def graphs(monkeypatch):
    """What torch.compile captures, which then runs as it is."""
    captured, compile_ = [], torch.compile

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f, mode, **o: compile_(f, backend=backend, **o))
    yield captured
    torch._dynamo.reset()


SLOW = ("QCoOp", "QCoCoOp", "QPromptSRC", "QProGrad", "QDePT")


@pytest.mark.parametrize(
    "trainer", ["QMaPLe", *(pytest.param(t, marks=pytest.mark.slow) for t in SLOW)]
)
def test_compiled_step_is_one_graph(build, tmp_path, graphs, trainer):
    """Also where codebooks are fitted again; and no larger with more classes."""
    refits = ["TRAINER.QPROMPT.INTERVAL", 2, "TRAINER.QPROMPT.KL_THRESHOLD", 0.0]
    sizes, trained = [], []
    for mode, classes in (("none", "base"), ("default", "base"), ("default", "all")):
        opts = ["TRAIN.COMPILE", mode, "DATASET.SUBSAMPLE_CLASSES", classes, *refits]
        built = build(trainer, tmp_path / f"{mode}-{classes}", opts=opts)
        built.set_model_mode("train")
        built.num_batches = 100
        batch = next(iter(built.train_loader_x))
        for built.batch_idx in range(5):
            summary = built.forward_backward(batch)
        assert mode == "none" or len(graphs) == 1
        sizes += [len(graph.graph.nodes) for graph in graphs]
        graphs.clear()
        torch._dynamo.reset()
        trained.append([summary, *built.model.prompt_learner.parameters()])
    assert len(set(sizes)) == 1
    assert trained[0][0] == trained[1][0]
    assert all(map(torch.equal, trained[0][1:], trained[1][1:]))
