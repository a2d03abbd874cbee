import random

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.data import DataManager, DatasetWrapper, build_data_loader
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.utils import ImageReadError, UnknownNameError, UserError, read_image, set_random_seed


def epochs(dm, n=2, between=lambda: None):
    drawn = []
    for _ in range(n):
        for batch in dm.train_loader_x:
            between()
            drawn.append((batch["index"].tolist(), batch["img"].clone()))
    return drawn


def same(a, b):
    assert [index for index, _ in a] == [index for index, _ in b]
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(a, b, strict=True))


def test_batches(make_cfg, capsys):
    dm = DataManager(make_cfg())
    assert (dm.num_classes, dm.lab2cname) == (3, {0: "red", 1: "green", 2: "blue"})
    assert dm.dataset.classnames == ["red", "green", "blue"]
    assert dm.train_loader_u is None
    batches = list(dm.train_loader_x)
    assert [len(batch["label"]) for batch in batches] == [4] * 5  # 21 images, last one dropped
    assert set(batches[0]) == {"img", "label", "domain", "impath", "index"}
    assert batches[0]["img"].shape == (4, 3, 8, 8)
    test = list(dm.test_loader)
    assert torch.cat([batch["index"] for batch in test]).tolist() == list(range(18))
    item = dm.dataset.test[int(test[1]["index"][0])]
    assert (test[1]["impath"][0], int(test[1]["label"][0])) == (item.impath, item.label)
    out = capsys.readouterr().out
    assert "# classes  3\n# train_x  21\n# val      12\n# test     18\n" in out


def test_small_training_set_is_not_dropped(make_cfg):
    dm = DataManager(make_cfg("DATALOADER.TRAIN_X.BATCH_SIZE", 64))
    assert [len(batch["label"]) for batch in dm.train_loader_x] == [21]


def test_workers_do_not_change_batches(make_cfg):
    # torch.rand between batches: prefetching workers must not shift what training draws
    drawn, after = {}, {}
    for workers in (0, 2):
        set_random_seed(3)
        dm = DataManager(make_cfg("DATALOADER.NUM_WORKERS", workers))
        drawn[workers] = epochs(dm, between=lambda: torch.rand(3))
        list(dm.test_loader)
        after[workers] = torch.rand(1)
    assert same(drawn[0], drawn[2])
    assert torch.equal(after[0], after[2])


def test_seed_decides_batches_and_epochs_differ(make_cfg):
    def run(seed):
        set_random_seed(seed)
        return epochs(DataManager(make_cfg()))

    assert same(run(0), run(0))
    first = run(0)
    assert [i for i, _ in first] != [i for i, _ in run(1)]
    assert [i for i, _ in first[:5]] != [i for i, _ in first[5:]]


def test_augmentation_seed_stays_in_the_item(make_cfg):
    cfg = make_cfg()
    dm = DataManager(cfg)
    dataset = dm.train_loader_x.dataset
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a, b, c = dataset[3, 7]["img"], dataset[3, 7]["img"], dataset[3, 8]["img"]
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)
    assert dataset[3]["index"] == 3


