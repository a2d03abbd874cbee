"""Images of every kind of pixel, and what is wrong with files that hold none."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from PIL import Image

from dassl.utils import ImageReadError, check_images, read_image

LEVELS = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey16.png", (257 * LEVELS).astype(np.uint16)),
        ("shifted.png", (256 * LEVELS).astype(np.uint16)),
        ("grey16.tif", (257 * LEVELS).astype(np.uint16)),
        ("big_endian.tif", (257 * LEVELS).astype(">u2")),
        ("grey16.pgm", (257 * LEVELS).astype(np.uint16)),
        ("grey16.jp2", (257 * LEVELS).astype(np.uint16)),
        ("float.tif", (LEVELS / 255).astype(np.float32)),
    ],
)
def test_a_grey_gradient_keeps_its_levels(tmp_path, name, pixels):
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **({"irreversible": False} if name.endswith("jp2") else {}))
    image = read_image(path)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.stack([LEVELS] * 3, axis=-1))


def test_twelve_bits_keep_their_levels(tmp_path):
    """Two levels in three bytes, and TIFF's smallest directory, which Pillow cannot write."""
    pairs = (16 * LEVELS).reshape(-1, 2)
    strip = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    tags = {256: 16, 257: 16, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: len(strip)}
    entries = (struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    path = tmp_path / "grey12.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory)
    assert np.array_equal(np.asarray(read_image(path))[..., 0], LEVELS)


@pytest.mark.parametrize(
    ("pixels", "range_"),
    [
        ((LEVELS - 1.0).astype(np.float32), "-1 to 254"),
        (np.full((2, 2), np.nan, np.float32), "nan to nan"),
        ((LEVELS << 16).astype(np.int32), "0 to 1.67117e+07"),
    ],
    ids=["floats", "nan", "integers"],
)
def test_pixels_whose_white_is_not_known_are_refused(tmp_path, pixels, range_):
    path = tmp_path / "unknown.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(ImageReadError, match=re.escape(f'"{path}" has grey levels from {range_}')):
        read_image(path)


def _with_transparency(transparency):
    image = Image.fromarray(LEVELS.astype(np.uint8)).quantize(16)
    image.info["transparency"] = transparency
    return image


EIGHT_BITS = {
    **{f"{mode}.png": Image.linear_gradient("L").convert(mode) for mode in ("1", "L", "LA", "P")},
    **{f"{mode}.png": Image.linear_gradient("L").convert(mode) for mode in ("RGB", "RGBA")},
    **{f"{mode}.jpg": Image.linear_gradient("L").convert(mode) for mode in ("L", "RGB", "CMYK")},
    "index.png": _with_transparency(3),
    "alphas.png": _with_transparency(bytes(range(0, 160, 10))),
    "cmyk.tif": Image.linear_gradient("L").convert("CMYK"),
    "palette.gif": Image.linear_gradient("L").convert("P"),
}


@pytest.mark.parametrize("name", EIGHT_BITS)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_eight_bits_are_what_pillow_converts_them_to(tmp_path, name):
    path = tmp_path / name
    EIGHT_BITS[name].save(path)
    with Image.open(path) as image:
        expected = image.convert("RGB")
    assert read_image(path).tobytes() == expected.tobytes()


def test_transparency_gives_no_warning(tmp_path):
    EIGHT_BITS["alphas.png"].save(tmp_path / "alphas.png")
    read_image(tmp_path / "alphas.png")


def test_all_broken_images_are_found_at_once(tmp_path):
    whole = tmp_path / "whole.png"
    Image.effect_noise((30, 30), 50).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    paths = [str(tmp_path / n) for n in ("whole.png", "cut.png", "link.png", "empty.png", "no.png")]
    with pytest.raises(ImageReadError, match="^3 of 5 images cannot be read: ") as error:
        check_images(paths)
    assert 'link.png" is a link to "nowhere.png", which does not exist; ' in str(error.value)
    assert 'empty.png" is empty' in str(error.value) and "not found" in str(error.value)
    with pytest.raises(ImageReadError, match="^4 of 5 .*cut.png.*; and 2 more$") as error:
        check_images(paths, read_image, named=2)
    check_images([str(whole)] * 1000)
