"""Image files: read as 8-bit RGB, or looked over, with errors that name them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from PIL import Image

from dassl.utils.errors import UserError

THREADS = 16  # of a check, which mostly waits where images lie on a network
BITS_PER_SAMPLE = 258  # tag of TIFF files


class ImageReadError(UserError, OSError):
    """An image that is missing or cannot be decoded."""


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as an RGB image, grey levels of 16 bits or floats scaled to 8 bits.

    Raises:
        ImageReadError: the file is missing, is not a complete image, or has pixels of a type whose
            range is not known.
    """
    with _opened(path) as image:
        return _to_rgb(image, path)


def check_image(path: str | os.PathLike[str]) -> None:
    """Read the header of an image file; raises as :func:`read_image`."""
    with _opened(path):
        pass


def check_images(
    paths: Collection[str], check: Callable[[str], Any] = check_image, named: int = 3
) -> None:
    """Check image files.

    Args:
        paths: the files.
        check: :func:`check_image`, or :func:`read_image` to decode them.
        named: how many of those that fail the message names.

    Raises:
        ImageReadError: some cannot be read; the message counts them.
    """

    def problem(path: str) -> str:
        try:
            check(path)
        except ImageReadError as error:
            return str(error)
        return ""

    with ThreadPool(THREADS) as pool:
        problems = [text for text in pool.imap(problem, paths, chunksize=64) if text]
    if problems:
        more = f"; and {len(problems) - named} more" if len(problems) > named else ""
        raise ImageReadError(
            f"{len(problems)} of {len(paths)} images cannot be read: "
            f"{'; '.join(problems[:named])}{more}"
        )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        if os.path.islink(path):
            raise ImageReadError(
                f'Image "{path}" is a link to "{os.readlink(path)}", which does not exist'
            ) from None
        raise ImageReadError(
            f'Image not found: "{path}". Check DATASET.ROOT and the split file'
        ) from None
    except ImageReadError:
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... on bad data
    except Exception as error:
        reason = "is empty" if _is_empty(path) else f"cannot be decoded ({error})"
        raise ImageReadError(f'Image "{path}" {reason}: download or copy it again') from error


def _is_empty(path: str | os.PathLike[str]) -> bool:
    return os.path.isfile(path) and not os.path.getsize(path)


def _to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    """Convert as Image.convert does, but scale grey levels of more than 8 bits, which it clips."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
        image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    elif image.mode in ("I", "F"):
        pixels = np.asarray(image)
        low, high = pixels.min(), pixels.max()
        if image.mode == "I" or not (low >= 0 and high <= 1):  # NaN is refused, too
            raise ImageReadError(
                f'Image "{path}" has grey levels from {low:g} to {high:g}, of which '
                "white is not known: save it with 8 or 16 bits, or as floats from 0 to 1"
            )
        image = Image.fromarray(np.rint(255 * pixels).astype(np.uint8))
    elif isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return image.convert("RGB")
