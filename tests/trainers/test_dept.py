"""DePT: its classifier knows classes by their names."""

import pytest
import torch

from dassl.utils import UserError

NEW = ["DATASET.SUBSAMPLE_CLASSES", "new"]


@pytest.fixture
def trained(build, tmp_path):
    """A QDePT run, its checkpoint and its packed prompt, by the number of zeros to nines."""
    run = build("QDePT", tmp_path / "run", opts=["OPTIM.WARMUP_EPOCH", -1])
    run.train()
    return run, [tmp_path / "run", tmp_path / "run/prompt_learner/prompt.safetensors"]


def test_classes_that_were_not_trained_on_have_logits_of_coop(build, trained, tmp_path):
    _, files = trained
    image = torch.randn(3, 3, 32, 32)
    for i, source in enumerate(files):
        new = build("QDePT", tmp_path / f"new{i}", opts=NEW)
        new.load_model(str(source))
        coop = build("CoOp", tmp_path / f"coop{i}", opts=NEW)
        with torch.no_grad():
            coop.model.prompt_learner.ctx.copy_(new.model.prompt_learner.ctx)
            assert torch.equal(new.model_inference(image), coop.model_inference(image))


def test_some_classes_in_another_order_have_their_own_rows(trained):
    run, _ = trained
    learner = run.model.prompt_learner
    features = torch.randn(3, learner.head.classifier.in_features)
    with torch.no_grad():
        before = learner.scores(features)
        learner.classnames = [learner.classnames[i] for i in (3, 0)]
        learner.match_()
        assert torch.equal(learner.scores(features), before[:, [3, 0]])


def test_weights_for_other_classes_are_not_trained_on(build, trained, tmp_path):
    _, (_, packed) = trained
    run = build("QDePT", tmp_path / "new", opts=[*NEW, "MODEL.INIT_WEIGHTS", packed])
    with pytest.raises(UserError, match="classifier of other classes than those to train on"):
        run.train()


def test_a_weight_is_between_0_and_1(build):
    with pytest.raises(UserError, match="TRAINER.DEPT.WEIGHT is 1.5"):
        build("DePT", "", opts=["TRAINER.DEPT.WEIGHT", 1.5])


def test_context_and_head_have_their_rates(build):
    run = build("DePT", "")
    slow, fast = run.optim.param_groups
    learner = run.model.prompt_learner
    assert any(p is learner.ctx for p in slow["params"])
    assert {id(p) for p in fast["params"]} == {id(p) for p in learner.head.parameters()}
    assert slow["initial_lr"] == pytest.approx(fast["initial_lr"] / 10)
