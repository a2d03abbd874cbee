"""Whole runs for tests: train.py as a user calls it, and trainers built in this process."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared/data"

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of child processes
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="qprompt-tests-")  # of features


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """A data root that keeps the digits once they are written."""
    return tmp_path_factory.mktemp("data")


def arguments(data_root, trainer, output_dir=None, *flags, config="tiny", opts=()):
    """The command line of a short run on digits."""
    return [
        *("--root", str(data_root), "--seed", "1", "--trainer", trainer),
        *("--dataset-config-file", "configs/datasets/digits.yaml"),
        *("--config-file", f"configs/trainers/{trainer}/{config}.yaml"),
        *(("--output-dir", str(output_dir)) if output_dir else ()),
        *flags,
        *("DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", "2"),
        *map(str, opts),
    ]


@pytest.fixture(scope="session")
def command(data_root):
    """Run train.py as a process and return it finished."""

    def run(trainer, output_dir, *flags, **options):
        command = [sys.executable, "train.py"]
        command += arguments(data_root, trainer, output_dir, *flags, **options)
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    return run


@pytest.fixture
def main(data_root, monkeypatch):
    """Run train.py's main in this process."""
    monkeypatch.chdir(REPOSITORY)

    def main(trainer, output_dir, *flags, **options):
        import train

        train.main(arguments(data_root, trainer, output_dir, *flags, **options))

    return main


@pytest.fixture
def build(data_root, monkeypatch):
    """Build a trainer in this process, seeded like a run of train.py."""
    monkeypatch.chdir(REPOSITORY)

    def build(trainer, output_dir, *flags, cache=None, **options):
        import train
        from dassl.engine import build_trainer
        from dassl.utils import set_random_seed

        cfg = train.setup_cfg(
            train.parse_args(arguments(data_root, trainer, output_dir, *flags, **options))
        )
        set_random_seed(cfg.SEED)
        return build_trainer(cfg, cache)

    return build


@pytest.fixture(scope="session")
def result():
    """Read the results.json of a run."""
    return lambda folder: json.loads((Path(folder) / "results.json").read_text())


@pytest.fixture(scope="session")
def real_root(tmp_path_factory):
    """A data root with the small real copies of EuroSAT and Caltech101; not to be changed."""
    archives = [SHARED / "eurosat_small.tar.gz", SHARED / "caltech101_small.tar.gz"]
    if not all(archive.is_file() for archive in archives):
        pytest.skip("the small copies of EuroSAT and Caltech101 are not beside this repository")
    root = tmp_path_factory.mktemp("data")
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
    return root


@pytest.fixture(scope="session")
def vit_b32_file(tmp_path_factory):
    """A file with random weights of ViT-B/32, in OpenAI's layout."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from safetensors.torch import save_file

    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=12, width=768, head_width=64, patch_size=32, image_size=224)
    text = CLIPTextCfg(width=512, heads=8, layers=12)
    state = CLIP(512, vision, text, quick_gelu=True).state_dict()
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file({name: tensor.half() for name, tensor in state.items()}, path)
    yield str(path)
    path.unlink()


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if not path:
        pytest.skip("no Chromium on the PATH: install the package chromium")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
