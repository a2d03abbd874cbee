"""The 13 data sets that no small real copy exists of, in their exact layouts."""

from __future__ import annotations

import os
from itertools import chain

import pytest

import datasets
from dassl.utils import read_image
from datasets.base import EvaluationDataset
from datasets.items import ClassFolderError
from datasets.splits import DatasetNotFoundError, MissingImagesError, SplitError

NAMES = [
    *("OxfordPets", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft", "SUN397"),
    *("DescribableTextures", "UCF101"),
    *("ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
]
ANNOTATED = NAMES[:8]
TARGETS = NAMES[9:]


def parts_of(dataset):
    return dataset.train_x, dataset.val, dataset.test


@pytest.mark.parametrize("name", NAMES)
def test_counts_names_and_images(stand_in_root, stand_ins, make_cfg, name):
    dataset = getattr(datasets, name)(make_cfg(stand_in_root))
    classnames, sizes = stand_ins[name]
    assert dataset.classnames == classnames
    assert tuple(map(len, parts_of(dataset))) == sizes
    paths = [{item.impath for item in part} for part in parts_of(dataset)]
    assert [len(part) for part in paths] == list(sizes), "an image is listed once"
    for item in chain(*parts_of(dataset)):
        assert item.classname == classnames[item.label]
        read_image(item.impath)
    if name in TARGETS:
        assert paths[0] == paths[2] and isinstance(dataset, EvaluationDataset)
    elif name == "ImageNet":
        assert paths[1] == paths[2] and not paths[0] & paths[2]
    else:
        assert not paths[0] & paths[1] and not (paths[0] | paths[1]) & paths[2]


@pytest.mark.parametrize("name", NAMES)
def test_base_and_new(stand_in_root, stand_ins, make_cfg, name):
    cls, names = getattr(datasets, name), stand_ins[name][0]
    whole, base, new = (cls(make_cfg(stand_in_root, subsample=s)) for s in ("all", "base", "new"))
    half = (len(names) + 1) // 2
    assert (base.classnames, new.classnames) == (names[:half], names[half:])
    for all_items, *halves in zip(*map(parts_of, (whole, base, new)), strict=True):
        assert sorted(i.impath for i in all_items) == sorted(i.impath for i in chain(*halves))


@pytest.mark.parametrize("name", ANNOTATED)
def test_the_split_is_saved_and_read_back(stand_in_root, make_cfg, name):
    cls = getattr(datasets, name)
    made = cls(make_cfg(stand_in_root))
    assert os.path.isfile(made.split_path) == bool(cls.split_file)
    assert parts_of(cls(make_cfg(stand_in_root, seed=2))) == parts_of(made)


@pytest.mark.parametrize("name", ANNOTATED)
def test_a_missing_image_is_named_with_and_without_split_file(own_stand_ins, make_cfg, name):
    cls = getattr(datasets, name)
    victim = cls.at(str(own_stand_ins)).find().test[-1].impath
    for _ in range(2):
        os.rename(victim, f"{victim}.away")
        with pytest.raises(MissingImagesError, match="1 of .* the first being") as error:
            cls(make_cfg(own_stand_ins))
        assert error.value.missing == [victim] and victim in str(error.value)
        os.rename(f"{victim}.away", victim)
        cls(make_cfg(own_stand_ins))  # saves the split


@pytest.mark.parametrize(
    "name, path",
    [
        ("OxfordPets", "oxford_pets/annotations/test.txt"),
        ("StanfordCars", "stanford_cars/devkit/cars_meta.mat"),
        ("StanfordCars", "stanford_cars/devkit/cars_train_annos.mat"),
        ("StanfordCars", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("OxfordFlowers", "oxford_flowers/imagelabels.mat"),
        ("OxfordFlowers", "oxford_flowers/cat_to_name.json"),
        ("Food101", "food-101/meta/train.txt"),
        ("FGVCAircraft", "fgvc_aircraft/variants.txt"),
        ("FGVCAircraft", "fgvc_aircraft/images_variant_val.txt"),
        ("SUN397", "sun397/ClassName.txt"),
        ("SUN397", "sun397/Testing_01.txt"),
        ("DescribableTextures", "dtd/labels/val1.txt"),
        ("UCF101", "ucf101/ucfTrainTestlist/classInd.txt"),
        ("UCF101", "ucf101/ucfTrainTestlist/trainlist01.txt"),
        ("ImageNet", "imagenet/classnames.txt"),
        ("ImageNetA", "imagenet/classnames.txt"),
    ],
)
def test_an_annotation_file_that_is_missing_or_broken_is_named(own_stand_ins, make_cfg, name, path):
    cls, file = getattr(datasets, name), own_stand_ins / path
    file.write_bytes(b"\xff\xfe nonsense")
    with pytest.raises(SplitError, match=str(file)):
        cls(make_cfg(own_stand_ins))
    file.unlink()
    with pytest.raises(DatasetNotFoundError, match=f"{file} is missing"):
        cls(make_cfg(own_stand_ins))


@pytest.mark.parametrize(
    "name, path, line, message",
    [
        ("OxfordPets", "oxford_pets/annotations/test.txt", "pug_1 x 1 1", "line 7: 'pug_1 x 1 1'"),
        ("Food101", "food-101/meta/test.txt", "soup/1", "soup/1.jpg has the class 'soup'.*apple"),
        ("FGVCAircraft", "fgvc_aircraft/images_variant_val.txt", "12 Zeppelin", "'Zeppelin'"),
        ("SUN397", "sun397/Training_01.txt", "/z/zoo/sun_1.jpg", "the class 'z/zoo'"),
        ("UCF101", "ucf101/ucfTrainTestlist/testlist01.txt", "Fly/v_1.mp4", "does not match"),
        ("ImageNet", "imagenet/classnames.txt", "tench", "line 5: 'tench'"),
    ],
)
def test_a_bad_line_is_named(own_stand_ins, make_cfg, name, path, line, message):
    with (own_stand_ins / path).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SplitError, match=message):
        getattr(datasets, name)(make_cfg(own_stand_ins))


@pytest.mark.parametrize("name", ["OxfordPets", "Food101", "FGVCAircraft", "SUN397", "ImageNet"])
def test_annotation_files_of_windows(own_stand_ins, make_cfg, name):
    cls = getattr(datasets, name)
    expected = parts_of(cls(make_cfg(own_stand_ins)))
    folder = own_stand_ins / cls.dataset_dir
    for path in [*folder.glob("*.txt"), *folder.glob("annotations/*"), *folder.glob("meta/*")]:
        lines = path.read_text().replace("/", "\\").replace("\n", "\r\n")
        path.write_bytes(lines.encode("utf-8-sig"))
    for path in folder.glob("split_*.json"):
        path.unlink()
    assert parts_of(cls(make_cfg(own_stand_ins))) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[]", "cat_to_name.json must map"),
        ('{"one": "rose"}', "cat_to_name.json must map"),
        ('{"1": null, "2": "rose", "3": "daisy"}', "label 0 has the name None"),
    ],
)
def test_names_of_flowers_that_are_none(own_stand_ins, make_cfg, names, message):
    (own_stand_ins / "oxford_flowers/cat_to_name.json").write_text(names)
    with pytest.raises(SplitError, match=message):
        datasets.OxfordFlowers(make_cfg(own_stand_ins))


