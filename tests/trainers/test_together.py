"""Runs that train together learn what they learn alone."""

import pytest
import torch

import clip
from sweeps.turns import Turns
from trainers.base import MEETING
from trainers.together import gradients_together

REFITS = ["TRAINER.QPROMPT.INTERVAL", "2", "TRAINER.QPROMPT.KL_THRESHOLD", "0"]


@pytest.fixture
def train(build, tmp_path):
    """Train runs, each a trainer, a seed and options, and return what they learned."""

    def train(runs, together, dtype=torch.float64):
        cache = {}
        built = []
        for i, (trainer, seed, *opts) in enumerate(runs):
            folder = tmp_path / f"{together}{i}"
            built.append(
                lambda trainer=trainer, seed=seed, opts=opts, folder=folder: build(
                    trainer, folder, "--seed", str(seed), opts=[*opts, *REFITS], cache=cache
                )
            )
        learned = {}

        def run(i):
            trainer = built[i]()
            trainer.model.to(dtype)
            trainer.train()
            learned[i] = {
                name: tensor.detach() for name, tensor in trainer.model.state_dict().items()
            }

        runs = [lambda i=i: run(i) for i in range(len(built))]
        if together:
            turns = Turns(gradients_together)
            cache[MEETING] = turns.meet
            turns.run(runs)
        else:
            for one in runs:
                one()
        return [learned[i] for i in range(len(built))]

    return train


BITS = "TRAINER.QPROMPT.BITS"
CASES = {
    "CoOp": [("CoOp", 1), ("QCoOp", 1, BITS, 1), ("QCoOp", 2, BITS, 3), ("CoOp", 2)],
    "CoCoOp": [("CoCoOp", 1), ("QCoCoOp", 1), ("QCoCoOp", 2)],
    "MaPLe": [("MaPLe", 1), ("QMaPLe", 1, BITS, 2), ("QMaPLe", 2)],
    "others": [
        ("CoOp", 1, "TRAINER.COOP.CSC", True),
        ("QKgCoOp", 1),
        ("ProGrad", 1),
        ("PromptSRC", 1),
        ("CoOp", 1, "OPTIM.MAX_EPOCH", 3),
        ("IVLP", 1),
        ("IVLP", 2),
        ("CoOp", 1, "DATALOADER.CACHED_VIEWS", 2),
        ("MaPLe", 1, "MODEL.TEXT_ENCODING", "full"),
        ("MaPLe", 2, "MODEL.TEXT_ENCODING", "full"),
        ("CLIPAdapter", 1),
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_runs_learn_together_what_they_learn_alone(train, case):
    together, alone = (train(CASES[case], how) for how in (True, False))
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-10, atol=1e-10, msg=name)


def test_towers_run_once_for_all(train, monkeypatch):
    texts, images = [], []
    encode_prompts, encode_image = clip.encode_prompts, clip.encode_image

    def count_texts(model, prompts, **options):
        texts.append(len(prompts.prefix))
        return encode_prompts(model, prompts, **options)

    def count_images(model, image, prompts=None):
        images.append(len(image))
        return encode_image(model, image, prompts)

    monkeypatch.setattr(clip, "encode_prompts", count_texts)
    monkeypatch.setattr(clip, "encode_image", count_images)
    runs = [("QCoOp", seed, BITS, bits) for seed in (1, 2) for bits in (1, 2, 4)]
    train(runs, True, torch.float32)
    assert texts[:2] == [6, 6] and texts[2:] == [1] * 6  # two epochs of one batch, and the tests
    assert images[:2] == [40, 40]  # 20 images of each seed
