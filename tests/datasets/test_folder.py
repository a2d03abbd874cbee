from __future__ import annotations

import json
import shutil

import pytest

from dassl.config import get_cfg_default
from dassl.engine import RunMismatchError, results
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


@pytest.mark.parametrize("name", ["EuroSAT", "Folder"])
def test_only_a_folder_of_own_images_is_another_one_elsewhere(tmp_path, name):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.NAME", name, "DATASET.ROOT", "/first"])
    record = tmp_path / "config.json"
    record.write_text(json.dumps({"config": results.config_dict(cfg)}))
    cfg.DATASET.ROOT = "/second"
    if name == "EuroSAT":
        results.check_same_run(record, cfg)
    else:
        with pytest.raises(RunMismatchError, match=r"DATASET.ROOT \('/first' -> '/second'\)"):
            results.check_same_run(record, cfg)


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
        ('{"cta": "cat"}', "must map classes to their names; the classes are .*'cat'"),
        ('["cat"]', "must map"),
        ("{", "classnames.json is not valid JSON"),
        ('{"cat": null}', "'cat' has the name None: give another one in .*classnames.json"),
        ('{"cat": " "}', "'cat' has the name ' '"),
        ('{"cat": ["cat"]}', "'cat' has the name"),
        ('{"cat": "a", "cat": "b"}', 'not valid JSON .the key "cat" stands there twice'),
        ('{"cat": "zebra"}', "'cat' and 'zebra' are both called 'zebra'"),
    ],
)
def test_a_bad_map_of_class_names(flat, make_cfg, text, message):
    (flat / "classnames.json").write_text(text)
    with pytest.raises(SplitError, match=message):
        Folder(make_cfg(flat))


def test_accents_are_alike_in_both_of_their_forms(flat, make_images, make_cfg):
    """As one letter (NFC) or as two (NFD), in which old file systems of macOS keep names."""
    make_images(flat / "cafe\u0301", 10)
    assert "caf\u00e9" in Folder(make_cfg(flat)).classnames
    (flat / "classnames.json").write_text(json.dumps({"caf\u00e9": "re\u0301sume\u0301"}))
    (flat / "split.json").unlink()
    assert "r\u00e9sum\u00e9" in Folder(make_cfg(flat)).classnames
    make_images(flat / "caf\u00e9", 10)
    (flat / "classnames.json").unlink()
    with pytest.raises(SplitError, match="are both called"):
        Folder(make_cfg(flat))


def test_two_folders_with_one_name(flat, make_images, make_cfg):
    make_images(flat / "african elephant", 10)
    with pytest.raises(SplitError, match="'african elephant' and 'african_elephant' are both"):
        Folder(make_cfg(flat))
    assert not (flat / "split.json").exists()


def test_a_split_that_the_folders_have_outgrown(flat, make_cfg, make_images):
    Folder(make_cfg(flat))
    make_images(flat / "yak", 10)
    with pytest.raises(SplitError, match=r"disagree about the classes \['yak'\]; delete"):
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


# ---- parts in any case, and for evaluation only


def test_parts_in_capitals(parted, make_cfg):
    expected = [item.impath.lower() for item in Folder(make_cfg(parted)).test]
    for part, name in (("train", "Train"), ("test", "TEST")):
        (parted / part).rename(parted / name)
    dataset = Folder(make_cfg(parted))
    assert sizes(dataset) == (10, 4, 6)
    assert [item.impath.lower() for item in dataset.test] == expected


def test_two_folders_of_one_part(parted, make_images, make_cfg):
    make_images(parted / "Train" / "cat", 2)
    with pytest.raises(SplitError, match="holds both Train and train: keep one"):
        Folder(make_cfg(parted))


def test_a_test_part_alone_is_for_evaluation(parted, make_cfg):
    for part in ("train", "val"):
        shutil.rmtree(parted / part)
    cache = {}
    for _ in range(2):
        dataset = Folder(make_cfg(parted, shots=2), cache)
        assert dataset.evaluation_only and dataset.classnames == ["cat", "dog"]
        assert len(dataset.test) == 6 and dataset.train_x == dataset.test
    assert not (parted / "split.json").exists()


def test_what_archives_leave_behind_is_no_class(flat, make_images, make_cfg):
    make_images(flat / "__MACOSX" / "cat", 2)
    (flat / "cat" / "._0.png").touch()
    make_images(flat / "cat" / ".thumbnails", 2)
    assert sizes(Folder(make_cfg(flat))) == (15, 6, 9)


def test_images_below_a_class_are_reported(flat, make_images, make_cfg):
    make_images(flat / "cat" / "tabby" / "young", 3)
    with pytest.warns(UserWarning, match=r"3 images below .*cat, the first being .*young.0\.png"):
        assert sizes(Folder(make_cfg(flat))) == (15, 6, 9)


def test_nested_classes_are_refused_with_a_hint(tmp_path, make_images, make_cfg):
    make_images(tmp_path / "animals" / "cat", 5)
    with pytest.raises(ClassFolderError, match=r"animals holds no images itself, but .*cat.0\.png"):
        Folder(make_cfg(tmp_path))


# ---- lists


