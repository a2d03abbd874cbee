"""Runs that broke off, go on, or stand in the way of others."""

from pathlib import Path

import pytest
import torch

from dassl.engine import RunMismatchError
from dassl.optim import build_lr_scheduler
from dassl.utils import (
    CheckpointError,
    read_json,
)
from tests.dassl.runs import interrupt, same, weights


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("final", ["last_step", "best_val"])
def test_interrupted_and_resumed_is_undisturbed(make_trainer, workers, final):
    opts = ["TRAIN.CHECKPOINT_FREQ", 1, "DATALOADER.NUM_WORKERS", workers]
    opts += ["TEST.FINAL_MODEL", final]
    whole = make_trainer(*opts, out="whole")
    whole.train()
    interrupt(make_trainer(*opts, out="cut"), 2)
    resumed = make_trainer(*opts, out="cut")
    resumed.train()
    assert resumed.start_epoch == 2
    assert same(weights(whole), weights(resumed))
    a, b = (read_json(Path(t.output_dir, "results.json")) for t in (whole, resumed))
    assert (a["metrics"], a["epoch"]) == (b["metrics"], b["epoch"])
    assert whole.best_result == resumed.best_result


def test_resume_from_another_folder(make_trainer, tmp_path):
    opts = ["TRAIN.CHECKPOINT_FREQ", 1]
    interrupt(make_trainer(*opts, out="cut"), 2)
    resumed = make_trainer(*opts, "RESUME", str(tmp_path / "cut"), out="new")
    resumed.train()
    assert resumed.start_epoch == 2
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_trainer("RESUME", str(tmp_path / "nowhere"), out="x").train()


def test_finished_run_trains_no_more(make_trainer):
    first = make_trainer()
    first.train()
    again = make_trainer()
    again.run_epoch = None
    again.train()
    assert same(weights(first), weights(again))


def test_scores_on_the_way_are_not_results(make_trainer, tmp_path):
    trainer = make_trainer("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", 1)
    interrupt(trainer, 3)
    assert not list((tmp_path / "out").glob("results*.json"))


def test_results_of_fewer_epochs_are_not_overwritten(make_trainer, tmp_path):
    for epochs in (2, 4):
        make_trainer("OPTIM.MAX_EPOCH", epochs, out=f"of {epochs}").train()
    trainer = make_trainer(out="eval")
    trainer.load_model(str(tmp_path / "of 2"))
    trainer.test()
    trainer.load_model(str(tmp_path / "of 4"))
    with pytest.raises(RunMismatchError, match=r"epoch \(2 -> 4\)"):
        trainer.test()


