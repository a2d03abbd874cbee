from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.data.datasets import Datum
from dassl.utils import ImageReadError, OutputDirError, read_image
from datasets import Caltech101, EuroSAT, splits
from datasets.items import ClassFolderError, hold_out_val, items_of_folders, split_items
from datasets.splits import (
    DatasetNotFoundError,
    SplitError,
    Splits,
    check_classes,
    read_split,
    write_split,
)


def relative(items, image_dir):
    return [[os.path.relpath(item.impath, image_dir), item.label, item.classname] for item in items]


@pytest.mark.parametrize(
    "cls, n_classes, first, last, sizes",
    [
        (EuroSAT, 10, "Annual Crop Land", "Sea or Lake", (1000, 200, 1000)),
        (Caltech101, 100, "face", "yin_yang", (1967, 400, 999)),
    ],
)
def test_small_real_copies(real_root, make_cfg, cls, n_classes, first, last, sizes):
    dataset = cls(make_cfg(real_root))
    assert dataset.num_classes == n_classes
    assert (dataset.classnames[0], dataset.classnames[-1]) == (first, last)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == sizes
    content = json.loads((real_root / cls.dataset_dir / cls.split_file).read_text())
    for name, items in zip(content, (dataset.train_x, dataset.val, dataset.test), strict=True):
        assert relative(items, real_root / cls.dataset_dir / cls.image_dir) == content[name]
    assert read_image(dataset.test[0].impath).mode == "RGB"


@pytest.mark.parametrize("cls", [EuroSAT, Caltech101])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_base_and_new_see_the_shots_drawn_from_all_classes(real_root, make_cfg, cls, seed):
    whole, base, new = (cls(make_cfg(real_root, 4, half, seed)) for half in ("all", "base", "new"))
    assert base.classnames + new.classnames == whole.classnames
    assert len(base.classnames) - len(new.classnames) in (0, 1)
    for part in ("train_x", "val", "test"):
        paths = [{item.impath for item in getattr(d, part)} for d in (whole, base, new)]
        assert paths[0] == paths[1] | paths[2] and not paths[1] & paths[2]
    for dataset in (base, new):
        for items in (dataset.train_x, dataset.val, dataset.test):
            assert {item.label for item in items} == set(range(dataset.num_classes))


@pytest.mark.parametrize("cls", [EuroSAT, Caltech101])
def test_the_layout_and_names_of_the_full_published_split(published_split, tmp_path, cls, make_cfg):
    """Empty files stand for the images: only reading one needs what is in it."""
    content = published_split(cls.__name__)
    image_dir = tmp_path / cls.dataset_dir / cls.image_dir
    paths = [path for part in content.values() for path, _, _ in part]
    for folder in {os.path.dirname(path) for path in paths}:
        (image_dir / folder).mkdir(parents=True)
    for path in paths:
        (image_dir / path).touch()
    split_path = tmp_path / cls.dataset_dir / cls.split_file
    split_path.write_text(json.dumps(content))
    read = read_split(str(split_path), str(image_dir))
    assert [relative(part, image_dir) for part in read] == list(content.values())

    # Without the file the split made from the folders has the same images, labels and names.
    split_path.unlink()
    made = cls(make_cfg(tmp_path))
    everything = [*made.train_x, *made.val, *made.test]
    assert sorted(relative(everything, image_dir)) == sorted(sum(content.values(), []))
    assert len(made.train_x) == pytest.approx(0.5 * len(paths), rel=0.02)
    assert len(made.test) == pytest.approx(0.3 * len(paths), rel=0.02)


def test_caltech101_leaves_out_the_folders_that_are_no_classes(own_root, make_cfg, make_images):
    directory = own_root / "caltech-101"
    (directory / Caltech101.split_file).unlink()
    for name in ("BACKGROUND_Google", "Faces_easy"):
        make_images(directory / "101_ObjectCategories" / name, 5)
    dataset = Caltech101(make_cfg(own_root))
    assert dataset.num_classes == 100
    assert dataset.classnames[:3] == ["face", "leopard", "motorbike"]


def test_a_split_is_made_once_and_read_afterwards(own_root, make_cfg):
    path = own_root / "eurosat" / EuroSAT.split_file
    path.unlink()
    made = EuroSAT(make_cfg(own_root, seed=1))
    first = path.read_bytes()
    again = EuroSAT(make_cfg(own_root, seed=2))
    assert path.read_bytes() == first
    assert again.train_x == made.train_x
    path.unlink()
    EuroSAT(make_cfg(own_root, seed=3))
    assert path.read_bytes() == first, "the split must not depend on the seed of the run"


