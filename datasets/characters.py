"""Characters: 0-9 and A-Z, rendered in fonts and distortions that the tiny CLIP never saw."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dassl.data.datasets import DATASET_REGISTRY

from .base import GeneratedDataset
from .digits import CLASSNAMES as DIGIT_NAMES
from .items import items_of_folders, split_items
from .splits import Splits

# Held out of the tiny CLIP's training: clip.tiny.render.HELD_OUT_FONTS. Its training distorts by
# affine and elastic maps, stroke, resolution, contrast and Gaussian noise; none of these here.
FONTS = ("DejaVuSansMono-Oblique", "DejaVuSerif-BoldItalic", "STIXGeneralItalic", "cmss10")
CHARACTERS = string.digits + string.ascii_uppercase
CLASSNAMES = DIGIT_NAMES + tuple(string.ascii_uppercase)
IMAGES_PER_FONT = 15
SIDE = 32  # pixels of an image
GLYPH_SIDE = 64  # pixels while it is distorted
MARGIN = 6


@DATASET_REGISTRY.register()
class Characters(GeneratedDataset):
    """``ROOT/characters/images/<class>/<nn>.png`` with its split file, made at the first use.

    60 images of each of 36 classes. They are the same for the same versions of matplotlib, which
    brings the fonts, and Pillow, which draws.
    """

    dataset_dir = "characters"
    image_dir = "images"
    split_file = "split_characters.json"
    template = "a photo of a {}."

    def images(self) -> Iterator[tuple[str, Image.Image]]:
        import matplotlib

        folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
        fonts = [
            ImageFont.truetype(
                str(folder / f"{name}.ttf"), GLYPH_SIDE, layout_engine=ImageFont.Layout.BASIC
            )
            for name in FONTS
        ]
        # RandomState's stream never changes between numpy versions, unlike Generator's.
        random = np.random.RandomState(0)
        for character, name in zip(CHARACTERS, CLASSNAMES, strict=True):
            glyphs = [glyph(character, font) for font in fonts]
            for i in range(IMAGES_PER_FONT * len(fonts)):
                yield f"{name}/{i:02d}.png", distort(glyphs[i % len(fonts)], random)

    def read(self) -> Splits:
        return split_items(items_of_folders(self.image_dir, {name: name for name in CLASSNAMES}))


def glyph(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Draw a character as large as fits a square with a margin, bright ink on black."""
    canvas = Image.new("L", (2 * GLYPH_SIDE, 2 * GLYPH_SIDE))
    ImageDraw.Draw(canvas).text((GLYPH_SIDE // 2, GLYPH_SIDE // 2), character, 255, font)
    ink = canvas.crop(canvas.getbbox())
    inner = GLYPH_SIDE - 2 * MARGIN
    return ImageOps.expand(ImageOps.pad(ink, (inner, inner)), MARGIN)


def distort(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """Tilt, wave, scratch, shrink, light unevenly and speckle a glyph."""
    image = _tilt(image, random)
    image = _wave(image, random)
    image = _scratch(image, random)
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255
    pixels = _speckle(_light(pixels, random), random)
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


def _tilt(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """Move each corner, so that parallels meet."""
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)]) + random.uniform(-0.12, 0.12, (4, 2))
    quad = (GLYPH_SIDE * corners).ravel().tolist()
    return image.transform(image.size, Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)


def _wave(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """Shift the rows along a sine."""
    height, periods, phase = random.uniform((0, 0.5, 0), (0.04 * GLYPH_SIDE, 1.5, 1))
    places = np.arange(GLYPH_SIDE)
    shifts = np.rint(height * np.sin(2 * np.pi * (periods * places / GLYPH_SIDE + phase)))
    sources = (places - shifts[:, None].astype(int)) % GLYPH_SIDE
    return Image.fromarray(np.take_along_axis(np.asarray(image), sources, axis=1))


def _scratch(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    """Draw a line across every second image, black or white."""
    line, chance, bright = random.uniform(0, GLYPH_SIDE, 4), random.rand(), random.rand() < 0.5
    if chance < 0.5:
        ImageDraw.Draw(image).line(line.tolist(), fill=255 * bright, width=GLYPH_SIDE // 32)
    return image


def _light(pixels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Let the background brighten towards one side."""
    angle, strength = random.uniform(0, 2 * np.pi), random.uniform(0, 0.5)
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) - 0.5
    background = 0.15 + strength * (0.5 + np.cos(angle) * x + np.sin(angle) * y)
    return background + (0.85 - background) * pixels


def _speckle(pixels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Turn some pixels black or white."""
    chance = random.rand(SIDE, SIDE)
    return np.where(chance < 0.015, 0.0, np.where(chance > 0.985, 1.0, pixels)).clip(0, 1)
