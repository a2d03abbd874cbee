"""A packed prompt without the training code: the logits of train.py --eval-only."""

import pytest
import torch
from PIL import Image

import clip
import qprompt

LEARNERS = {
    "QCoOp": [],
    "QCoOp in the middle": ["TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"],
    "QCoCoOp": ["TRAINER.QPROMPT.BITS", 2],
    "QMaPLe": ["TRAINER.QPROMPT.BITS", 4],
    "QVPT": [],
    "QIVLP": [],
    "QPromptSRC": [],
}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("half", ["base", "new"])
def test_logits_are_those_of_the_evaluation(trained, evaluated, learner, half):
    trainer, opts = learner.split()[0], LEARNERS[learner]
    packed = trained(trainer, *opts)
    expected = evaluated(trainer, packed, half, *opts)
    model = qprompt.load(packed).apply()
    found = model.classify(expected.paths, expected.classnames, batch_size=100)
    assert found.classnames == expected.classnames
    assert torch.equal(found.probabilities, expected.logits.softmax(dim=-1))
