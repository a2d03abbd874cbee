"""What data-set files of other repositories call while they are built."""

import random

import pytest
from PIL import Image

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import UserError
from datasets import DescribableTextures, ImageNet, OxfordPets
from datasets.splits import SplitError


def items(*labels):
    return [Datum(f"{i}.png", label, label % 2, f"class {label}") for i, label in enumerate(labels)]


@pytest.fixture
def textures(tmp_path):
    """Ten images in each of the folders a and b, one in c."""
    for name, number in (("a", 10), ("b", 10), ("c", 1)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.new("RGB", (1, 1)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_shots():
    data, pool = DatasetBase(train_x=items(0)), items(2, 2, 2, 0, 0, 0, 1)
    random.seed(3)
    drawn = data.generate_fewshot_dataset(pool, num_shots=2)
    assert [item.label for item in drawn] == [2, 2, 0, 0, 1]
    random.seed(3)
    expected = [random.sample([i for i in pool if i.label == label], 2) for label in (2, 0)]
    assert drawn[:4] == [*expected[0], *expected[1]]
    one, other = data.generate_fewshot_dataset(pool, items(1), num_shots=3, repeat=True)
    assert len(one) == 9 and other == items(1) * 3
    assert data.generate_fewshot_dataset(pool) == pool


def test_groups_and_counts():
    data, pool = DatasetBase(train_x=items(0)), items(2, 0, 3, 0)
    by_label = data.split_dataset_by_label(pool)
    assert {label: len(own) for label, own in by_label.items()} == {2: 1, 0: 2, 3: 1}
    assert {d: len(own) for d, own in data.split_dataset_by_domain(pool).items()} == {0: 3, 1: 1}
    assert data.get_num_classes(pool) == 4
    names, ordered = data.get_lab2cname(pool)
    assert names[3] == "class 3" and ordered == ["class 0", "class 2", "class 3"]


def test_domains_and_downloads():
    data = DatasetBase(train_x=items(0))
    data.domains = ["photo", "sketch"]
    data.check_input_domains(["photo"], ["sketch"])
    with pytest.raises(UserError, match='domain "sketsh". Did you mean sketch'):
        data.check_input_domains(["photo"], ["sketsh"])
    with pytest.raises(UserError, match="fetch http://x/y.zip and unpack it in /data"):
        data.download_data("http://x/y.zip", "/data/y.zip", from_gdrive=False)


def test_split_files(textures):
    train, val, test = DescribableTextures.read_and_split_data(
        str(textures), ignored=["c"], new_cnames={"a": "alpha"}
    )
    assert [len(part) for part in (train, val, test)] == [10, 4, 6]
    assert {(item.label, item.classname) for item in val} == {(0, "alpha"), (1, "b")}
    file = str(textures / "split.json")
    OxfordPets.save_split(train, val, test, file, str(textures))
    assert OxfordPets.read_split(file, str(textures)) == (train, val, test)
    rest, held_out = OxfordPets.split_trainval(train, p_val=0.4)
    assert (len(rest), len(held_out)) == (6, 4)
    (new,) = OxfordPets.subsample_classes(train, subsample="new")
    assert {(item.label, item.classname) for item in new} == {(0, "b")}


def test_class_names_of_imagenet(tmp_path):
    file = tmp_path / "classnames.txt"
    file.write_text("n01443537 goldfish\nn01440764 tench\n")
    assert list(ImageNet.read_classnames(str(file)).values()) == ["tench", "goldfish"]
    file.write_text("goldfish\n")
    with pytest.raises(SplitError, match="goldfish"):
        ImageNet.read_classnames(str(file))
