"""Images of characters, rendered from the fonts that matplotlib ships and distorted at random.

The tiny CLIP learns from these images alone. Four fonts are never rendered for its training
(:data:`HELD_OUT_FONTS`), so that data sets made from them are new to the model.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from clip.tiny.pen import VARIANTS, Stroke

CHARACTERS = string.digits + string.ascii_uppercase
HELD_OUT_FONTS = ("DejaVuSansMono-Oblique", "DejaVuSerif-BoldItalic", "STIXGeneralItalic", "cmss10")
TRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmb10",
    "cmr10",
    "cmti10",
    "cmtt10",
)
TRAITS = (
    ("", "white", "black"),
    ("", "thin", "bold"),
    ("", "blurry", "sharp"),
    ("", "small", "large"),
)
_GLYPH_SIZE = 64
_FONT_PIXELS = 96
_MARGIN = 8
_PEN_COLUMNS = 8


def glyph_bank(fonts: tuple[str, ...] = TRAINING_FONTS, pen: bool = True) -> Tensor:
    """Draw every character in every font, and the digits also as a pen writes them.

    Args:
        fonts: file names, without suffix, among matplotlib's ``.ttf`` fonts.
        pen: add columns in which digits are pen strokes and letters repeat the first fonts.

    Returns:
        float32 tensor of shape (characters, glyphs, 64, 64), ink 1 on background 0.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    loaded = [ImageFont.truetype(str(folder / f"{name}.ttf"), _FONT_PIXELS) for name in fonts]
    rows = []
    for character in CHARACTERS:
        row = [_printed(character, font) for font in loaded]
        if pen:
            others = [_written(strokes) for strokes in VARIANTS.get(character, [])] or row
            row = row + [others[i % len(others)] for i in range(_PEN_COLUMNS)]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _printed(character: str, font: ImageFont.FreeTypeFont) -> Tensor:
    canvas = Image.new("L", (3 * _FONT_PIXELS, 3 * _FONT_PIXELS))
    ImageDraw.Draw(canvas).text((_FONT_PIXELS, _FONT_PIXELS), character, fill=255, font=font)
    return _fit(canvas)


def _written(strokes: list[Stroke]) -> Tensor:
    side, width = 4 * _GLYPH_SIZE, 24
    canvas = Image.new("L", (side + 2 * width, side + 2 * width))
    draw = ImageDraw.Draw(canvas)
    for stroke in strokes:
        points = [(width + 0.8 * side * x, width + side * y) for x, y in stroke]
        draw.line(points, fill=255, width=width, joint="curve")
    return _fit(canvas)


def _fit(canvas: Image.Image) -> Tensor:
    """Scale the ink to the glyph's inner square, keeping its shape."""
    ink = canvas.crop(canvas.getbbox())
    ratio = (_GLYPH_SIZE - 2 * _MARGIN) / max(ink.size)
    size = [max(1, round(ratio * length)) for length in ink.size]
    ink = ink.resize(size, Image.Resampling.BICUBIC)
    glyph = Image.new("L", (_GLYPH_SIZE, _GLYPH_SIZE))
    glyph.paste(ink, ((_GLYPH_SIZE - ink.width) // 2, (_GLYPH_SIZE - ink.height) // 2))
    return torch.from_numpy(np.asarray(glyph, dtype=np.float32) / 255)


def distort(glyphs: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn glyphs into photos: stroke, affine and elastic shape, resolution, contrast, noise.

    Args:
        glyphs: (n, 64, 64), ink 1 on background 0.
        size: height and width of the images, in pixels.
        generator: source of all randomness.

    Returns:
        float32 images (n, 3, size, size) with values in [0, 1], and their traits as int64
        (n, len(TRAITS)): trait j of an image is the word ``TRAITS[j][index]``, "" for neither.
    """
    images, stroke = _stroke(glyphs[:, None], generator)
    grid, scale = _warp(len(glyphs), size, generator)
    images = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    images, quality = _resolution(images, generator)
    images, ink = _contrast(images, generator)
    return images.expand(-1, 3, -1, -1), torch.stack([ink, stroke, quality, scale], dim=1)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _stroke(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make strokes thicker or thinner by a greyscale dilation or erosion."""
    choice = torch.randint(5, (len(images),), generator=generator)
    out = images.clone()
    for index, width, sign in ((0, 3, 1), (1, 5, 1), (2, 7, 1), (3, 3, -1)):
        chosen = choice == index
        pooled = F.max_pool2d(sign * images[chosen], width, stride=1, padding=width // 2)
        out[chosen] = sign * pooled
    return out, torch.tensor([0, 2, 2, 1, 0])[choice]


def _warp(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw an affine map and a smooth displacement: a sampling grid (n, size, size, 2), traits."""
    angle = torch.randn(n, generator=generator) * 0.15
    shear = _uniform(n, -0.3, 0.3, generator)
    scale = _uniform(n, 0.75, 1.2, generator)
    aspect = _uniform(n, 0.7, 1.15, generator)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(n), torch.ones(n)
    rotation = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    skew = torch.stack([1 / aspect, shear, zero, one], 1).view(n, 2, 2)
    shift = torch.randn(n, 2, 1, generator=generator) * 0.06
    theta = torch.cat([rotation @ skew * scale[:, None, None], shift], 2)
    grid = F.affine_grid(theta, [n, 1, size, size], align_corners=False)
    strength = _uniform(n, 0.0, 0.14, generator)[:, None, None, None]
    field = torch.randn(n, 2, 5, 5, generator=generator) * strength
    field = F.interpolate(field, (size, size), mode="bicubic", align_corners=True)
    return grid + field.permute(0, 2, 3, 1), (scale > 1.1).long() + 2 * (scale < 0.85).long()


def _resolution(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pass five of eight images through a coarser pixel grid, as scans and thumbnails do."""
    size = images.shape[-1]
    choice = torch.randint(8, (len(images),), generator=generator)
    out = images.clone()
    for index, side in enumerate((8, 8, 8, 10, 14)):
        chosen = choice == index
        coarse = F.adaptive_avg_pool2d(images[chosen], side)
        out[chosen] = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    return out.clamp(0, 1), torch.tensor([1, 1, 1, 0, 0, 2, 2, 2])[choice]


def _contrast(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = len(images)

    def column(low: float, high: float) -> Tensor:
        return _uniform(n, low, high, generator)[:, None, None, None]

    images = (images * column(0.9, 2.2)).clamp(0, 1)
    dark, bright = column(0.0, 0.25), column(0.65, 1.0)
    images = dark + (bright - dark) * images
    inverted = torch.rand(n, generator=generator) < 0.25
    images = torch.where(inverted[:, None, None, None], 1 - images, images)
    noise = torch.randn(images.shape, generator=generator) * column(0.0, 0.1)
    return (images + noise).clamp(0, 1), 1 + inverted.long()