def test_test_annotations_of_cars_without_labels_are_told_from_those_with(own_stand_ins, make_cfg):
    from scipy.io import savemat

    path = own_stand_ins / "stanford_cars/cars_test_annos_withlabels.mat"
    savemat(path, {"annotations": {"fname": "00001.jpg"}})
    with pytest.raises(SplitError, match="withlabels.mat: an element of 'annotations' has no 'cl"):
        datasets.StanfordCars(make_cfg(own_stand_ins))
    savemat(path, {"other": 1})
    with pytest.raises(SplitError, match="withlabels.mat holds no variable 'annotations'"):
        datasets.StanfordCars(make_cfg(own_stand_ins))


def test_imagenet_labels_agree(stand_in_root, make_cfg):
    source, v2, sketch, a, r = (
        getattr(datasets, name)(make_cfg(stand_in_root)) for name in ["ImageNet", *TARGETS]
    )
    assert source.lab2cname == v2.lab2cname == sketch.lab2cname
    folder_of = {i.label: os.path.basename(os.path.dirname(i.impath)) for i in source.test}
    assert list(folder_of.values()) == sorted(folder_of.values())
    assert {i.label: os.path.basename(os.path.dirname(i.impath)) for i in v2.test} == {
        label: str(label) for label in range(4)
    }
    wnids = list(folder_of.values())
    for subset, kept in ((a, wnids[2:]), (r, wnids[:3])):
        for item in subset.test:
            assert os.path.basename(os.path.dirname(item.impath)) == kept[item.label]


