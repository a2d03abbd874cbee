"""A static page that shows in the browser what several prompts make of an image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidOptionError
from ..prompt import Prompt
from .model import AppliedPrompt
from .onnx import describe, new_folder, write_classes, write_tower

PAGE = Path(__file__).with_name("page")
PACKAGE = "onnxruntime-web"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
INTERPOLATIONS = ("bicubic", "bilinear")  # what page/pixels.js knows


def find_runtime(folder: str | None) -> Path:
    """Return the folder with the files of onnxruntime-web that the page needs.

    Args:
        folder: the npm package, or the files themselves; None: the package is looked for as Node
            does, in ``node_modules`` of the working folder and those above it.

    Raises:
        InvalidOptionError: they are not there; says how to get them.
    """
    here = Path.cwd()
    places = (
        [Path(folder)]
        if folder
        else [up / "node_modules" / PACKAGE for up in (here, *here.parents)]
    )
    for place in places:
        for candidate in (place, place / "dist"):
            if all((candidate / name).is_file() for name in RUNTIME):
                return candidate
    where = f"'{folder}' lacks" if folder else "there are no"
    raise InvalidOptionError(
        f"{where} files of {PACKAGE} ({', '.join(RUNTIME)}): run 'npm install {PACKAGE}' here, or, "
        "without a network, copy them from another machine and name their folder with --runtime"
    )


def export_web(
    models: Sequence[AppliedPrompt],
    classnames: Sequence[str],
    folder: str,
    runtime: str | None = None,
    int8: bool = False,
) -> None:
    """Write a new folder with a page that compares prompts, for any static file server.

    Args:
        models: of one backbone, in float32, each a column of the page.
        classnames: what images are to be told apart by.
        folder: its name.
        runtime: as for :func:`find_runtime`.
        int8: as for :func:`qprompt.use.onnx.write_tower`.

    Raises:
        InvalidOptionError: prompts of different backbones or preprocessing, an interpolation that
            the page does not know, no runtime, or as :func:`qprompt.use.onnx.new_folder`.
    """
    runtime_folder = find_runtime(runtime)
    first, described = models[0].prompt, describe(models[0], classnames)
    for model in models:
        if model.prompt.backbone != first.backbone or describe(model, classnames) != described:
            raise InvalidOptionError(
                f"'{model.prompt.path}' is for another backbone, or for other preprocessing, than "
                f"'{first.path}'; put them on pages of their own"
            )
    interpolation = models[0].preprocess.interpolation
    if interpolation not in INTERPOLATIONS:
        raise InvalidOptionError(
            f"the page cannot resize by {interpolation!r} interpolation, only by "
            f"{' or '.join(INTERPOLATIONS)}"
        )
    with new_folder(folder) as scratch:
        shutil.copytree(PAGE, scratch, dirs_exist_ok=True)
        for name in RUNTIME:
            shutil.copy(runtime_folder / name, scratch)
        prompts = []
        for number, model in enumerate(models, 1):
            # towers without image prompts are all the same
            tower = f"image-{number}.onnx" if model.learned.image is not None else "image.onnx"
            if not (scratch / tower).exists():
                write_tower(model, scratch / tower, int8)
            classes = write_classes(model, classnames, scratch, f"classes-{number}")
            title, size = _title(model.prompt), model.prompt.packed.payload_bytes
            prompts.append({"title": title, "bytes": size, "tower": tower, "classes": classes})
        page = {**described, "backbone": first.backbone, "prompts": prompts}
        (scratch / "prompts.json").write_text(json.dumps(page, indent=1) + "\n")


def _title(prompt: Prompt) -> str:
    bits = max((tensor.bits for tensor in prompt.packed.quantized.values()), default=None)
    if bits is None:
        return f"{prompt.trainer}, not quantized"
    return f"{prompt.trainer}, {bits} bit{'s' * (bits > 1)}"
