"""Lists of shots: written, read back, and CoOp's pickled ones."""

from __future__ import annotations

import copyreg
import os
import pickle

import pytest

import datasets
from dassl.data.datasets import base_dataset
from datasets import ImageNet
from datasets.shots import main
from datasets.splits import SplitError


class Datum:
    """A pickled item in the form in which Dassl has it."""

    def __init__(self, impath, label, classname):
        self._impath, self._label, self._domain, self._classname = impath, label, 0, classname


Datum.__module__ = base_dataset.__name__


@pytest.fixture
def write_pickle(own_stand_ins, monkeypatch):
    """Pickle items below ImageNet's folder as CoOp does, with paths of another machine."""

    def write(name, items, part="train", elsewhere="/mnt/old/imagenet/images"):
        images = str(own_stand_ins / "imagenet/images")
        there = [
            Datum(item.impath.replace(images, elsewhere), item.label, item.classname)
            for item in items
        ]
        path = own_stand_ins / "imagenet" / name
        path.parent.mkdir(exist_ok=True)
        with monkeypatch.context() as patch, path.open("wb") as file:
            patch.setattr(base_dataset, "Datum", Datum)
            pickle.dump({part: there}, file, protocol=pickle.HIGHEST_PROTOCOL)
        return path

    return write


def test_shots_that_coop_has_drawn(own_stand_ins, make_cfg, write_pickle):
    items = ImageNet.at(str(own_stand_ins)).find().train
    chosen = [items[i] for i in (7, 2, 13, 18, 1)]
    path = write_pickle("split_fewshot/shot_1-seed_3.pkl", chosen)
    dataset = ImageNet(make_cfg(own_stand_ins, shots=1, seed=3))
    assert dataset.train_x == chosen and len(dataset.val) == len(dataset.test) == 8
    assert f"shots are those of {path}" in dataset.notes
    base = ImageNet(make_cfg(own_stand_ins, shots=1, seed=3, subsample="base"))
    assert base.train_x == [item for item in chosen if item.label < 2]
    drawn = ImageNet(make_cfg(own_stand_ins, shots=1, seed=4))
    assert len(drawn.train_x) == 4 and not any("shots" in note for note in drawn.notes)


@pytest.mark.parametrize("elsewhere", ["C:\\data\\imagenet\\images", "relative/images"])
def test_shots_are_drawn_from_coops_list(own_stand_ins, make_cfg, write_pickle, elsewhere):
    items = ImageNet.at(str(own_stand_ins)).find().train
    before = ImageNet(make_cfg(own_stand_ins, shots=2)).train_x
    write_pickle("preprocessed.pkl", items, elsewhere=elsewhere)
    assert ImageNet(make_cfg(own_stand_ins, shots=2)).train_x == before
    write_pickle("preprocessed.pkl", items[::-1], elsewhere=elsewhere)
    reordered = ImageNet(make_cfg(own_stand_ins, shots=2)).train_x
    assert [item.label for item in reordered] == [3, 3, 2, 2, 1, 1, 0, 0]
    assert len(ImageNet(make_cfg(own_stand_ins)).train_x) == len(items)


def test_a_list_that_coops_code_has_pickled_here(own_stand_ins, make_cfg):
    items = ImageNet.at(str(own_stand_ins)).find().train[::5]
    path = own_stand_ins / "imagenet/preprocessed.pkl"
    path.write_bytes(pickle.dumps({"train": items}, pickle.HIGHEST_PROTOCOL))
    assert ImageNet(make_cfg(own_stand_ins, shots=1)).train_x == items


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_is_executed(own_stand_ins, make_cfg, tmp_path):
    path = own_stand_ins / "imagenet" / "preprocessed.pkl"
    path.write_bytes(pickle.dumps({"train": [Hostile(tmp_path / "made")]}))
    with pytest.raises(SplitError, match=f"{path} is no list of images as CoOp pickles it"):
        ImageNet(make_cfg(own_stand_ins, shots=1))
    assert not (tmp_path / "made").exists()
    path.write_bytes(pickle.dumps({"train": [], "note": Hostile(tmp_path / "made")}))
    ImageNet(make_cfg(own_stand_ins))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04garbage",
        pickle.dumps([]),
        pickle.dumps({"train": None}),
        pickle.dumps({"train": [1]}),
        pickle.dumps({"test": []}),
        pickle.dumps({"train": [copyreg.__newobj__]}),
    ],
)
def test_pickles_of_something_else(own_stand_ins, make_cfg, content):
    (own_stand_ins / "imagenet" / "preprocessed.pkl").write_bytes(content)
    with pytest.raises(SplitError, match="preprocessed.pkl is no list of images"):
        ImageNet(make_cfg(own_stand_ins, shots=1))