def test_shots_of_imagenet_come_from_its_training_images(stand_in_root, make_cfg):
    dataset = datasets.ImageNet(make_cfg(stand_in_root, shots=2))
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (8, 8, 8)
    base = datasets.ImageNet(make_cfg(stand_in_root, shots=2, subsample="base"))
    kept = {item.impath for item in dataset.train_x if item.label < 2}
    assert {item.impath for item in base.train_x} == kept


@pytest.mark.parametrize("name", TARGETS)
def test_shots_do_not_touch_a_target(stand_in_root, make_cfg, name):
    cls = getattr(datasets, name)
    whole = cls(make_cfg(stand_in_root))
    assert parts_of(cls(make_cfg(stand_in_root, shots=16))) == parts_of(whole)


def test_classnames_beside_a_target_come_first(own_stand_ins, make_cfg):
    names = (own_stand_ins / "imagenet/classnames.txt").read_text()
    (own_stand_ins / "imagenet-rendition/classnames.txt").write_text(names.replace("tench", "fish"))
    assert datasets.ImageNetR(make_cfg(own_stand_ins)).classnames[0] == "fish"
    assert datasets.ImageNetSketch(make_cfg(own_stand_ins)).classnames[0] == "tench"


def test_a_class_folder_that_is_missing_or_unknown_is_named(own_stand_ins, make_cfg):
    (own_stand_ins / "imagenet/images/val/n04008634").rename(own_stand_ins / "elsewhere")
    with pytest.raises(ClassFolderError, match="val/n04008634 is missing"):
        datasets.ImageNet(make_cfg(own_stand_ins))
    (own_stand_ins / "imagenetv2/imagenetv2-matched-frequency-format-val/3").rename(
        own_stand_ins / "3"
    )
    with pytest.raises(ClassFolderError, match="format-val/3 is missing"):
        datasets.ImageNetV2(make_cfg(own_stand_ins))
    (own_stand_ins / "imagenet-adversarial/imagenet-a/n00000000").mkdir()
    with pytest.raises(SplitError, match="imagenet-a/n00000000 is no class of classnames.txt"):
        datasets.ImageNetA(make_cfg(own_stand_ins))


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_that_is_not_there(tmp_path, make_cfg, name):
    with pytest.raises(DatasetNotFoundError, match=f"{name} expects .*datasets.prepare {name}"):
        getattr(datasets, name)(make_cfg(tmp_path))


def triples(items, image_dir):
    return {(os.path.relpath(i.impath, image_dir), i.label, i.classname) for i in items}


@pytest.mark.parametrize(
    "name", ["OxfordPets", "StanfordCars", "OxfordFlowers", "UCF101", "DescribableTextures"]
)
def test_official_annotations_give_what_the_published_split_says(
    published_split, layouts, tmp_path, name
):
    """Paths, labels and class names of all images, made from annotation files of full size.

    The official test images are CoOp's for OxfordPets, StanfordCars and UCF101; for OxfordFlowers
    and DescribableTextures CoOp has drawn others.
    """
    cls, published = getattr(datasets, name), published_split(name)
    train, val, test = ([tuple(entry) for entry in part] for part in published.values())
    assert tuple(map(len, (train, val, test))) == cls.published_sizes
    names = [name for _, name in sorted({(label, name) for _, label, name in train})]
    pairs = [[(path, label) for path, label, _ in part] for part in (train, val, test)]
    layout = getattr(layouts, name)
    dataset = cls.at(str(tmp_path))
    folder = tmp_path / cls.dataset_dir
    if name == "DescribableTextures":
        layout(folder, names, *pairs)
    elif name == "OxfordFlowers":
        layout(folder, names, sum(pairs, []))
    else:
        layout(folder, names, pairs[0] + pairs[1], pairs[2])

    made = dataset.read()
    everything = chain(*made)
    assert triples(everything, dataset.image_dir) == {*train, *val, *test}
    if name != "OxfordFlowers":
        assert triples(made.test, dataset.image_dir) == set(test)
    assert tuple(map(len, made)) == cls.published_sizes
