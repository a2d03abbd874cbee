"""Folders of synthetic runs: results.json as the engine writes it, and logs as upstream does."""

import json

import pytest

CONFIG = {"OPTIM": {"LR": 0.002}, "OUTPUT_DIR": "ignored", "MODEL": {"INIT_WEIGHTS": ""}}


def nested(trainer, dataset, subset, shots, seed, **options):
    """A configuration; ``options`` are dotted keys with ``__`` for the dot."""
    config = json.loads(json.dumps(CONFIG))
    config["TRAINER"] = {"NAME": trainer}
    config["DATASET"] = {"NAME": dataset, "SUBSAMPLE_CLASSES": subset, "NUM_SHOTS": shots}
    config["SEED"] = seed
    for key, value in options.items():
        *parents, name = key.split("__")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return config


class Runs:
    """Writes runs below a folder; each method returns the folder of its run."""

    def __init__(self, root):
        self.root = root

    def trained(
        self, trainer, dataset, accuracy, subset="all", shots=16, seed=1, name=None, **options
    ):
        """A run that trains and tests; ``options`` as in :func:`nested`, or fields."""
        fields = {k: options.pop(k) for k in list(options) if k.islower()}
        config = nested(trainer, dataset, subset, shots, seed, **options)
        name = name or f"{trainer}{fields.get('bits') or ''}"
        folder = self.root / dataset / subset / name / f"shots{shots}" / f"seed{seed}"
        self._write(folder, config, accuracy, {"epoch": 50, "weights": None, **fields})
        (folder / "config.json").write_text(json.dumps({"config": config}))
        return folder

    def tested(self, origin, dataset, accuracy, subset="all", shots=16, **fields):
        """An evaluation of what ``origin`` trained."""
        trained = json.loads((origin / "results.json").read_text())
        config = {**trained["config"], "OPTIM": {"LR": 0.1}}  # of no effect, once trained
        config["DATASET"] = {"NAME": dataset, "SUBSAMPLE_CLASSES": subset, "NUM_SHOTS": shots}
        folder = self.root / "evaluation" / origin.relative_to(self.root) / dataset / subset
        names = ("bits", "stored_bytes", "backbone", "irrelevant_settings")
        kept = {key: trained[key] for key in names if key in trained}
        weights = origin / "prompt_learner" / "model.pth.tar-50"
        self._write(
            folder, config, accuracy, {**kept, "epoch": 50, "weights": str(weights), **fields}
        )
        return folder

    def base_to_new(self, trainer, dataset, base, new, **options):
        origin = self.trained(trainer, dataset, base, subset="base", **options)
        fields = {key: value for key, value in options.items() if key in ("split",)}
        return origin, self.tested(origin, dataset, new, subset="new", **fields)

    def zero_shot(self, dataset, accuracy, subset="all", seed=1, **fields):
        config = nested("ZeroshotCLIP", dataset, subset, 16, seed)
        folder = self.root / dataset / subset / "ZeroshotCLIP" / f"seed{seed}"
        fields = {"epoch": None, "weights": None, "stored_bytes": 0, **fields}
        self._write(folder, config, accuracy, fields)
        return folder

    def _write(self, folder, config, accuracy, fields):
        folder.mkdir(parents=True, exist_ok=True)
        result = {
            "format_version": 1,
            "trainer": config["TRAINER"]["NAME"],
            "dataset": config["DATASET"]["NAME"],
            "backbone": "ViT-B/16",
            "seed": config["SEED"],
            "num_shots": config["DATASET"]["NUM_SHOTS"],
            "subsample_classes": config["DATASET"]["SUBSAMPLE_CLASSES"],
            "split": "test",
            "metrics": {"accuracy": accuracy},
            "config": config,
            "stored_bytes": 4096,
            "bits": None,
            **fields,
        }
        (folder / "results.json").write_text(json.dumps(result))


@pytest.fixture(scope="session")
def runs_below():
    """A function from a folder to a writer of runs."""
    return Runs


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)