@pytest.fixture
def loose(tmp_path, make_images):
    """Thirty images of no class folders."""
    make_images(tmp_path / "pictures", 30)
    return tmp_path


def write_list(path, rows, separator=",", encoding="utf-8"):
    path.write_text("".join(separator.join(row) + "\n" for row in rows), encoding=encoding)


ROWS = [(f"pictures/{i}.png", ("cat", "big_dog")[i % 2]) for i in range(30)]
PARTS = [(*row, ("train", "train", "test", "val")[i % 4]) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("name", "separator", "encoding"),
    [
        ("images.csv", ",", "utf-8"),
        ("images.csv", ";", "utf-8-sig"),
        ("Images.TXT", "\t", "utf-8"),
        ("images.txt", "  ", "utf-8-sig"),
    ],
)
def test_a_list_with_parts(loose, make_cfg, name, separator, encoding):
    rows = [("Path", "class", "split"), *PARTS]
    write_list(loose / name, rows, separator, encoding)
    dataset = Folder(make_cfg(loose))
    assert dataset.classnames == ["big dog", "cat"] and sizes(dataset) == (16, 7, 7)
    assert dataset.train_x[0].impath == str(loose / "pictures" / "0.png")
    assert not (loose / "split.json").exists()


def test_a_list_of_windows(loose, make_cfg):
    rows = [(path.replace("/", "\\"), *rest) for path, *rest in PARTS]
    text = "".join(",".join(row) + "\r\n" for row in rows)
    (loose / "images.csv").write_bytes(text.encode("utf-8-sig"))
    assert sizes(Folder(make_cfg(loose))) == (16, 7, 7)


def test_a_list_without_parts_is_split_once(loose, make_cfg):
    write_list(loose / "images.txt", ROWS, " ")
    first = Folder(make_cfg(loose))
    assert sizes(first) == (16, 6, 8) and (loose / "split.json").exists()
    assert Folder(make_cfg(loose)).train_x == first.train_x
    write_list(loose / "images.txt", [*ROWS, ("pictures/yak.png", "yak")], " ")
    with pytest.raises(SplitError, match="disagree about the classes"):
        Folder(make_cfg(loose))


def test_a_list_of_each_part_and_numbered_classes(loose, make_cfg):
    numbers = [(path, str(i % 11)) for i, (path, _) in enumerate(ROWS)]
    write_list(loose / "Train.txt", numbers[:15], " ")
    write_list(loose / "test.csv", numbers[15:])
    (loose / "classnames.json").write_text(json.dumps({"10": "cat"}))
    dataset = Folder(make_cfg(loose))
    assert sizes(dataset) == (15, 0, 15)
    assert dataset.classnames == [*map(str, range(10)), "cat"]
    (loose / "Train.txt").unlink()
    assert Folder(make_cfg(loose)).evaluation_only


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images.csv": "pictures/0.png"}, r"images.csv, line 1 must be path, class and"),
        ({"images.csv": "pictures/0.png,cat,valid"}, "train or val or test, not .*'valid'"),
        ({"images.csv": "pictures/0.png,"}, "line 1 must be"),
        ({"images.csv": "a.png,cat,test\nb.png,cat"}, "which part they are in: say it of all"),
        ({"images.csv": ""}, "names no images"),
        ({"images.csv": 'a.png,"cat'}, "images.csv, line 1: "),
        ({"images.csv": "pictures/0.png,cat,test\npictures/0.png,dog,test"}, "of two classes, 'c"),
        ({"images.csv": "../0.png,cat"}, "names '../0.png', outside of"),
        ({"images.csv": "a.png,cat", "images.txt": "a.png cat"}, "both images.csv and images.txt"),
        ({"images.csv": "a.png,cat", "test.csv": "a.png,cat"}, "holds images.csv, test.csv: keep"),
        ({"train.csv": "pictures/0.png,cat,test"}, "if you like, train, not"),
        ({"train.csv": "pictures/0.png,cat"}, "test holds no images"),
        ({"val.csv": "pictures/0.png,cat"}, "train holds no images"),
    ],
)
def test_bad_lists(loose, make_cfg, lists, message):
    for name, text in lists.items():
        (loose / name).write_text(text)
    with pytest.raises(SplitError, match=message):
        Folder(make_cfg(loose))


def test_a_list_that_is_no_text(loose, make_cfg):
    (loose / "images.csv").write_bytes(b"pictures/\xff.png,cat")
    with pytest.raises(SplitError, match="images.csv is not UTF-8"):
        Folder(make_cfg(loose))


def test_a_list_of_missing_images(loose, make_cfg):
    write_list(loose / "images.csv", [*PARTS, ("pictures/no.png", "cat", "val")])
    with pytest.raises(DatasetNotFoundError, match="1 of 31 images .* the first being .*no.png"):
        Folder(make_cfg(loose))


def test_an_image_that_is_listed_twice_counts_twice(loose, make_cfg):
    write_list(loose / "images.csv", [*PARTS, PARTS[0]])
    with pytest.warns(UserWarning, match=r"lists 1 images more than once, .*pictures.0\.png"):
        assert sizes(Folder(make_cfg(loose))) == (17, 7, 7)
