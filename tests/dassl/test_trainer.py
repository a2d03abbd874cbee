import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import (
    CheckpointError,
    OutputDirError,
    UnknownNameError,
    UserError,
    read_json,
    setup_logger,
)
from tests.dassl.runs import same, weights


def parse_log(path, end_signal):
    """Read the last accuracy after ``end_signal``, as CoOp's parse_test_res.py does."""
    found, go = None, False
    for line in Path(path).read_text().splitlines():
        go = go or end_signal in line
        match = re.search(r"\* accuracy: ([\.\deE+-]+)%", line)
        if go and match:
            found = float(match[1])
    return found


def test_whole_run(make_trainer, tmp_path):
    out = tmp_path / "out"
    setup_logger(out)
    trainer = make_trainer()
    trainer.train()
    sys.stdout.close()
    log = (out / "log.txt").read_text()
    pattern = (
        r"epoch \[1/4\] batch \[2/5\] time \d+\.\d{3} \(.*?\) data \d+\.\d{3} \(.*?\) "
        r"loss \d+\.\d{4} \(.*?\) lr 1\.0000e-05 eta \d:\d\d:\d\d\n"
    )
    assert re.search(pattern, log)
    assert len(re.findall(r"^epoch \[", log, re.M)) == 8
    assert "Evaluate on the *test* set\n=> result\n* total: 18\n" in log
    assert re.search(r"Elapsed: \d:\d\d:\d\d\n", log)
    record = read_json(out / "results.json")
    accuracy = record["metrics"]["accuracy"]
    assert accuracy > 60  # it learns: chance is 33
    assert parse_log(out / "log.txt", "Finish training") == pytest.approx(accuracy, abs=0.005)
    assert parse_log(out / "log.txt", "=> result") == pytest.approx(accuracy, abs=0.005)
    assert record["format_version"] == 1
    expected = {"trainer": "ToyTrainer", "dataset": "Toy", "backbone": "", "seed": 1}
    expected |= {"num_shots": -1, "subsample_classes": "all", "split": "test", "epoch": 4}
    assert expected.items() <= record.items()
    assert record["metrics"].keys() == {"accuracy", "error_rate", "macro_f1", "total", "correct"}
    assert record["config"]["OPTIM"]["LR"] == 0.02
    assert {"DATALOADER.PIXEL_CACHE_MB", "MODEL.TEXT_CHUNK"} <= set(record["irrelevant_settings"])
    assert "TEST.FINAL_MODEL" not in record["irrelevant_settings"]
    assert {"python", "torch", "numpy"} <= record["versions"].keys()
    assert record["wall_time_s"] > 0 and record["peak_memory_bytes"] > 1e7
    assert record["stored_bytes"] == 17
    assert record["trained_with"] is None
    assert record["classnames"] == ["red", "green", "blue"]
    confusion = torch.tensor(record["confusion"])
    assert record["per_class"] == {"total": [6] * 3, "correct": confusion.diag().tolist()}
    assert confusion.sum(1).tolist() == [6] * 3
    assert int(confusion.trace()) == record["metrics"]["correct"]
    shown = ", ".join(str(n) for n in record["confusion"][0])
    assert f"[{shown}]" in (out / "results.json").read_text()  # a row is a line
    assert any((out / "tensorboard").iterdir())
    checkpoint = torch.load(out / "learner" / "model.pth.tar-4", weights_only=True)
    assert checkpoint["state_dict"].keys() == {"2.weight", "2.bias"}
    assert {"epoch", "optimizer", "scheduler", "val_result"} <= checkpoint.keys()
    assert (out / "learner" / "checkpoint").read_text().strip() == "model.pth.tar-4"


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_run(make_trainer, seed):
    runs = []
    for out in ("a", "b"):
        trainer = make_trainer("SEED", seed, out=out)
        trainer.train()
        runs.append((weights(trainer), read_json(Path(trainer.output_dir, "results.json"))))
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1]["metrics"] == runs[1][1]["metrics"]
    assert runs[0][1]["seed"] == seed
    other = make_trainer("SEED", 2, out="c")
    other.train()
    assert not same(runs[0][0], weights(other))


def test_best_val(make_trainer, tmp_path):
    trainer = make_trainer("TEST.FINAL_MODEL", "best_val")
    scores = iter([50.0, 80.0, 70.0, 80.0])
    test, seen = trainer.test, {}

    def fake(split=None):
        if split == "val":
            seen[trainer.epoch + 1] = weights(trainer)
            return next(scores)
        return test(split)

    trainer.test = fake
    trainer.train()
    assert same(weights(trainer), seen[2]) and not same(seen[2], seen[4])
    best = torch.load(tmp_path / "out" / "learner" / "model-best.pth.tar", weights_only=True)
    assert (best["epoch"], best["val_result"]) == (2, 80.0)
    assert read_json(tmp_path / "out" / "results.json")["epoch"] == 2


