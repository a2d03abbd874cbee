from __future__ import annotations

import json

import pytest

from datasets import check
from datasets.check import NAMES, main


def run(capsys, root, *args):
    """Return the exit status and, for each data set, the cells of its row."""
    status = main(["--root", str(root), *args])
    header, *lines = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "data set found classes train val test missing"
    remark = len(header)
    return status, {
        line.split()[0]: (line[:remark].split()[1:], line[remark:].strip()) for line in lines
    }


def snapshot(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_whole_data_sets_are_counted_and_nothing_is_written(own_stand_ins, stand_ins, capsys):
    before = snapshot(own_stand_ins)
    status, rows = run(capsys, own_stand_ins)
    assert status == 0 and snapshot(own_stand_ins) == before
    assert sorted(rows) == NAMES
    for name, (classnames, (train, val, test)) in stand_ins.items():
        if name in ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"):
            train = 0
        cells, note = rows[name]
        assert cells == ["yes", *map(str, (len(classnames), train, val, test, 0))]
        saved = name not in ("FGVCAircraft", *(n for n in stand_ins if n.startswith("ImageNet")))
        assert note.startswith(f"no split_zhou_{name}.json" if saved else "not the published ")
    assert rows["EuroSAT"] == (["no"], "")
    assert rows["Characters"] == (["no"], "made at its first use")


def test_the_real_small_copies(real_root, capsys):
    _, rows = run(capsys, real_root, "--images", "EuroSAT", "Caltech101")
    assert rows["EuroSAT"] == (
        ["yes", "10", "1,000", "200", "1,000", "0"],
        "not the published 13,500 / 5,400 / 8,100 images",
    )
    assert rows["Caltech101"][0] == ["yes", "100", "1,967", "400", "999", "0"]


def test_what_is_broken_is_named(own_stand_ins, capsys):
    (own_stand_ins / "oxford_pets/images/Abyssinian_16.jpg").unlink()
    (own_stand_ins / "dtd/labels/val1.txt").unlink()
    (own_stand_ins / "food-101/split_zhou_Food101.json").write_text("{")
    (own_stand_ins / "sun397/SUN397").rename(own_stand_ins / "sun397/images")
    (own_stand_ins / "imagenet/images/train/n01440764").rename(own_stand_ins / "tench")
    status, rows = run(capsys, own_stand_ins)
    assert status == 1
    cells, problem = rows["OxfordPets"]
    assert cells == ["broken", "3", "12", "3", "6", "1"]
    assert problem.startswith("1 of 21 images") and "Abyssinian_16.jpg" in problem
    for name, expected in (
        ("DescribableTextures", "val1.txt is missing"),
        ("Food101", "split_zhou_Food101.json is not valid JSON"),
        ("SUN397", "SUN397, which is not a folder"),
        ("ImageNet", "train/n01440764 is missing"),
    ):
        cells, problem = rows[name]
        assert cells == ["broken"] and expected in problem
    assert rows["UCF101"][0][0] == "yes"


def test_corrupt_images_are_found_where_asked_for(own_stand_ins, capsys):
    for i in (5, 3):
        path = own_stand_ins / f"oxford_flowers/jpg/image_{i:05d}.jpg"
        path.write_bytes(path.read_bytes()[:100])
    assert run(capsys, own_stand_ins, "OxfordFlowers")[0] == 0
    status, rows = run(capsys, own_stand_ins, "OxfordFlowers", "UCF101", "--images")
    assert status == 1 and rows["UCF101"][0][0] == "yes"
    cells, problem = rows["OxfordFlowers"]
    assert cells[0] == "broken" and problem.startswith("2 of 30 images cannot be read: Image")


def test_a_named_data_set_has_to_be_there(tmp_path, capsys):
    assert run(capsys, tmp_path)[0] == 0
    assert run(capsys, tmp_path, "EuroSAT")[0] == 1
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path), "Eurosat"])
    assert "unknown data set 'Eurosat'; choose from Caltech101" in capsys.readouterr().err


def test_a_split_made_here_is_told_from_the_published_one(own_stand_ins, make_cfg, monkeypatch):
    cls = check.datasets.UCF101
    monkeypatch.setattr(cls, "published_sizes", (12, 3, 6))
    path = own_stand_ins / "ucf101" / cls.split_file
    made = cls(make_cfg(own_stand_ins, shots=1))
    (note,) = made.notes
    assert note == f"{path} was made here, it is not the published split"
    assert cls(make_cfg(own_stand_ins)).notes == [note]
    assert check.check("UCF101", str(own_stand_ins)).note == note
    content = json.loads(path.read_text())
    path.write_text(json.dumps({part: content[part] for part in ("train", "val", "test")}))
    assert check.check("UCF101", str(own_stand_ins)).note == ""
    assert cls(make_cfg(own_stand_ins)).notes == []


def test_a_users_own_folder(tmp_path, make_images, capsys):
    for name in ("cat", "dog"):
        make_images(tmp_path / name, 10)
    status, rows = run(capsys, tmp_path, "Folder", "--images")
    assert status == 0 and rows["Folder"] == (["yes", "2", "10", "4", "6", "0"], "")
    assert not (tmp_path / "split.json").exists()
    (tmp_path / "cat" / "3.png").write_bytes(b"")
    (tmp_path / "dog" / "4.png").unlink()
    (tmp_path / "dog" / "4.png").symlink_to("away.png")
    status, rows = run(capsys, tmp_path, "Folder", "--images")
    assert status == 1 and "1 of 20 images" in rows["Folder"][1]
    assert "dog/4.png, a link to away.png" in rows["Folder"][1]
    (tmp_path / "dog" / "4.png").unlink()
    assert 'cat/3.png" is empty' in run(capsys, tmp_path, "Folder", "--images")[1]["Folder"][1]
