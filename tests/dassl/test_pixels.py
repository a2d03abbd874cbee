import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T

from dassl.data import DataManager, DatasetWrapper, build_data_loader, pixels
from dassl.data.datasets import Datum
from dassl.data.pixels import PixelCache, PixelLoader
from dassl.data.transforms import build_transform
from dassl.utils import ImageReadError, set_random_seed
from tests.pretended_gpu import pretended_gpu

KEY = "DATALOADER.PIXEL_CACHE_MB"


@pytest.fixture
def images(tmp_path):
    """Images of several sizes and shapes."""
    rng = np.random.default_rng(0)
    items = []
    for i, (height, width) in enumerate([(12, 12), (40, 23), (23, 61), (8, 8), (90, 100)]):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        path = tmp_path / f"{i}.png"
        small.resize((width, height), Image.Resampling.BICUBIC).save(path)
        items.append(Datum(str(path), label=i, domain=i % 2, classname=str(i)))
    return items


@pytest.fixture
def reads(monkeypatch):
    """Paths that were decoded."""
    paths = []
    read = pixels.read_image
    monkeypatch.setattr(pixels, "read_image", lambda path: paths.append(path) or read(path))
    return paths


def loader(cfg, items, choices=("random_resized_crop", "random_flip"), **options):
    return build_data_loader(
        cfg, "RandomSampler", items, 2, build_transform(cfg, True, choices), **options
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(
    "choices",
    [("random_resized_crop", "random_flip"), ("center_crop",), ("random_flip",), ("normalize",)],
)
def test_same_images_as_sample_by_sample(make_cfg, images, interpolation, choices):
    cfg = make_cfg("INPUT.INTERPOLATION", interpolation, "INPUT.SIZE", (9, 7))
    transform = build_transform(cfg, True, choices)
    torch.manual_seed(0)
    for _ in range(20):
        batch = [images[i] for i in torch.randint(len(images), (4,))]
        seeds = torch.randint(2**62, (4,)).tolist()
        cache = PixelCache(0)
        ours = transform.batch([cache.read(x.impath) for x in batch], seeds)
        wrapper = DatasetWrapper(cfg, batch, transform, True)
        theirs = torch.stack([wrapper[key]["img"] for key in enumerate(seeds)])
        assert ours.shape == (4, 3, 9, 7) and ours.dtype == torch.float32
        level = 1 / 255 / (min(cfg.INPUT.PIXEL_STD) if "normalize" in choices else 1)
        near = (ours - theirs).abs() <= 1.01 * level
        # halfway between two pixels, Pillow and torch may choose either as the nearest
        assert near.all() or (interpolation == "nearest" and near.float().mean() > 0.8)


def test_distribution_is_torchvisions(make_cfg, tmp_path):
    """Where crops lie, how large they are, and how many are mirrored."""
    x, y = np.meshgrid(np.arange(240), np.arange(200))
    image = Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))
    image.save(tmp_path / "coordinates.png")
    cfg = make_cfg()
    items = [Datum(str(tmp_path / "coordinates.png"))] * 1500

    def boxes(batch):  # centre, signed width and height, from the colours of the edges
        left, right = batch[:, 0, :, 0].mean(1), batch[:, 0, :, -1].mean(1)
        top, bottom = batch[:, 1, 0].mean(1), batch[:, 1, -1].mean(1)
        sizes = (right - left).abs(), bottom - top, (right > left).float()
        return torch.stack([left + right, top + bottom, *sizes, sizes[0] / sizes[1]])

    torch.manual_seed(1)
    ours = boxes(torch.cat([batch["img"] for batch in loader(cfg, items)]))
    scale = tuple(cfg.INPUT.RRCROP_SCALE)
    oracle = T.Compose([T.RandomResizedCrop((8, 8), scale), T.RandomHorizontalFlip(), T.ToTensor()])
    theirs = boxes(torch.stack([oracle(image) for _ in items]))
    error = (ours.var(1) / len(items) + theirs.var(1) / len(items)).sqrt()
    assert ((ours.mean(1) - theirs.mean(1)).abs() < 4 * error).all()
    torch.testing.assert_close(ours.std(1), theirs.std(1), rtol=0.12, atol=0)


def test_batches_carry_what_a_plain_loader_gives(make_cfg, images):
    plain = DataLoader(
        DatasetWrapper(make_cfg(), images, build_transform(make_cfg(), False), True), 2
    )
    ours = loader(make_cfg(), images)
    assert isinstance(ours, PixelLoader) and len(ours) == 2
    assert (ours.batch_size, ours.dataset.data_source) == (2, images)
    batches = list(ours)
    assert [batch.keys() for batch in batches] == [next(iter(plain)).keys()] * 2
    for batch in batches:
        for i, index in enumerate(batch["index"].tolist()):
            item = images[index]
            expected = (item.impath, item.label, item.domain)
            got = (batch["impath"][i], int(batch["label"][i]), int(batch["domain"][i]))
            assert got == expected