def test_evaluate_only(make_trainer, tmp_path, capsys):
    trained = make_trainer("TRAIN.CHECKPOINT_FREQ", 2)
    trained.train()
    metrics = read_json(tmp_path / "out" / "results.json")["metrics"]
    for _ in range(2):
        trainer = make_trainer(out="eval")
        trainer.load_model(str(tmp_path / "out"), epoch=4)
        assert trainer.test() == metrics["accuracy"]
        record = read_json(tmp_path / "eval" / "results.json")
        assert (record["metrics"], record["epoch"]) == (metrics, 4)
        assert record["trained_with"] == read_json(tmp_path / "out" / "config.json")["config"]
        assert not (tmp_path / "eval" / "tensorboard").exists()
    assert "* missing keys: none\n* unexpected keys: none\n" in capsys.readouterr().out
    before = (tmp_path / "out" / "results.json").read_bytes()
    trainer = make_trainer()  # into the folder of the training run
    trainer.load_model(str(tmp_path / "out"))
    assert trainer.epochs_done == 4
    trainer.test()
    trainer.test("val")
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert read_json(tmp_path / "out" / "results-val.json")["split"] == "val"


@pytest.mark.parametrize("final", ["last_step", "best_val"])
def test_evaluations_of_several_epochs_fit_beside_each_other(make_trainer, tmp_path, final):
    trained = make_trainer("TRAIN.CHECKPOINT_FREQ", 1, "TEST.FINAL_MODEL", final)
    trained.best_result = 0.0
    trained.train()
    chosen = trained.epochs_done
    others = {1, 2, 3, 4} if final == "best_val" else {1, 2, 3}
    for _ in range(2):
        for epoch in (2, None, *others):
            trainer = make_trainer(out="eval")
            trainer.load_model(str(tmp_path / "out"), epoch=epoch)
            trainer.test()
    names = {"results.json": chosen} | {f"results-epoch{n}.json": n for n in others}
    records = {path.name: read_json(path)["epoch"] for path in tmp_path.glob("eval/results*")}
    assert records == names
    trainer.load_model(str(tmp_path / "out"), epoch=2)
    trainer.test("val")
    assert (tmp_path / "eval" / "results-val-epoch2.json").exists()


def test_untrained_evaluation_has_no_epoch(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.load_model("")
    trainer.test()
    record = read_json(tmp_path / "out" / "results.json")
    assert record["epoch"] is record["trained_with"] is None
    assert record["dataset_notes"] == []


def test_what_sets_the_data_apart_is_recorded(make_trainer, tmp_path, monkeypatch, capsys):
    dataset = DATASET_REGISTRY.get("Toy")
    monkeypatch.setattr(dataset, "notes", ["no published split"])
    make_trainer().test()
    assert "Note: no published split\n" in capsys.readouterr().out
    record = read_json(tmp_path / "out" / "results.json")
    assert record["dataset_notes"] == ["no published split"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"config": {}}'])
def test_source_of_weights_without_their_run(make_trainer, tmp_path, content):
    make_trainer().train()
    record = tmp_path / "out" / "config.json"
    record.unlink() if content is None else record.write_text(content)
    trainer = make_trainer(out="eval")
    trainer.load_model(str(tmp_path / "out"))
    trainer.test()
    assert not read_json(tmp_path / "eval" / "results.json")["trained_with"]


def test_peak_memory_is_unknown_where_there_is_no_module_resource(make_trainer, monkeypatch):
    """As under Windows."""
    monkeypatch.setitem(sys.modules, "resource", None)
    trainer = make_trainer()
    trainer.test()
    assert read_json(Path(trainer.output_dir, "results.json"))["peak_memory_bytes"] is None


def test_trainer_says_how_scores_come_about(make_trainer, tmp_path):
    trainer = make_trainer()

    def scores(loader):
        labels = torch.tensor([item.label for item in loader.dataset.data_source])
        for part in labels.split(4):
            yield torch.nn.functional.one_hot(part, 3).float(), part

    trainer.scores = scores
    assert trainer.test() == 100
    assert read_json(tmp_path / "out" / "results.json")["metrics"]["total"] == 18


def test_load_model_errors(make_trainer, tmp_path):
    make_trainer("TRAIN.CHECKPOINT_FREQ", 2).train()
    out = tmp_path / "out"
    trainer = make_trainer(out="eval")
    with pytest.raises(FileNotFoundError, match=r"epoch 3 \(epochs there: 2, 4\)"):
        trainer.load_model(str(out), epoch=3)
    with pytest.raises(FileNotFoundError, match=r"epochs there: none"):
        trainer.load_model(str(tmp_path / "nowhere"))
    wrong = make_trainer("INPUT.SIZE", (8, 8), out="eval")
    wrong.model[2] = torch.nn.Linear(192, 5)
    with pytest.raises(CheckpointError, match=r"2.weight.*\[3, 192\].*\[5, 192\]"):
        wrong.load_model(str(out), epoch=4)
    path = out / "learner" / "model.pth.tar-4"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="model.pth.tar-4.*truncated"):
        trainer.load_model(str(out), epoch=4)