def test_write_split_never_overwrites(tmp_path):
    path = tmp_path / "split.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=re.escape(str(path))):
        write_split(str(path), Splits([], [], []), str(tmp_path))
    assert path.read_text() == "mine"


def test_another_process_may_save_the_split_first(own_root, make_cfg, monkeypatch):
    path = own_root / "eurosat" / EuroSAT.split_file
    path.unlink()
    read = EuroSAT.read

    def overtaken(self):
        made = read(self)
        write_split(self.split_path, made, self.image_dir)
        return made

    monkeypatch.setattr(EuroSAT, "read", overtaken)
    assert EuroSAT(make_cfg(own_root)).train_x == EuroSAT(make_cfg(own_root)).train_x


def test_a_split_that_cannot_be_saved_is_used_with_a_warning(own_root, make_cfg, monkeypatch):
    path = own_root / "eurosat" / EuroSAT.split_file
    path.unlink()

    def refuse(obj, fpath):
        raise OutputDirError("read-only file system")

    monkeypatch.setattr(splits, "write_json", refuse)
    with pytest.warns(UserWarning, match="split of EuroSAT could not be saved .read-only"):
        dataset = EuroSAT(make_cfg(own_root))
    assert len(dataset.train_x) == 1100 and not path.exists()


def test_nothing_where_the_data_should_be(tmp_path, make_cfg):
    with pytest.raises(DatasetNotFoundError, match=r"EuroSAT expects .*eurosat.2750.*--root"):
        EuroSAT(make_cfg(tmp_path))
    with pytest.raises(ValueError, match="DATASET.ROOT is empty"):
        EuroSAT(make_cfg(""))


def test_missing_images_are_counted_and_the_first_is_named(own_root, make_cfg):
    folder = own_root / "eurosat" / "2750"
    for i in (17, 3):
        next((folder / "Forest").glob(f"*{i}*.jpg")).unlink()
    with pytest.raises(DatasetNotFoundError) as error:
        EuroSAT(make_cfg(own_root))
    message = str(error.value)
    first = Path(re.search(r"the first being (.+?);", message)[1])
    assert message.startswith("2 of 2200 images")
    assert not first.exists() and first.parent == folder / "Forest"


def test_a_split_file_that_points_nowhere(own_root, make_cfg):
    (own_root / "eurosat" / "2750").rename(own_root / "eurosat" / "images")
    (own_root / "eurosat" / "2750").mkdir()
    with pytest.raises(DatasetNotFoundError, match="2200 of 2200 images"):
        EuroSAT(make_cfg(own_root))


def test_a_corrupt_image_is_named_when_it_is_read(own_root, make_cfg):
    item = EuroSAT(make_cfg(own_root)).train_x[0]
    path = Path(item.impath)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    assert EuroSAT(make_cfg(own_root)).train_x[0] == item
    with pytest.raises(ImageReadError, match=re.escape(item.impath)):
        read_image(item.impath)


GOOD = ["a/0.png", 0, "a"]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"train": [', "not valid JSON"),
        ("\0\xff", "not valid JSON"),
        ("[]", "lists train, val, test"),
        ('{"train": [], "val": []}', "lists train, val, test"),
        ('{"train": {}, "val": [], "test": []}', "lists train, val, test"),
        ([GOOD, ["a/0.png", "0", "a"]], r"train\[1\] must be .*'0'"),
        ([GOOD, ["a/0.png", 0]], r"train\[1\] must be"),
        ([["a/0.png", True, "a"]], r"train\[0\] must be .*True"),
        ([["a/0.png", -1, "a"]], r"train\[0\] must be .*-1"),
        ([["a/0.png", 0, None]], r"train\[0\] must be .*None"),
        ([GOOD, "a/0.png"], r"train\[1\] must be"),
        ([GOOD, ["a/1.png", 0, "b"]], "label 0 is both 'a' and 'b'"),
        ([GOOD, ["a/1.png", 1, "a"]], "'a' has both label 0 and 1"),
        ([["a/1.png", 10**12, "b"], GOOD], "'b' has 1000000000000"),
        ([GOOD, ["a/1.png", 1, " "]], "label 1 has the name ' '"),
        ([GOOD, ["a/0.png", 1, "b"]], "a/0.png is of two classes, 'a' and 'b'; multi-label"),
        ([["a/0.png", 1, "a"]], "labels 0 to 0, but 'a' has 1"),
        ([], "train holds no images"),
        ([["../a.png", 0, "a"]], r"train\[0\] names '../a.png', outside of"),
        ([["a/../../a.png", 0, "a"]], "outside of"),
        ([["/etc/passwd", 0, "a"]], "outside of"),
        ([["..\\a.png", 0, "a"]], "outside of"),
    ],
)
def test_malformed_split_files(tmp_path, text, message):
    path = tmp_path / "split.json"
    if isinstance(text, list):
        text = json.dumps({"train": text, "val": [], "test": text})
    path.write_text(text, encoding="latin-1")
    with pytest.raises(SplitError, match=message) as error:
        read_split(str(path), str(tmp_path))
    assert str(path) in str(error.value)