def test_pickles_that_do_not_fit(own_stand_ins, make_cfg, write_pickle):
    items = ImageNet.at(str(own_stand_ins)).find().train
    write_pickle("preprocessed.pkl", items)
    os.unlink(items[3].impath)
    with pytest.raises(SplitError, match="1 of 20 images are none to draw shots from, the first"):
        ImageNet(make_cfg(own_stand_ins, shots=1))
    names = own_stand_ins / "imagenet/classnames.txt"
    names.write_text(names.read_text().replace("tench", "carp"))
    write_pickle("preprocessed.pkl", items[:2])
    with pytest.raises(SplitError, match="of the class 'tench', but 'carp' here"):
        ImageNet(make_cfg(own_stand_ins, shots=1))


@pytest.mark.parametrize("name", ["ImageNet", "OxfordFlowers"])
def test_written_and_read_back(own_stand_ins, make_cfg, capsys, name):
    cls = getattr(datasets, name)
    drawn = cls(make_cfg(own_stand_ins, shots=2, seed=5))
    command = [name, "--root", str(own_stand_ins), "--shots", "2", "--seed", "5"]
    assert main(command) == 0
    path = os.path.join(drawn.dataset_dir, "split_fewshot", "shot_2-seed_5.csv")
    assert path in capsys.readouterr().out
    read = cls(make_cfg(own_stand_ins, shots=2, seed=5))
    assert (read.train_x, read.val, read.test) == (drawn.train_x, drawn.val, drawn.test)
    assert f"shots are those of {path}" in read.notes
    assert cls(make_cfg(own_stand_ins, shots=2, seed=6)).train_x != drawn.train_x
    assert main(command) == 1 and "exists; delete it first" in capsys.readouterr().err


def test_a_list_comes_before_a_pickle(own_stand_ins, make_cfg, write_pickle):
    items = ImageNet.at(str(own_stand_ins)).find().train
    path = write_pickle("split_fewshot/shot_1-seed_1.pkl", items[::5])
    lines = [
        f"{os.path.relpath(i.impath, own_stand_ins / 'imagenet/images')},{i.classname}"
        for i in items[1::5]
    ]
    path.with_suffix(".csv").write_text("\n".join(lines))
    assert ImageNet(make_cfg(own_stand_ins, shots=1)).train_x == items[1::5]


def test_lists_that_do_not_fit(own_stand_ins, make_cfg, capsys):
    folder = own_stand_ins / "ucf101" / "split_fewshot"
    folder.mkdir()
    test_image = datasets.UCF101.at(str(own_stand_ins)).find().test[0]
    relative = os.path.relpath(test_image.impath, own_stand_ins / "ucf101/UCF-101-midframes")
    (folder / "shot_1-seed_1.csv").write_text(f"{relative},{test_image.classname},train")
    with pytest.raises(SplitError, match="1 of 1 images are none to draw shots from"):
        datasets.UCF101(make_cfg(own_stand_ins, shots=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ImageNetA", "--shots", "1", "--seed", "1"], "ImageNetA has no training images"),
        (["EuroSAT", "--shots", "0", "--seed", "1"], "--shots must be 1 or more"),
    ],
)
def test_arguments(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main([*arguments, "--root", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_a_data_set_that_is_not_there(tmp_path, capsys):
    assert main(["EuroSAT", "--root", str(tmp_path), "--shots", "1", "--seed", "1"]) == 1
    assert capsys.readouterr().err.startswith("error: EuroSAT expects its images")
