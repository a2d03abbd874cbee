"""`qprompt export`: a packed prompt, and what can be used without this code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..prompt import Prompt

TARGETS = ("output", "onnx", "web", "card", "text", "qr")  # at least one is asked for
OF_CHECKPOINTS = ("bits", "trainer", "set")


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what `qprompt export` takes, but for class names."""
    add = command.add_argument
    add("sources", nargs="+", metavar="RUN", help="run's folder, checkpoint or packed prompt")
    add("-o", "--output", metavar="FILE", help="packed prompt to write")
    add("--bits", type=int, help="of it, 1 to 8, or 16: not quantized; default: as trained, else 1")
    add("--trainer", help="of a checkpoint whose weights do not show it")
    add("--backbone", help="name or file of the CLIP; default: what RUN names")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='setting of a checkpoint, e.g. CTX_INIT="a photo of a", CLASS_TOKEN_POSITION=middle',
    )
    use = command.add_argument_group("for use without this code")
    use.add_argument("--onnx", metavar="DIR", help="new folder: ONNX graphs and a small program")
    use.add_argument("--web", metavar="DIR", help="new folder: a page that compares all RUN")
    use.add_argument("--int8", action="store_true", help="image towers of --onnx, --web in 8 bits")
    use.add_argument("--runtime", metavar="DIR", help="onnxruntime-web; default: in node_modules")
    use.add_argument("--card", action="store_true", help="README.md beside the packed prompt")
    use.add_argument("--text", action="store_true", help="print the prompt as text")
    use.add_argument("--qr", metavar="PNG", help="image to write: a QR code of that text")
    command.set_defaults(usage=command.error)


def export(args: argparse.Namespace, classnames: Sequence[str] | None) -> None:
    """Do what a command line asks for; classnames: those that it gives, if any."""
    _check_usage(args)
    files = [_write_packed(args)] if args.output else list(map(_find_packed, args.sources))
    from ..prompt import load

    prompts = list(map(load, files))
    if args.card:
        from .card import write_card

        print(write_card(prompts[0]))
    if args.text:
        print(prompts[0].text())
    if args.qr:
        _draw(prompts[0].text(), args.qr)
        print(args.qr)
    if args.onnx or args.web:
        _write_graphs(prompts, classnames, args)


def _check_usage(args: argparse.Namespace) -> None:
    if not any(getattr(args, target) for target in TARGETS):
        args.usage("say what to write: " + ", ".join(f"--{target}" for target in TARGETS))
    alone = [target for target in TARGETS if target != "web" and getattr(args, target)]
    if len(args.sources) > 1 and alone:
        args.usage(f"--{alone[0]} takes one RUN, {len(args.sources)} are given")
    if not args.output and (given := [key for key in OF_CHECKPOINTS if getattr(args, key)]):
        args.usage(f"--{given[0]} is for the packed prompt that is to be written: give --output")


def _write_packed(args: argparse.Namespace) -> str:
    from ..errors import InvalidOptionError
    from .export import export

    settings = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise InvalidOptionError(f"--set {item}: it is KEY=VALUE")
        settings[key] = value
    payload = export(args.sources[0], args.output, args.bits, args.trainer, args.backbone, settings)
    print(f"{args.output}: {payload:,} bytes of payload")
    return str(args.output)


def _find_packed(source: str) -> str:
    from ..errors import InvalidOptionError
    from .export import find_source

    packed = find_source(source).packed
    if packed is None:
        raise InvalidOptionError(f"'{source}' holds no packed prompt: write one with --output")
    return str(packed)


def _draw(text: str, path: str) -> None:
    import segno

    from ..errors import InvalidOptionError

    try:
        code = segno.make_qr(text)
    except segno.DataOverflowError:
        raise InvalidOptionError(
            f"a QR code holds at most 2,953 characters, and this prompt has {len(text):,}: "
            "export it at fewer bits"
        ) from None
    try:
        with open(path, "xb") as file:
            code.save(file, kind="png", scale=4)
    except FileExistsError:
        raise InvalidOptionError(f"'{path}' exists: move it away, or choose another name") from None


def _write_graphs(
    prompts: Sequence[Prompt], classnames: Sequence[str] | None, args: argparse.Namespace
) -> None:
    from .onnx import export_onnx
    from .web import export_web

    models = [prompt.apply(args.backbone, "cpu", "fp32") for prompt in prompts]
    names = models[0].classes(classnames)
    if args.onnx:
        export_onnx(models[0], names, args.onnx, args.int8)
        print(args.onnx)
    if args.web:
        export_web(models, names, args.web, args.runtime, args.int8)
        print(f"{args.web}: python -m http.server -d {args.web}")
