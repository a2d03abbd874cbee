"""Get a data set and lay it out: ``python -m datasets.prepare NAME --root DATA``.

What torchvision can download is downloaded, and appears in its place only when it is whole; an
interrupted run is started anew by the same command. Of the others, the command says where they are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, print_anything, write_json

from .base import GeneratedDataset, SplitDataset
from .check import NAMES

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
TORCHVISION = {  # the class in torchvision.datasets
    "Caltech101": "Caltech101",
    "DescribableTextures": "DTD",
    "EuroSAT": "EuroSAT",
    "FGVCAircraft": "FGVCAircraft",
    "Food101": "Food101",
    "OxfordFlowers": "Flowers102",
    "OxfordPets": "OxfordIIITPet",
}
MD5_MISSING_IN_TORCHVISION = {
    "FGVCAircraft": (
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        "d4acdd33327262359767eeaa97a4f732",
    ),
}
ELSEWHERE = {
    "ImageNet": (
        "Register at https://image-net.org and extract ILSVRC2012 to images/train/<WordNet id> and "
        f"images/val/<WordNet id>; classnames.txt is linked in {COOP}"
    ),
    "ImageNetV2": (
        "Extract imagenetv2-matched-frequency.tar.gz from "
        "https://huggingface.co/datasets/vaishaal/ImageNetV2"
    ),
    "ImageNetSketch": (
        "Put the class folders of https://github.com/HaohanWang/ImageNet-Sketch into images/"
    ),
    "ImageNetA": "Extract the archive of https://github.com/hendrycks/natural-adv-examples",
    "ImageNetR": "Extract the archive of https://github.com/hendrycks/imagenet-r",
    "StanfordCars": (
        "The original host is gone; https://github.com/pytorch/vision/issues/7545 lists copies. "
        "With the split file, the images are enough"
    ),
    "SUN397": (
        "The original host is gone; https://github.com/pytorch/vision/issues/9348 follows that, "
        "and OpenDataLab (https://opendatalab.com/OpenDataLab/SUN397) has a copy"
    ),
    "UCF101": f"UCF-101-midframes.zip, the middle frames of the videos, is linked in {COOP}",
}
ARCHIVES = ("*.zip", "*.tar", "*.tgz", "*.tar.gz")


class PrepareError(UserError):
    """A data set that cannot be put where it belongs."""


def prepare(name: str, root: str) -> str:
    """Download a data set, or draw it if it is one of those made here.

    Args:
        name: a registered name.
        root: the folder that holds the data sets.

    Returns:
        The folder of the data set.

    Raises:
        PrepareError: it is there already, has to be got by hand, or the download failed.
    """
    dataset = DATASET_REGISTRY.get(name).at(root)
    target = dataset.dataset_dir
    if isinstance(dataset, GeneratedDataset):
        dataset.load()
        return target
    if os.path.lexists(target):
        raise PrepareError(f"{target} exists and is left as it is; python -m datasets.check it")
    if name in ELSEWHERE:
        raise PrepareError(
            f"{name} cannot be downloaded here. {ELSEWHERE[name]}. Put it into {target}; "
            "docs/datasets.md shows the layout"
        )
    scratch = Path(f"{target}.download")
    shutil.rmtree(scratch, ignore_errors=True)  # what an interrupted run has left
    scratch.mkdir(parents=True)
    _download(name, scratch)
    folder = _laid_out(dataset, scratch)
    if name in COMPLETE:
        COMPLETE[name](folder)
    os.rename(folder, target)
    shutil.rmtree(scratch, ignore_errors=True)
    return target


def _download(name: str, folder: Path) -> None:
    from torchvision import datasets

    try:
        with _extraction_below_its_folder():
            if name in MD5_MISSING_IN_TORCHVISION:
                url, md5 = MD5_MISSING_IN_TORCHVISION[name]
                datasets.utils.download_and_extract_archive(url, folder, md5=md5)
            getattr(datasets, TORCHVISION[name])(folder, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise PrepareError(
            f"{name} could not be downloaded ({error}); run the command again, or see "
            "docs/datasets.md for where else it is"
        ) from error


@contextmanager
def _extraction_below_its_folder() -> Iterator[None]:
    """Refuse members of tar archives that would lie elsewhere; zipfile moves such ones inside."""
    if not hasattr(tarfile, "data_filter"):
        raise PrepareError(
            "this Python extracts archives without a check of their paths: install 3.10.12, "
            "3.11.4, 3.12 or newer"
        )
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


def _laid_out(dataset: SplitDataset, scratch: Path) -> Path:
    """Return the folder below ``scratch`` that is laid out as the data set's."""
    images = Path(dataset.image_dir).name
    found = next((path for path in sorted(scratch.rglob(images)) if path.is_dir()), None)
    if found is None:
        raise PrepareError(f"the download to {scratch} holds no folder {images!r}")
    folder = found.parent
    for pattern in ARCHIVES:
        for archive in folder.glob(pattern):
            archive.unlink()
    return folder


def _add_flower_names(folder: Path) -> None:
    """Write the class names, which are not in the official archive, as CoOp has them."""
    from torchvision.datasets import Flowers102

    if names := getattr(Flowers102, "classes", None):  # torchvision 0.22 and later
        names = {str(i): name.rstrip("?") for i, name in enumerate(names, 1)}
        write_json(names, folder / "cat_to_name.json")
    else:
        print(f"cat_to_name.json, needed where there is no split file, is linked in {COOP}")


COMPLETE = {"OxfordFlowers": _add_flower_names}  # what the download lacks


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.prepare", description=__doc__)
    parser.add_argument("name", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--root", required=True, help="the folder that holds the data sets")
    args = parser.parse_args(argv)
    print_anything()
    try:
        folder = prepare(args.name, args.root)
    except PrepareError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.name} is in {folder}")
    dataset = DATASET_REGISTRY.get(args.name)
    if dataset.split_file and dataset.published_sizes:
        print(f"For published results, put {dataset.split_file} there, too; see {COOP}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