@pytest.mark.parametrize("done", [2, 4])
def test_more_epochs_go_on_from_the_last_checkpoint(make_trainer, tmp_path, capsys, done):
    """Of a run that was finished after 4, or interrupted."""
    first = make_trainer("TRAIN.CHECKPOINT_FREQ", 1)
    first.train() if done == 4 else interrupt(first, done)
    for _ in range(2):  # the second start only tests
        longer = make_trainer("OPTIM.MAX_EPOCH", 6)
        rates = []
        longer.before_epoch = lambda t=longer, rates=rates: rates.append(t.get_current_lr())
        longer.train()
        assert len(rates) == 6 - longer.start_epoch
        if longer.start_epoch < 6:
            assert longer.start_epoch == done
            whole = build_lr_scheduler(longer.optim, longer.cfg.OPTIM)
            assert rates == [whole.lr_at(0.02, epoch) for epoch in range(done, 6)]
    assert capsys.readouterr().out.count("OPTIM.MAX_EPOCH was raised to 6: ") == 1
    record = read_json(tmp_path / "out" / "results.json")
    assert (record["epoch"], record["config"]["OPTIM"]["MAX_EPOCH"]) == (6, 6)
    for opts, key in (
        (["OPTIM.MAX_EPOCH", 5], r"OPTIM.MAX_EPOCH \(6 -> 5\)"),
        (["OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.5], r"differs in OPTIM.LR \(0.02 -> 0.5\)\."),
    ):
        with pytest.raises(RunMismatchError, match=key):
            make_trainer(*opts).train()


def test_more_epochs_without_a_checkpoint_are_another_run(make_trainer, tmp_path):
    make_trainer().train()
    (tmp_path / "out" / "learner" / "checkpoint").unlink()
    with pytest.raises(RunMismatchError, match=r"OPTIM.MAX_EPOCH \(4 -> 6\)"):
        make_trainer("OPTIM.MAX_EPOCH", 6).train()


def test_data_sets_may_have_moved(make_trainer, tmp_path):
    interrupt(make_trainer("TRAIN.CHECKPOINT_FREQ", 1), 2)
    moved = make_trainer("DATASET.ROOT", str(tmp_path / "elsewhere"))
    moved.train()
    assert moved.start_epoch == 2


def test_other_configuration_in_the_same_folder(make_trainer, tmp_path):
    make_trainer("TRAIN.CHECKPOINT_FREQ", 2).train()
    before = (tmp_path / "out" / "results.json").read_bytes()
    for action in (lambda t: t.train(), lambda t: t.test()):
        with pytest.raises(RunMismatchError, match=r"SEED \(1 -> 3\).*OPTIM.LR \(0.02 -> 0.5\)"):
            action(make_trainer("OPTIM.LR", 0.5, "SEED", 3))
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    # what cannot change results may differ
    make_trainer("TRAIN.PRINT_FREQ", 1, "DATALOADER.NUM_WORKERS", 1, "VERBOSE", False).train()


def test_interrupted_run_of_other_configuration_is_not_resumed(make_trainer):
    interrupt(make_trainer("TRAIN.CHECKPOINT_FREQ", 1), 1)
    with pytest.raises(RunMismatchError, match="OPTIM.LR"):
        make_trainer("OPTIM.LR", 0.5).train()


@pytest.mark.parametrize("part", ["train_x", "val", "test"])
def test_interrupted_run_does_not_go_on_with_other_images(make_trainer, part):
    interrupt(make_trainer("TRAIN.CHECKPOINT_FREQ", 1), 1)
    trainer = make_trainer()
    getattr(trainer.dm.dataset, part)[0].classname = "blue"
    with pytest.raises(RunMismatchError, match="config.json.* other images: those of Toy"):
        trainer.train()
    make_trainer().train()


def test_resume_with_weights_that_are_no_numbers_saves_nothing(make_trainer, tmp_path):
    interrupt(make_trainer("TRAIN.CHECKPOINT_FREQ", 1), 2)
    folder = tmp_path / "out" / "learner"
    path = folder / "model.pth.tar-2"
    state = torch.load(path, weights_only=True)
    state["state_dict"]["2.bias"].fill_(torch.nan)
    torch.save(state, path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CheckpointError, match="2.bias in .*model.pth.tar-2.* NaN"):
        make_trainer("TRAIN.CHECKPOINT_FREQ", 1).train()
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with pytest.raises(CheckpointError, match="2.bias in .*model.pth.tar-2.* NaN"):
        make_trainer(out="evaluation").load_model(str(tmp_path / "out"), epoch=2)


def test_damaged_record(make_trainer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{")
    with pytest.raises(RunMismatchError, match="results.json"):
        make_trainer().train()


def test_models_of_different_epochs_are_not_resumed(make_trainer, tmp_path):
    folder = str(tmp_path / "out")
    both = make_trainer()
    both.register_model("second", torch.nn.Linear(1, 1))
    both.save_model(1, folder)
    make_trainer().save_model(2, folder)  # the first model alone
    third = make_trainer()
    third.register_model("third", torch.nn.Linear(1, 1))
    assert third.resume_model_if_exist(folder) == 0  # third has no checkpoint
    with pytest.raises(CheckpointError, match=r"different epochs \(\[2, 3\]\)"):
        both.resume_model_if_exist(folder)
