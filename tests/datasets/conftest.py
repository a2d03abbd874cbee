from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def make_cfg():
    """The part of a config that data sets read."""

    def make(root, shots=-1, subsample="all", seed=1):
        dataset = SimpleNamespace(ROOT=str(root), NUM_SHOTS=shots, SUBSAMPLE_CLASSES=subsample)
        return SimpleNamespace(DATASET=dataset, SEED=seed)

    return make


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


@pytest.fixture(scope="session")
def layouts():
    """Functions that write the official annotation files, and the images if they are given.

    Each takes the folder of the data set and, for each part of its official split, pairs of an
    image's path below the image folder and the number, from 0, of its class.
    """
    return SimpleNamespace(
        OxfordPets=_oxford_pets,
        StanfordCars=_stanford_cars,
        OxfordFlowers=_oxford_flowers,
        UCF101=_ucf101,
        DescribableTextures=_dtd,
    )


def _write(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _stem(image: str) -> str:
    return image.rpartition(".")[0]


def _oxford_pets(folder, names, trainval, test):
    for part, items in (("trainval", trainval), ("test", test)):
        lines = [f"{_stem(image)} {label + 1} 1 2" for image, label in items]
        _write(folder / f"annotations/{part}.txt", lines)


def _stanford_cars(folder, names, trainval, test):
    def annotations(items):
        fields = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
        records = [(1, label + 1, os.path.basename(image)) for image, label in items]
        return {"annotations": np.array(records, dtype=fields)[None]}

    (folder / "devkit").mkdir(parents=True)
    year_last = [" ".join([*name.split(" ")[1:], name.split(" ")[0]]) for name in names]
    meta = {"class_names": np.array(year_last, dtype=object)[None]}
    savemat(folder / "devkit/cars_meta.mat", meta)
    savemat(folder / "devkit/cars_train_annos.mat", annotations(trainval))
    savemat(folder / "cars_test_annos_withlabels.mat", annotations(test))


def _oxford_flowers(folder, names, items):
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[y + 1 for _, y in sorted(items)]])})
    content = {str(i): name for i, name in reversed(list(enumerate(names, 1)))}
    (folder / "cat_to_name.json").write_text(json.dumps(content))


def _ucf101(folder, names, trainval, test):
    actions = [name.replace("_", "") for name in names]

    def videos(items, with_label):
        for image, label in items:
            video = f"{actions[label]}/{_stem(os.path.basename(image))}.avi"
            yield f"{video} {label + 1}" if with_label else video

    lists = folder / "ucfTrainTestlist"
    _write(lists / "classInd.txt", [f"{i} {action}" for i, action in enumerate(actions, 1)])
    _write(lists / "trainlist01.txt", videos(trainval, True))
    _write(lists / "testlist01.txt", videos(test, False))


def _dtd(folder, names, train, val, test):
    for part, items in (("train", train), ("val", val), ("test", test)):
        _write(folder / f"labels/{part}1.txt", [image for image, _ in items])
    for name in names:
        (folder / "images" / name).mkdir(parents=True)


STAND_INS = {  # data set: class names, and sizes of train, val and test
    "OxfordPets": (["abyssinian", "american_bulldog", "yorkshire_terrier"], (12, 3, 6)),
    "StanfordCars": (
        ["2000 AM General Hummer SUV", "2012 Ram C/V Cargo Van Minivan", "2012 smart fortwo"],
        (12, 3, 6),
    ),
    "OxfordFlowers": (["pink primrose", "hard-leaved pocket orchid", "cyclamen"], (15, 6, 9)),
    "Food101": (["apple_pie", "baby_back_ribs", "waffles"], (12, 3, 6)),
    "FGVCAircraft": (["707-320", "727-200", "Yak-42"], (9, 6, 6)),
    "SUN397": (["abbey", "outdoor apartment_building", "youth_hostel"], (12, 3, 6)),
    "DescribableTextures": (["banded", "polka-dotted", "zigzagged"], (9, 6, 6)),
    "UCF101": (["Apply_Eye_Makeup", "Handstand_Pushups", "Yo_Yo"], (12, 3, 6)),
    "ImageNet": (["tench", "missile", "missile", "sunglasses"], (20, 8, 8)),
    "ImageNetV2": (["tench", "missile", "missile", "sunglasses"], (8, 0, 8)),
    "ImageNetSketch": (["tench", "missile", "missile", "sunglasses"], (8, 0, 8)),
    "ImageNetA": (["missile", "sunglasses"], (4, 0, 4)),
    "ImageNetR": (["tench", "missile", "missile"], (6, 0, 6)),
}
WNIDS = ["n01440764", "n03773504", "n04008634", "n04355933"]