def epochs(cfg, items, n=3):
    torch.manual_seed(5)
    batches = loader(cfg, items, ("random_resized_crop", "random_flip", "normalize"))
    return [(b["index"].tolist(), b["img"]) for _ in range(n) for b in batches]


@pytest.mark.parametrize("opts", [(KEY, 0), ("DATALOADER.NUM_WORKERS", 2)])
def test_memory_and_threads_do_not_change_batches(make_cfg, images, opts):
    for (i, x), (j, y) in zip(
        epochs(make_cfg(), images), epochs(make_cfg(*opts), images), strict=True
    ):
        assert i == j and torch.equal(x, y)


@pytest.mark.parametrize(("megabytes", "copies"), [(2048, 2), (0, 6)])
def test_images_go_to_a_gpu_once(make_cfg, images, megabytes, copies):
    """In one copy a batch, without a wait; in later epochs not again, where they have room."""
    cfg = make_cfg(KEY, megabytes)
    expected = epochs(cfg, images[:4])
    with pretended_gpu() as device:
        batches = epochs(cfg, images[:4])
    assert device.copies == {"to device": copies, "to device, blocking": 2}  # mean and deviation
    assert not device.waits
    for (i, x), (j, y) in zip(expected, batches, strict=True):
        level = 1.01 / 255 / min(cfg.INPUT.PIXEL_STD)  # a GPU resizes floats
        assert i == j and (x - y.held).abs().max() <= level


def test_decoded_once(make_cfg, images, reads):
    epochs(make_cfg(), images, n=4)
    assert sorted(reads) == sorted(item.impath for item in images)
    reads.clear()
    epochs(make_cfg(KEY, 0), images, n=4)
    assert len(reads) == 16


def test_runs_of_one_process_decode_once(make_cfg, reads):
    def train(cache):
        set_random_seed(1)
        for _ in range(2):
            list(DataManager(make_cfg(), cache=cache).train_loader_x)

    train({})
    assert len(reads) == len(set(reads)) == 21
    train(None)
    assert len(reads) > 3 * 20  # each on its own


def test_memory_is_bounded(images, reads):
    size = {item.impath: PixelCache(0).read(item.impath).nbytes for item in images}
    paths = list(size)
    limit = size[paths[0]] + size[paths[1]] + size[paths[2]]
    cache = PixelCache(limit)

    cache.start_run(paths)
    for _ in range(2):  # the full cache keeps what it has
        for path in paths:
            cache.read(path)
            assert cache.used <= limit
    reads.clear()
    for path in paths[:3]:
        cache.read(path)
    assert reads == []
    cache.start_run(paths[2:4])  # another run: only what it does not need makes room
    cache.read(paths[3])
    reads.clear()
    for path in paths[2:4]:
        cache.read(path)
    assert reads == [] and cache.used <= limit
    cache.read(paths[4])  # larger than all the rest
    assert cache.used <= limit


def test_threads_agree(images):
    cache = PixelCache(10**9)
    expected = sum(PixelCache(0).read(item.impath).nbytes for item in images)

    def read():
        for item in images * 20:
            assert cache.read(item.impath).shape[0] == 3

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.used == expected


@pytest.mark.parametrize("name", ["cut.png", "missing.png"])
def test_bad_image_is_named(make_cfg, images, tmp_path, name):
    (tmp_path / "cut.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    batches = loader(make_cfg("DATALOADER.NUM_WORKERS", 1), [*images, Datum(str(tmp_path / name))])
    with pytest.raises(ImageReadError, match=name):
        list(batches)


def test_leaving_an_epoch_ends_its_threads(make_cfg, images):
    before = threading.active_count()
    for _ in loader(make_cfg("DATALOADER.NUM_WORKERS", 2), images * 5):
        assert threading.active_count() > before
        break
    assert threading.active_count() == before


def test_code_of_others_gets_images_one_by_one(make_cfg):
    class Wrapper(DatasetWrapper):
        pass

    for options in ({"custom_tfm_train": T.ToTensor()}, {"dataset_wrapper": Wrapper}):
        dm = DataManager(make_cfg(), **options)
        assert type(dm.train_loader_x) is type(dm.test_loader) is DataLoader
        assert len(list(dm.train_loader_x)) == 5
