from __future__ import annotations

import json
import shutil

import pytest

from datasets import Folder
from datasets.items import ClassFolderError
from datasets.splits import DatasetNotFoundError, SplitError


@pytest.fixture
def flat(tmp_path, make_images):
    for name in ("zebra", "african_elephant", "cat"):
        make_images(tmp_path / name, 10)
    (tmp_path / ".cache").mkdir()
    return tmp_path


@pytest.fixture
def parted(tmp_path, make_images):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        for name in ("dog", "cat"):
            make_images(tmp_path / part / name, count)
    return tmp_path


def sizes(dataset):
    return len(dataset.train_x), len(dataset.val), len(dataset.test)


def test_class_folders_are_split_once(flat, make_cfg):
    dataset = Folder(make_cfg(flat))
    assert dataset.classnames == ["african elephant", "cat", "zebra"]
    assert sizes(dataset) == (15, 6, 9)
    made = (flat / "split.json").read_bytes()
    again = Folder(make_cfg(flat, seed=7))
    assert [i.impath for i in again.test] == [i.impath for i in dataset.test]
    assert (flat / "split.json").read_bytes() == made


def test_images_added_after_the_split_are_counted(flat, make_cfg):
    old = Folder(make_cfg(flat)).train_x[0].impath
    for name in ("added_1.png", "added_2.png"):
        shutil.copy(old, flat / "cat" / name)
    with pytest.warns(UserWarning, match="2 images are not in .*split.json and not used"):
        assert sizes(Folder(make_cfg(flat))) == (15, 6, 9)


def test_shots_and_halves(flat, make_cfg):
    dataset = Folder(make_cfg(flat, shots=2, subsample="base"))
    assert dataset.classnames == ["african elephant", "cat"] and sizes(dataset) == (4, 4, 6)


def test_parts_on_disk_are_used_as_they_are(parted, make_cfg):
    dataset = Folder(make_cfg(parted))
    assert dataset.classnames == ["cat", "dog"] and sizes(dataset) == (10, 4, 6)
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        for item in items:
            assert item.impath.startswith(str(parted / part / item.classname))
    assert not (parted / "split.json").exists()


def test_a_part_by_another_name_is_not_passed_over(parted, make_cfg):
    (parted / "val").rename(parted / "valid")
    with pytest.raises(SplitError, match="also valid; the parts are called train, val, test"):
        Folder(make_cfg(parted))


def test_val_may_be_absent(parted, make_cfg):
    shutil.rmtree(parted / "val")
    assert sizes(Folder(make_cfg(parted))) == (10, 0, 6)


def test_a_class_may_be_called_train(flat, make_images, make_cfg):
    make_images(flat / "train", 10)
    assert Folder(make_cfg(flat)).classnames == ["african elephant", "cat", "train", "zebra"]


def test_class_names_from_a_map(flat, make_cfg):
    (flat / "classnames.json").write_text(json.dumps({"cat": "house cat"}))
    assert Folder(make_cfg(flat)).classnames == ["african elephant", "house cat", "zebra"]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"cta": "cat"}', "must map class folders to names; the folders are .*'cat'"),
        ('["cat"]', "must map"),
        ("{", "classnames.json is not valid JSON"),
    ],
)
def test_a_bad_map_of_class_names(flat, make_cfg, text, message):
    (flat / "classnames.json").write_text(text)
    with pytest.raises(SplitError, match=message):
        Folder(make_cfg(flat))


def test_two_folders_with_one_name(flat, make_cfg):
    (flat / "classnames.json").write_text(json.dumps({"cat": "zebra"}))
    with pytest.raises(SplitError, match="'zebra' has both label"):
        Folder(make_cfg(flat))
    assert not (flat / "split.json").exists()


def test_a_split_that_the_folders_have_outgrown(flat, make_cfg, make_images):
    Folder(make_cfg(flat))
    make_images(flat / "yak", 10)
    with pytest.raises(SplitError, match=r"disagree about \['yak'\]; delete"):
        Folder(make_cfg(flat))


@pytest.mark.parametrize("part, name", [("test", "dog"), ("train", "cat"), ("val", "dog")])
def test_a_class_missing_in_one_part(parted, make_cfg, part, name):
    shutil.rmtree(parted / part / name)
    with pytest.raises(ClassFolderError, match=f"{part}.{name} is missing or holds no images"):
        Folder(make_cfg(parted))


def test_no_test_part(parted, make_cfg):
    shutil.rmtree(parted / "test")
    with pytest.raises(ClassFolderError, match="test.cat is missing"):
        Folder(make_cfg(parted))


def test_nothing_to_learn_from(tmp_path, make_cfg):
    with pytest.raises(ClassFolderError, match="no class folders"):
        Folder(make_cfg(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClassFolderError, match="empty is missing or holds no images"):
        Folder(make_cfg(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="absent"):
        Folder(make_cfg(tmp_path / "absent"))