@pytest.fixture(scope="session")
def stand_ins():
    """Class names and sizes of the data sets in stand_in_root."""
    return STAND_INS


@pytest.fixture(scope="session")
def stand_in_root(tmp_path_factory, layouts):
    """A data root with a few images of 13 data sets in their layouts; not to be damaged."""
    root = tmp_path_factory.mktemp("stand_ins")

    def draw(folder, images):
        for i, image in enumerate(images):
            path = root / folder / image
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(path)

    def parts(pattern, *counts):
        """Items of three classes for each part, with running numbers in their names."""
        numbers = iter(range(1, 1000))
        return [
            [(pattern(label, next(numbers)), label) for label in range(3) for _ in range(count)]
            for count in counts
        ]

    def make(name, dataset_dir, image_dir, pattern, *counts):
        items = parts(pattern, *counts)
        getattr(layouts, name)(root / dataset_dir, STAND_INS[name][0], *items)
        draw(f"{dataset_dir}/{image_dir}", [image for part in items for image, _ in part])

    def within(folders, middle="/"):
        return lambda label, i: f"{folders[label]}{middle}{i}.jpg"

    breeds = ["Abyssinian", "american_bulldog", "yorkshire_terrier"]
    make("OxfordPets", "oxford_pets", "images", within(breeds, "_"), 5, 2)
    make("OxfordFlowers", "oxford_flowers", "jpg", lambda _, i: f"image_{i:05d}.jpg", 10)
    textures = STAND_INS["DescribableTextures"][0]
    make("DescribableTextures", "dtd", "images", within(textures), 3, 2, 2)
    actions = [f"{n}/v_{n.replace('_', '')}_g" for n in STAND_INS["UCF101"][0]]
    make("UCF101", "ucf101", "UCF-101-midframes", within(actions, ""), 5, 2)
    cars = [
        [(f"cars_{part}/{i:05d}.jpg", i % 3) for i in range(n)]
        for part, n in (("train", 15), ("test", 6))
    ]
    _stanford_cars(root / "stanford_cars", STAND_INS["StanfordCars"][0], *cars)
    draw("stanford_cars", [image for part in cars for image, _ in part])

    dishes = parts(within(STAND_INS["Food101"][0]), 5, 2)
    for part, items in zip(("train", "test"), dishes, strict=True):
        _write(root / f"food-101/meta/{part}.txt", [_stem(image) for image, _ in items])
        draw("food-101/images", [image for image, _ in items])

    variants = STAND_INS["FGVCAircraft"][0]
    _write(root / "fgvc_aircraft/variants.txt", variants)
    planes = parts(lambda _, i: f"{i:07d}.jpg", 3, 2, 2)
    for part, items in zip(("train", "val", "test"), planes, strict=True):
        lines = [f"{_stem(image)} {variants[label]}" for image, label in items]
        _write(root / f"fgvc_aircraft/images_variant_{part}.txt", lines)
        draw("fgvc_aircraft/images", [image for image, _ in items])

    scenes = ["a/abbey", "a/apartment_building/outdoor", "y/youth_hostel"]
    _write(root / "sun397/ClassName.txt", [f"/{scene}" for scene in scenes])
    for part, items in zip(("Training", "Testing"), parts(within(scenes), 5, 2), strict=True):
        _write(root / f"sun397/{part}_01.txt", [f"/{image}" for image, _ in items])
        draw("sun397/SUN397", [image for image, _ in items])

    names = zip(WNIDS, STAND_INS["ImageNet"][0], strict=True)
    _write(root / "imagenet/classnames.txt", [f"{i} {name}" for i, name in reversed(list(names))])
    for folder, wnids, count in (
        ("imagenet/images/train", WNIDS, 5),
        ("imagenet/images/val", WNIDS, 2),
        ("imagenetv2/imagenetv2-matched-frequency-format-val", ["0", "1", "2", "3"], 2),
        ("imagenet-sketch/images", WNIDS, 2),
        ("imagenet-adversarial/imagenet-a", WNIDS[2:], 2),
        ("imagenet-rendition/imagenet-r", WNIDS[:3], 2),
    ):
        draw(folder, [f"{wnid}/{i}.JPEG" for wnid in wnids for i in range(count)])
    (root / "imagenet-adversarial/imagenet-a/README.txt").touch()
    return root


@pytest.fixture
def own_stand_ins(stand_in_root, tmp_path):
    """As stand_in_root, without the splits saved there, for one test to damage."""
    splits = shutil.ignore_patterns("split_*.json")
    return Path(shutil.copytree(stand_in_root, tmp_path / "data", ignore=splits))
