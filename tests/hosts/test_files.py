"""Files of upstream's repository run among those of this one, unmodified, and the other way."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from qprompt.dassl import quantized

pytest.importorskip("torchvision", reason="this repository's engine needs torchvision")

UPSTREAM = Path(__file__).parent / "upstream"
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated"),
    pytest.mark.filterwarnings("ignore:`torch.cuda.amp"),
]


@pytest.fixture(scope="module")
def digits(data_root):
    """A root with the digits and their split file."""
    from datasets.digits import Digits

    Digits.at(str(data_root)).load()
    return str(data_root)


def options(root, trainer, out, **more):
    """The configuration of a run of seconds, in the keys of both engines."""
    return {
        "DATASET.ROOT": root,
        "DATASET.NAME": "DigitsFork",
        "DATASET.NUM_SHOTS": 2,
        "DATASET.SUBSAMPLE_CLASSES": "base",
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 5,
        "DATALOADER.TEST.BATCH_SIZE": 100,
        "INPUT.SIZE": (32, 32),
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.TRANSFORMS": ("normalize",),
        "MODEL.BACKBONE.NAME": "tiny",
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.02,
        "OPTIM.MAX_EPOCH": 2,
        "OUTPUT_DIR": str(out),
        "SEED": 1,
        "USE_CUDA": False,
        "TRAINER.NAME": trainer,
        "TRAINER.COOP.N_CTX": 4,
        "TRAINER.COOP.PREC": "fp32",
        "TRAINER.MAPLE.N_CTX": 2,
        "TRAINER.MAPLE.CTX_INIT": "a photo of a",
        "TRAINER.MAPLE.PREC": "fp32",
        "TRAINER.MAPLE.PROMPT_DEPTH": 3,
        "TRAINER.IVLP.N_CTX_VISION": 2,
        "TRAINER.IVLP.N_CTX_TEXT": 2,
        "TRAINER.IVLP.CTX_INIT": "a photo of a",
        "TRAINER.IVLP.PROMPT_DEPTH_VISION": 3,
        "TRAINER.IVLP.PROMPT_DEPTH_TEXT": 3,
        **more,
    }


def build(root, trainer, out, **more):
    """Build a trainer of the repository that is imported now."""
    config, utils = importlib.import_module("dassl.config"), importlib.import_module("dassl.utils")
    for name in ("datasets.digits_fork", "trainers.coop_fork", "trainers.maple_fork"):
        importlib.import_module(name)
    cfg = config.get_cfg_default()
    for key, value in options(root, trainer, out, **more).items():
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node.setdefault(parent, CfgNode())
        node[name] = value
    cfg.freeze()
    utils.set_random_seed(cfg.SEED)
    engine = importlib.import_module("dassl.engine")
    if trainer not in engine.TRAINER_REGISTRY.registered_names():
        quantized(engine.TRAINER_REGISTRY.get(trainer.removeprefix("Q")))
    return engine.build_trainer(cfg)


def correct(trainer, capsys):
    """The number of images that a trainer classifies correctly."""
    capsys.readouterr()
    trainer.test()
    return int(re.search(r"\* correct: ([\d,]+)", capsys.readouterr().out)[1].replace(",", ""))


# as forks of UPL, ProText, active learning and domain adaptation import them
@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("trainers.coop", "load_clip_to_cpu, TextEncoder"),
        ("trainers.cocoop", "load_clip_to_cpu, TextEncoder"),
        ("trainers.maple", "load_clip_to_cpu"),
        ("trainers.zsclip", "load_clip_to_cpu, CUSTOM_TEMPLATES"),
        ("trainers.imagenet_templates", "IMAGENET_TEMPLATES, IMAGENET_TEMPLATES_SELECT"),
        ("clip.clip", "_transform, available_models, load, tokenize"),
        ("clip.model", "CLIP, LayerNorm, QuickGELU, build_model, convert_weights"),
    ],
)
def test_their_imports(module, names):
    exec(f"from {module} import {names}", {})


@pytest.mark.parametrize("own", ["CoOp", "QMaPLe"])
def test_checkpoints_go_both_ways(repositories, digits, own, tmp_path, capsys):
    fork, plain = f"{own}Fork", f"{own.removeprefix('Q')}Fork"
    counts = {}
    with repositories.theirs():
        trainer = build(digits, fork, tmp_path / "theirs")
        trainer.train()
        counts["theirs"] = correct(trainer, capsys)
    with repositories.ours():
        trainer = build(digits, own, tmp_path / "ours")
        trainer.train()
        counts["ours"] = correct(trainer, capsys)
        for evaluating in (own, fork):
            trainer = build(digits, evaluating, tmp_path / evaluating)
            trainer.load_model(str(tmp_path / "theirs"), epoch=2)
            assert correct(trainer, capsys) == counts["theirs"], evaluating
        trainer = build(digits, fork, tmp_path / "unmodified")
        trainer.train()
        counts["unmodified"] = correct(trainer, capsys)
    with repositories.theirs():
        for origin, evaluating in product(("ours", "unmodified"), {fork, plain}):
            trainer = build(digits, evaluating, tmp_path / "evaluated")
            trainer.load_model(str(tmp_path / origin), epoch=2)
            assert correct(trainer, capsys) == counts[origin], (origin, evaluating)


def test_their_independent_prompts_train(repositories, digits, tmp_path, capsys):
    with repositories.ours():
        run = build(digits, "IVLPFork", tmp_path / "run")
        prompts = {name: p.clone() for name, p in run.model.named_parameters() if "VPT" in name}
        blocks = [f"encoder.transformer.resblocks.{layer}.VPT_shallow" for layer in (1, 2)]
        towers = [f"{tower}_{block}" for tower in ("image", "text") for block in blocks]
        assert prompts.keys() == {"image_encoder.VPT", *towers}
        run.train()
        trained = dict(run.model.named_parameters())
        assert not any(torch.equal(value, trained[name]) for name, value in prompts.items())
        again = build(digits, "IVLPFork", tmp_path / "again")
        again.load_model(str(tmp_path / "run"), epoch=2)
        assert correct(again, capsys) == correct(run, capsys)


def test_their_data_set(repositories, digits, tmp_path):
    """The same shots, from their pickles and from ours, as our own data set draws."""

    def shots(dataset, seed, root=digits):
        names = {"DATASET.NAME": dataset, "SEED": seed, "DATASET.SUBSAMPLE_CLASSES": "new"}
        data = build(root, "CoOpFork", tmp_path / "out", **names).dm.dataset
        return [[(item.impath, item.label) for item in part] for part in (data.train_x, data.val)]

    pickles = Path(digits, "digits", "split_fewshot")
    with repositories.theirs():
        their_own = shots("DigitsFork", 5)
        assert pickles.joinpath("shot_2-seed_5.pkl").exists()
    with repositories.ours():
        assert shots("DigitsFork", 5) == their_own == shots("Digits", 5), "pickled by them"
        assert shots("DigitsFork", 6) == shots("Digits", 6), "drawn here"
        assert pickles.joinpath("shot_2-seed_6.pkl").exists()
        assert shots("DigitsFork", 6) == shots("Digits", 6), "pickled here"


def test_their_script(repositories, digits, monkeypatch, tmp_path):
    """Upstream's train.py trains and evaluates their trainers and ours, epoch by epoch."""
    monkeypatch.chdir(UPSTREAM.parents[2])

    def run(trainer, config, out, *flags):
        command = ["--root", digits, "--seed", "1", "--output-dir", str(tmp_path / out), *flags]
        command += ["--dataset-config-file", "configs/datasets/digits.yaml", "--trainer", trainer]
        command += ["--config-file", f"configs/trainers/{config}/tiny.yaml", "OPTIM.MAX_EPOCH", "2"]
        command += ["TRAIN.CHECKPOINT_FREQ", "1", "DATASET.NUM_SHOTS", "1"]
        command += ["DATASET.SUBSAMPLE_CLASSES", "base"]
        monkeypatch.setattr(sys, "argv", ["train.py", *command])
        stdout = sys.stdout
        try:
            runpy.run_path(str(UPSTREAM / "train.py"), run_name="__main__")
        finally:
            sys.stdout.close()  # the log file; upstream leaves that to the end of the process
            sys.stdout = stdout
        return {
            file.stem: json.loads(file.read_text())
            for file in tmp_path.joinpath(out).glob("results*.json")
        }

    with repositories.ours():
        importlib.import_module("trainers.coop_fork")
        for trainer, config in (("CoOpFork", "CoOp"), ("QCoOp", "QCoOp")):
            trained = run(trainer, config, trainer)["results"]
            flags = ["--eval-only", "--model-dir", str(tmp_path / trainer), "--load-epoch"]
            for epoch in ("2", "1"):
                tested = run(trainer, config, f"{trainer}-test", *flags, epoch)
            assert tested["results"]["metrics"] == trained["metrics"]
            assert {name: record["epoch"] for name, record in tested.items()} == {
                "results": 2,
                "results-epoch1": 1,
            }
            assert all(record["trained_with"] == trained["config"] for record in tested.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_their_cuda_on_a_machine_without(main, monkeypatch):
    import trainers.coop

    monkeypatch.setattr(
        trainers.coop.CoOp, "build_model", lambda self: torch.zeros(1).cuda() and None
    )
    with pytest.raises(SystemExit, match=r"CoOp puts tensors on a GPU by itself \(\.cuda\(\)\)"):
        main("CoOp", None)


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_too_little_memory(main, monkeypatch, error):
    def build_model(self):
        raise error("2 GiB")

    monkeypatch.setattr("trainers.coop.CoOp.build_model", build_model)
    with pytest.raises(SystemExit, match=r"more memory than there is .*2 GiB.*lower DATALOADER"):
        main("CoOp", None)
