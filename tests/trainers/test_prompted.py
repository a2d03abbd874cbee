"""What one training step and one evaluation ask of a quantized learner."""

import pytest
import torch
from torch.nn import functional as F

import qprompt
from trainers.maple import MultiModalCLIP, MultiModalPromptLearner


@pytest.fixture
def count(monkeypatch):
    """Names of the parameters that were quantized while a function ran, one for each time."""
    quantized, forward = [], qprompt.Quantizer.forward

    def counted(self, weight):
        quantized.append(self.name)
        return forward(self, weight)

    monkeypatch.setattr(qprompt.Quantizer, "forward", counted)

    def count(function):
        quantized.clear()
        function()
        return list(quantized)

    return count


@pytest.mark.parametrize("chunk", [0, 2])
@pytest.mark.parametrize(
    ("trainer", "number"),
    [("QCoOp", 1), ("QCoCoOp", 3), ("QMaPLe", 6), ("QVPT", 3), ("QIVLP", 6), ("QPromptSRC", 6)],
)
def test_a_step_quantizes_each_parameter_once(build, tmp_path, count, trainer, number, chunk):
    run = build(trainer, tmp_path, opts=["MODEL.TEXT_CHUNK", chunk])
    run.set_model_mode("train")
    run.batch_idx, run.num_batches = 0, 2
    batch = next(iter(run.train_loader_x))
    names = count(lambda: run.forward_backward(batch))
    assert len(names) == len(set(names)) == number
    assert number == sum(1 for _ in qprompt.named_quantizers(run.model))


@pytest.mark.parametrize(
    ("trainer", "number"), [("QCoOp", 1), ("QMaPLe", 6), ("QVPT", 3), ("QIVLP", 6)]
)
def test_an_evaluation_quantizes_each_parameter_once(build, tmp_path, count, trainer, number):
    run = build(trainer, tmp_path, opts=["DATALOADER.TEST.BATCH_SIZE", 10])
    run.set_model_mode("eval")

    @torch.no_grad()
    def evaluate():
        assert sum(1 for _ in run.scores(run.test_loader)) > 2

    names = count(evaluate)
    assert len(names) == len(set(names)) == number


@torch.no_grad()
@pytest.mark.parametrize("trainer", ["QCoOp", "QCoCoOp", "QMaPLe", "QVPT", "QIVLP", "ZeroshotCLIP"])
def test_fixed_prompts_give_the_same_logits(build, trainer):
    run = build(trainer, "")
    run.set_model_mode("eval")
    images = torch.randn(3, 3, 32, 32)
    expected = run.model(images)
    with run.model.fixed():
        assert torch.equal(run.model(images), expected)


def test_a_step_at_the_papers_depth(vit_b32, count):
    learner = MultiModalPromptLearner(vit_b32[0], ["dog", "cat"], depth=9)
    qprompt.quantize_(learner, bits=4)
    model = MultiModalCLIP(vit_b32[0], learner)
    images, labels = torch.randn(2, 3, 224, 224), torch.tensor([0, 1])
    names = count(lambda: F.cross_entropy(model(images), labels).backward())
    # ctx, its projection, and prompt and projection of eight more layers
    assert len(names) == len(set(names)) == 18
