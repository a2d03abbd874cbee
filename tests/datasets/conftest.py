from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def make_cfg():
    """The part of a config that data sets read."""

    def make(root, shots=-1, subsample="all", seed=1):
        dataset = SimpleNamespace(ROOT=str(root), NUM_SHOTS=shots, SUBSAMPLE_CLASSES=subsample)
        return SimpleNamespace(DATASET=dataset, SEED=seed)

    return make


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


@pytest.fixture
def own_root(real_root, tmp_path):
    """As real_root, for one test to damage. Files are links: replace them, never write to them."""
    return Path(shutil.copytree(real_root, tmp_path / "data", copy_function=os.link))


@pytest.fixture(scope="session")
def published_split():
    """Return a function from a data set's name to its full published split."""

    def read(name):
        path = SHARED / "splits" / f"split_zhou_{name}.json.gz"
        if not path.is_file():
            pytest.skip("the published split files are not beside this repository")
        with gzip.open(path, "rt") as file:
            return json.load(file)

    return read


@pytest.fixture
def make_images():
    """Make ``count`` tiny images in a folder."""

    def make(folder: Path, count: int) -> None:
        folder.mkdir(parents=True)
        for i in range(count):
            Image.new("L", (2, 2), i).save(folder / f"{i}.png")

    return make
