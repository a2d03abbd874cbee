from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import Digits, DigitsBlur, DigitsInverted, DigitsNoise, DigitsRotated
from datasets.fewshot import FewerImagesThanShots

TARGETS = [DigitsNoise, DigitsBlur, DigitsInverted, DigitsRotated]


def key(item):
    return Path(item.impath).parent.name, Path(item.impath).name


def pixels(item):
    with Image.open(item.impath) as image:
        resized = image.resize((32, 32), Image.Resampling.BICUBIC)
        return np.asarray(resized, dtype=float)


@pytest.mark.parametrize("cls", TARGETS)
def test_the_test_images_of_digits_and_no_others(data_root, make_cfg, cls):
    digits, target = Digits(make_cfg(data_root)), cls(make_cfg(data_root))
    assert target.lab2cname == digits.lab2cname and target.template == digits.template
    assert sorted(map(key, target.test)) == sorted(map(key, digits.test))
    assert not {*map(key, target.test)} & {*map(key, [*digits.train_x, *digits.val])}
    for item in target.test:
        assert key(item)[0] == item.classname


@pytest.mark.parametrize("cls", TARGETS)
def test_shots_and_seeds_change_nothing(data_root, make_cfg, cls, recwarn):
    whole, few = cls(make_cfg(data_root)), cls(make_cfg(data_root, shots=600, seed=3))
    assert few.test == few.train_x == whole.test and not few.val
    assert not [w for w in recwarn if issubclass(w.category, FewerImagesThanShots)]
    new = cls(make_cfg(data_root, subsample="new"))
    assert new.classnames == ["five", "six", "seven", "eight", "nine"]


def test_the_shift_is_what_its_name_says(data_root, make_cfg):
    source = {key(item): pixels(item) for item in Digits(make_cfg(data_root)).test}

    def pairs(cls):
        return [(source[key(item)], pixels(item)) for item in cls(make_cfg(data_root)).test]

    assert all(np.array_equal(255 - before, after) for before, after in pairs(DigitsInverted))
    # The median: what noise does at the ends of the range is cut off.
    noise = np.median(
        [np.median(np.abs(a - b)[(a > 100) & (a < 155)]) for a, b in pairs(DigitsNoise)]
    )
    assert noise == pytest.approx(0.6745 * 64, rel=0.1)
    for before, after in pairs(DigitsBlur):
        assert np.abs(np.diff(after)).max() < 0.6 * np.abs(np.diff(before)).max()

    def slant(image):  # the angle of the principal axis, in degrees from the vertical
        y, x = np.mgrid[:32, :32]
        weights = image / image.sum()
        x, y = x - (weights * x).sum(), y - (weights * y).sum()
        xx, yy, xy = ((weights * p).sum() for p in (x * x, y * y, x * y))
        return np.degrees(0.5 * np.arctan2(2 * xy, yy - xx)), (yy - xx) / (xx + yy)

    turned = []
    for before, after in pairs(DigitsRotated):
        (old, elongated), (new, _) = slant(before), slant(after)
        if elongated > 0.5:
            turned.append((new - old + 90) % 180 - 90)
    assert len(turned) > 100 and 20 < np.median(np.abs(turned)) < 40
    assert 0.35 < np.mean(np.array(turned) > 0) < 0.65


@pytest.mark.parametrize("cls", TARGETS)
def test_made_alike_where_digits_were_never_used(data_root, make_cfg, tmp_path, cls):
    shutil.copytree(data_root / "digits/images", tmp_path / "digits/images")
    made, known = cls(make_cfg(tmp_path)), cls(make_cfg(data_root))
    assert list(map(key, made.test)) == list(map(key, known.test))
    for a, b in list(zip(made.test, known.test, strict=True))[::20]:
        assert Path(a.impath).read_bytes() == Path(b.impath).read_bytes()
    assert (tmp_path / "digits/split_digits.json").is_file()


def test_training_on_them_is_refused(build, tmp_path):
    run = build("CoOp", tmp_path, opts=["DATASET.NAME", "DigitsNoise"])
    with pytest.raises(ValueError, match="DigitsNoise has no training images.*--eval-only"):
        run.train()
