"""Hosts: the stand-in of upstream's repository and this one, each with the same learners."""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent


@contextmanager
def importing(names, *paths):
    """Within the context, packages of these names are imported anew, from these folders first."""

    def taken_out():
        found = [name for name in sys.modules if name.split(".")[0] in names]
        return {name: sys.modules.pop(name) for name in found}

    before, path, finders = taken_out(), sys.path[:], sys.meta_path[:]
    sys.path[:0] = map(str, paths)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        taken_out()
        sys.modules.update(before)
        sys.path[:], sys.meta_path[:] = path, finders


PACKAGES = {"dassl", "trainers", "datasets"}


@contextmanager
def theirs():
    """Within the context, what is imported are the packages of upstream's repository."""
    with importing(PACKAGES, HERE / "upstream"):
        yield


@contextmanager
def ours():
    """Within the context, the files of upstream's repository lie among those of this one."""
    with importing(PACKAGES):
        for name in ("trainers", "datasets"):
            package = importlib.import_module(name)
            package.__path__.append(str(HERE / "upstream" / name))
        yield


@pytest.fixture
def repositories():
    """Contexts in which theirs, or ours with their files added, is what is imported."""
    return SimpleNamespace(theirs=theirs, ours=ours)


@pytest.fixture(params=["upstream", "ours"])
def host(request, tmp_path):
    """What a codebase has: trainers, the registry of its engine, and a way to build them."""
    folders = [HERE]
    if request.param == "upstream":
        folders.append(HERE / "upstream")
    else:
        pytest.importorskip("torchvision", reason="this repository's engine needs torchvision")
    with importing({"dassl", "fork"}, *folders):
        engine = importlib.import_module("dassl.engine")
        config = importlib.import_module("dassl.config")
        utils = importlib.import_module("dassl.utils")
        trainers = importlib.import_module("fork.trainers")

        def build(trainer, out="out", **options):
            """A trainer of a short run; options of TRAINER.QPROMPT, or KEY__KEY for others."""
            cfg = config.get_cfg_default()
            trainers.extend_cfg(cfg)
            others = {
                "OUTPUT_DIR": str(tmp_path / out),
                "SEED": 1,
                "USE_CUDA": False,
                "MODEL__BACKBONE__NAME": "miniature",
                "OPTIM__NAME": "sgd",
                "OPTIM__LR": 0.05,
                "OPTIM__MAX_EPOCH": 3,
                "OPTIM__WARMUP_EPOCH": 1,
                "TRAIN__CHECKPOINT_FREQ": 1,
                "TRAINER__NAME": trainer,
                **{key: value for key, value in options.items() if "__" in key},
            }
            for key, value in others.items():
                cfg.merge_from_list([key.replace("__", "."), value])
            qprompt = {key: value for key, value in options.items() if "__" not in key}
            if qprompt:
                cfg.TRAINER.QPROMPT = type(cfg)(qprompt)
            cfg.freeze()
            utils.set_random_seed(cfg.SEED)
            return engine.build_trainer(cfg)

        yield SimpleNamespace(registry=engine.TRAINER_REGISTRY, trainers=trainers, build=build)