def test_what_lies_within_a_run_is_not_taken_for_the_run(make_trainer, tmp_path):
    make_trainer().train()
    folder = tmp_path / "out" / "learner"
    trainer = make_trainer(out="eval")
    for path, hint in (
        (folder, f'folder of the run, "{tmp_path}/out"'),
        (folder / "checkpoint", "is a file"),
    ):
        with pytest.raises(UserError, match=hint):
            trainer.load_model(str(path))


def test_of_several_models_all_are_loaded_or_none(make_trainer, tmp_path):
    def make(out):
        trainer = make_trainer(out=out)
        second = torch.nn.Linear(2, 1)
        optim = torch.optim.SGD(second.parameters(), 0.1, momentum=0.9)
        trainer.register_model("second", second, optim)
        return trainer

    trained = make("out")
    trained.train()
    path = tmp_path / "out" / "second" / "model.pth.tar-4"
    path.write_bytes(path.read_bytes()[:1000])
    trainer = make("eval")
    torch.nn.init.zeros_(trainer._models["second"].weight)
    before = [t.clone() for model in trainer._models.values() for t in model.parameters()]
    for load in (trainer.load_model, trainer.resume_model_if_exist):
        with pytest.raises(CheckpointError, match="second/model.pth.tar-4"):
            load(str(tmp_path / "out"))
        after = [t for model in trainer._models.values() for t in model.parameters()]
        assert all(map(torch.equal, before, after))
        assert trainer.epochs_done is None and trainer.weights_path is None
        assert not trainer.optim.state and trainer.sched.last_epoch == 0


def test_non_finite_loss(make_trainer):
    trainer = make_trainer("OPTIM.LR", 1e38, "OPTIM.WARMUP_EPOCH", -1)
    with pytest.raises(FloatingPointError, match="infinite or NaN"):
        trainer.train()
    trainer.close_writer()


def test_bad_settings(make_trainer, tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean ToyTrainer"):
        make_trainer("TRAINER.NAME", "ToyTrainr")
    with pytest.raises(ValueError, match="FINAL_MODEL.*best_val"):
        make_trainer("TEST.FINAL_MODEL", "best")
    with pytest.raises(ValueError, match='Unknown split "train"'):
        make_trainer().test("train")
    trainer = make_trainer("TEST.FINAL_MODEL", "best_val")
    trainer.val_loader = None
    with pytest.raises(ValueError, match="validation"):
        trainer.train()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputDirError, match="writable"):
        make_trainer(out="file/out").train()


def test_model_registry(make_trainer):
    trainer = make_trainer()
    assert trainer.get_model_names() == trainer.get_model_names("learner") == ["learner"]
    with pytest.raises(KeyError, match="other"):
        trainer.get_model_names("other")
    with pytest.raises(ValueError, match="already"):
        trainer.register_model("learner")
    trainer.set_model_mode("eval")
    assert not trainer.model.training
    with pytest.raises(ValueError, match='Unknown mode "fly"'):
        trainer.set_model_mode("fly")


def test_import_is_light():
    heavy = ["torchvision", "sklearn", "matplotlib", "tensorboard", "open_clip"]
    code = (
        "import sys, dassl.engine, dassl.data.transforms, dassl.evaluation, dassl.optim\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_json_of_results_is_strict(make_trainer, tmp_path):
    make_trainer().train()
    text = (tmp_path / "out" / "results.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_trainers_of_others_that_take_no_cache_run_beside_those_that_do(make_cfg):
    class Other(type(build_trainer(make_cfg()))):
        def __init__(self, cfg):
            super().__init__(cfg)

    TRAINER_REGISTRY.register(Other, force=True)
    cache = {}
    ours = build_trainer(make_cfg(), cache)
    assert ours.cache is cache and ours.train_loader_x.cache in cache.values()
    assert ours.train_loader_x.cache is build_trainer(make_cfg(), cache).train_loader_x.cache
    other = build_trainer(make_cfg("TRAINER.NAME", "Other", out="other"), cache)
    assert other.cache is None and other.train_loader_x.cache not in cache.values()
    other.train()


def test_build_trainer_needs_a_name():
    with pytest.raises(UnknownNameError, match='""'):
        build_trainer(get_cfg_default())
