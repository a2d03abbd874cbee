"""Hostile values for each key of the configuration: train.py trains, or ends in one line.

The long form tries all of them:

    python -m pytest tests/reliability/test_settings.py -m slow -rP
"""

import contextlib
import io
import math
import shutil
import signal
import warnings
from collections import Counter
from pathlib import Path

import pytest
import yaml

import train
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.results import flatten
from dassl.utils import message
from qprompt.dassl import own_nodes, plain_class

REPOSITORY = Path(__file__).parents[2]
SECONDS = 20  # of a start; where training may take longer, it is not the value's fault

VALUES = {
    int: [-1, 0, 3, 10**5, 2**70],
    float: [-1.0, 0.0, 2.0, 1e30, math.inf, math.nan],
    str: ["", "x", "x" * 3000, "\0", "{}{x}"],
    tuple: [[], [0], [-1, -1], [1, 2, 3], ["x", 1], [None], [[1]], [math.nan, 1], [5, 1]],
    type(None): ["", [], 5, "x", {}, ["a", ""], [[]]],
}
LARGE = {  # where many take long, or much memory, and are no fault
    *("OPTIM.MAX_EPOCH", "DATALOADER.CACHED_VIEWS", "DATALOADER.K_TRANSFORMS"),
    *("INPUT.CROP_PADDING", "INPUT.RANDAUGMENT_N", "INPUT.GB_K"),
    "TRAINER.TIPADAPTER.AUGMENT_EPOCH",
    *(f"TRAINER.{name}.N_CTX_VISION" for name in ("VPT", "IVLP", "PROMPTSRC")),
}
AUGMENTATIONS = ("random_resized_crop", "random_crop", "randaugment", "colorjitter")
USED = {  # which keys are read only with others
    "INPUT.": {
        "INPUT.TRANSFORMS": (*AUGMENTATIONS, "randomgrayscale", "gaussian_blur", "normalize")
    },
    "OPTIM.ADAM": {"OPTIM.NAME": "adam"},
    "OPTIM.GAMMA": {"OPTIM.LR_SCHEDULER": "multi_step", "OPTIM.STEPSIZE": (1,)},
    "OPTIM.NEW_LAYERS": {"OPTIM.STAGED_LR": True},
    "OPTIM.RMSPROP": {"OPTIM.NAME": "rmsprop"},
    "OPTIM.SGD": {"OPTIM.NAME": "sgd", "OPTIM.MOMENTUM": 0.0},
    "OPTIM.STEPSIZE": {"OPTIM.LR_SCHEDULER": "single_step"},
    "OPTIM.WARMUP": {"OPTIM.WARMUP_EPOCH": 1},
    "DATALOADER.TRAIN_X.N_DOMAIN": {"DATALOADER.TRAIN_X.SAMPLER": "RandomDomainSampler"},
    "DATALOADER.TRAIN_X.N_INS": {"DATALOADER.TRAIN_X.SAMPLER": "RandomClassSampler"},
}


def cases():
    """Trainer, key and value: each key of the engine, and each of a trainer's own nodes."""
    cfg = get_cfg_default()
    keys = {("CoOp", key): value for key, value in flatten(cfg) if not key.startswith("TRAINER.")}
    for trainer in TRAINER_REGISTRY.registered_names():
        if not (REPOSITORY / f"configs/trainers/{trainer}/tiny.yaml").exists():
            continue
        nodes = own_nodes(TRAINER_REGISTRY.get(trainer), cfg.TRAINER)
        if plain_class(TRAINER_REGISTRY.get(trainer)):
            nodes = {"QPROMPT": nodes["QPROMPT"]} if trainer == "QCoOp" else {}
        keys |= {(trainer, f"TRAINER.{key}"): value for key, value in flatten(nodes)}
        if trainer == "ProGrad":
            keys |= {(trainer, f"LOSS.{key}"): value for key, value in flatten(cfg.LOSS)}
    for (trainer, key), default in keys.items():
        kind = tuple if isinstance(default, list) else type(default)
        for value in VALUES.get(kind, [not default]):
            if not (key in LARGE and value == 10**5):
                yield trainer, key, value


class TooLong(BaseException):
    """A start that goes on."""


@pytest.fixture
def start(data_root, monkeypatch, tmp_path):
    """Start train.py with one value; return the line that it ends in, or nothing."""
    monkeypatch.chdir(tmp_path)
    cache = {}

    def stop(*_):
        raise TooLong

    previous = signal.signal(signal.SIGALRM, stop)

    def start(trainer, key, value):
        settings = {
            "_BASE_": str(REPOSITORY / f"configs/trainers/{trainer}/tiny.yaml"),
            "DATASET.ROOT": str(data_root),
            "DATASET.NUM_SHOTS": 1,
            "DATASET.SUBSAMPLE_CLASSES": "base",
            "OPTIM.MAX_EPOCH": 1,
            "OUTPUT_DIR": "out",
            "SEED": 1,
            "TRAINER.NAME": trainer,
        }
        for start, others in USED.items():
            settings |= others if key.startswith(start) else {}
        Path("file.yaml").write_text(yaml.safe_dump({**settings, key: value}))
        dataset = str(REPOSITORY / "configs/datasets/digits.yaml")
        args = train.parse_args(["--config-file", "file.yaml", "--dataset-config-file", dataset])
        shutil.rmtree("out", ignore_errors=True)
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train.run(args, train.setup_cfg(args), cache)
        except train.USER_ERRORS as error:
            return message(error)
        except TooLong:
            return "goes on"
        finally:
            signal.alarm(0)
        return ""

    yield start
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("step", [21, pytest.param(1, marks=pytest.mark.slow)])
def test_any_value_trains_or_ends_in_one_line(start, step):
    chosen = list(cases())[::step]
    faults, outcomes = {}, Counter()
    for case in chosen:
        try:
            line = start(*case)
        except Exception as error:
            faults[str(case)[:200]] = f"{type(error).__name__}: {str(error)[:200]}"
        else:
            outcomes["refused" if line else "trains"] += 1
            if "\n" in line or len(line) > 2000:
                faults[str(case)[:200]] = line[:200]
    print(len(chosen), dict(outcomes), *faults.items(), sep="\n")
    assert not faults