def test_seed_zero_and_unseeded():
    def draw(seed):
        set_random_seed(seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw(0) == draw(0) != draw(1)
    set_random_seed(0)
    assert draw(-1) != draw(-1)


def test_dataset_errors(make_cfg):
    with pytest.raises(UnknownNameError, match="Did you mean Toy"):
        build_dataset(make_cfg("DATASET.NAME", "toy"))
    with pytest.raises(ValueError, match="Label 0.*cat.*dog"):
        DatasetBase(train_x=[Datum("a", 0, 0, "cat"), Datum("b", 0, 0, "dog")])
    with pytest.raises(ValueError, match=r"gaps.*\[1\]"):
        DatasetBase(train_x=[Datum("a", 0, 0, "cat"), Datum("b", 2, 0, "dog")])
    with pytest.raises(TypeError, match="impath"):
        Datum(3)
    with pytest.raises(ValueError, match="no images"):
        build_data_loader(make_cfg(), data_source=[])
    with pytest.raises(UnknownNameError, match="Shuffle"):
        build_data_loader(make_cfg(), "Shuffle", [Datum("a")])


@pytest.mark.parametrize(
    ("workers", "names"),
    [(0, ["cut.png", "text.jpg", "empty.png", "missing.png"]), (1, ["cut.png"])],
)
def test_bad_images_are_named(make_cfg, tmp_path, workers, names):
    cfg = make_cfg("DATALOADER.NUM_WORKERS", workers)
    whole = tmp_path / "whole.png"
    Image.new("L", (30, 30), 7).save(whole)
    assert read_image(whole).mode == "RGB"
    bad = {"cut.png": whole.read_bytes()[:60], "text.jpg": b"hello", "empty.png": b""}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    for name in names:
        loader = build_data_loader(cfg, data_source=[Datum(str(tmp_path / name))], is_train=False)
        with pytest.raises(ImageReadError, match=name):
            next(iter(loader))


def test_transforms(make_cfg):
    image = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    for choices in ((), ("random_resized_crop",), ("center_crop", "random_flip"), ("resize",)):
        for is_train in (True, False):
            out = build_transform(make_cfg(), is_train, choices)(image)
            assert out.shape == (3, 8, 8) and 0 <= out.min() <= out.max() <= 1
    cfg = make_cfg("INPUT.PIXEL_MEAN", [0.5] * 3, "INPUT.PIXEL_STD", [0.25] * 3)
    plain, normal = (build_transform(cfg, False, c)(image) for c in ((), ("normalize",)))
    torch.testing.assert_close(normal, (plain - 0.5) / 0.25)
    assert build_transform(make_cfg("INPUT.NO_TRANSFORM", True)) is None


def test_evaluation_transform_is_clips(make_cfg):
    """Resize the shorter side (bicubic), crop the centre: as open_clip preprocesses."""
    open_clip_transform = pytest.importorskip("open_clip.transform")
    mean, std = [0.48, 0.45, 0.40], [0.26, 0.26, 0.27]
    theirs = open_clip_transform.image_transform(
        8, is_train=False, mean=mean, std=std, interpolation="bicubic", resize_mode="shortest"
    )
    cfg = make_cfg(
        *("INPUT.INTERPOLATION", "bicubic", "INPUT.PIXEL_MEAN", mean, "INPUT.PIXEL_STD", std)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (21, 33, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert torch.equal(build_transform(cfg, False)(image), theirs(image))


def test_transform_errors(make_cfg):
    with pytest.raises(UnknownNameError, match=r"random_flipp.*mean random_flip\?"):
        build_transform(make_cfg("INPUT.TRANSFORMS", ["random_flipp"]))
    with pytest.raises(UnknownNameError, match=r"cubic.*mean bicubic\?"):
        build_transform(make_cfg("INPUT.INTERPOLATION", "cubic"))
    assert set(INTERPOLATION_MODES) == {"bilinear", "bicubic", "nearest"}


@pytest.mark.parametrize("part", ["train", "test"])
def test_broken_images_are_found_before_the_first_step(make_cfg, tmp_path, part):
    DataManager(make_cfg())
    (tmp_path / f"data/{part}_red_1.png").write_bytes(b"")
    (tmp_path / f"data/{part}_blue_1.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match="2 of 51 images .*red_1.png. is empty.*blue_1.png"):
        DataManager(make_cfg())
    DataManager(make_cfg(), dataset_wrapper=DatasetWrapper)  # may read anything


def test_runs_of_one_process_check_an_image_once(make_cfg, monkeypatch):
    checked = []
    monkeypatch.setattr("dassl.data.data_manager.check_images", lambda paths: checked.extend(paths))
    cache = {}
    for _ in range(2):
        DataManager(make_cfg(), cache=cache)
    assert len(checked) == len(set(checked)) == 51


@pytest.mark.parametrize(
    ("value", "templates"),
    [
        ("an X-ray of a {}.", ("an X-ray of a {}.",)),
        (["{}.", "no {}!"], ("{}.", "no {}!")),
        (("{}",), ("{}",)),
        (None, ("a photo of a {}.",)),
    ],
)
def test_templates_of_ones_own(make_cfg, value, templates):
    opts = () if value is None else ("DATASET.TEMPLATE", value)
    dataset = build_dataset(make_cfg(*opts))
    assert (dataset.template, dataset.templates) == (templates[0], templates)


@pytest.mark.parametrize("value", ["a photo", "{} or {}", "a {name}", "a {0}", "{", [], ["{}", 3]])
def test_bad_templates(make_cfg, value):
    with pytest.raises(UserError, match="DATASET.TEMPLATE is"):
        build_dataset(make_cfg("DATASET.TEMPLATE", value))


def test_custom_transforms_and_wrapper(make_cfg):
    class Marked(DatasetWrapper):
        def __getitem__(self, key):
            return {**super().__getitem__(key), "mark": self.is_train}

    def tfm(image):
        return torch.zeros(1)

    dm = DataManager(make_cfg(), custom_tfm_test=tfm, dataset_wrapper=Marked)
    batch = next(iter(dm.test_loader))
    assert batch["img"].shape == (5, 1) and not batch["mark"].any()
    batch = next(iter(dm.train_loader_x))
    assert batch["img"].shape == (4, 3, 8, 8) and batch["mark"].all()


def test_test_only_labels_name_classes():
    data = DatasetBase(train_x=[Datum("a", 0, 0, "cat")], test=[Datum("b", 1, 0, "dog")])
    assert data.classnames == ["cat", "dog"] and data.num_classes == 2
    assert data.template.format("cat") == "a photo of a cat."