def test_a_dangling_link_is_a_missing_image(own_root, make_cfg):
    victim = Path(EuroSAT(make_cfg(own_root)).test[0].impath)
    victim.unlink()
    victim.symlink_to("nowhere.jpg")
    with pytest.raises(DatasetNotFoundError, match="1 of 2200 .*, a link to nowhere.jpg; put"):
        EuroSAT(make_cfg(own_root))
    victim.with_name("nowhere.jpg").touch()
    EuroSAT(make_cfg(own_root))


def test_split_file_of_windows(tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).touch()
    content = {"train": [["a\\0.png", 0, "a"]], "val": [], "test": [["a\\1.png", 0, "a"]]}
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    (item,) = read_split(str(path), str(tmp_path)).train
    assert item.impath == str(tmp_path / "a" / "0.png")


def test_classes_without_training_or_test_images():
    a, b = Datum("a", 0, 0, "a"), Datum("b", 1, 0, "b")
    check_classes(Splits([a, b], [], [a]), "it")
    with pytest.raises(SplitError, match="it: 1 classes have no training images: 'b'"):
        check_classes(Splits([a], [b], [a]), "it")
    with pytest.raises(SplitError, match="it: test holds no images"):
        check_classes(Splits([a, b], [a, b], []), "it")


def test_runs_of_one_process_read_a_split_once(own_root, make_cfg, monkeypatch):
    monkeypatch.setattr(splits, "read_json", Mock(wraps=splits.read_json))
    cache = {}
    whole, base = (EuroSAT(make_cfg(own_root, 2, half), cache) for half in ("all", "base"))
    assert whole.train_x == EuroSAT(make_cfg(own_root, 2), cache).train_x
    assert splits.read_json.call_count == 1
    assert base.train_x == EuroSAT(make_cfg(own_root, 2, "base")).train_x
    assert splits.read_json.call_count == 2


@given(st.lists(st.integers(4, 30), min_size=1, max_size=5))
def test_a_made_split_is_a_partition_with_every_class_in_every_part(counts):
    items = [
        Datum(f"{lab}/{i}", lab, 0, str(lab)) for lab, n in enumerate(counts) for i in range(n)
    ]
    made = split_items(items)
    assert sorted(i.impath for part in made for i in part) == sorted(i.impath for i in items)
    for part in made:
        assert {item.label for item in part} == set(range(len(counts)))
    assert split_items(items) == made


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_a_fifth_of_each_class_is_held_out_for_validation(counts):
    items = [
        Datum(f"{lab}/{i}", lab, 0, str(lab))
        for i in range(30)
        for lab, n in enumerate(counts)
        if i < n
    ]
    train, val = hold_out_val(items)
    assert sorted(i.impath for i in [*train, *val]) == sorted(i.impath for i in items)
    held = Counter(item.label for item in val)
    assert {lab: held[lab] for lab in range(len(counts))} == {
        lab: round(0.2 * n) for lab, n in enumerate(counts)
    }
    assert hold_out_val(items) == (train, val)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_images_to_split(count):
    with pytest.raises(ClassFolderError, match=f"'a' has {count} images"):
        split_items([Datum(str(i), 0, 0, "a") for i in range(count)])


def test_written_and_read_back(tmp_path, make_images):
    for name in ("a", "b"):
        make_images(tmp_path / name, 10)
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "a" / ".hidden.png").touch()
    items = items_of_folders(str(tmp_path), {"b": "second", "a": "first"})
    assert len(items) == 20 and items[0].classname == "second" and items[0].label == 0
    made = split_items(items)
    write_split(str(tmp_path / "s.json"), made, str(tmp_path))
    read = read_split(str(tmp_path / "s.json"), str(tmp_path))
    assert read == made
