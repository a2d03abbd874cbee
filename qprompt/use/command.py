"""The command `qprompt`: look at packed prompts, make them, and classify images with them.

Exit codes: 0; 1, something that you can put right; 2, wrong usage; 3, `diff` found differences.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOptionError, QPromptError
from . import export_command

if TYPE_CHECKING:
    from ..prompt import Prompt
    from .model import AppliedPrompt

DIFFERENT = 3
# that bring packages which not everybody needs
EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "segno": "qr"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line; see `qprompt --help`."""
    args = parser().parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (QPromptError, OSError) as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "clip")
        sys.exit(f'error: {error}: pip install "clip-qprompt[{extra}]"')


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="qprompt", description=__doc__.partition("\n")[0])
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, about: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=about, description=about, epilog=f"example: qprompt {name} {example}"
        )
        command.set_defaults(run=run)
        return command

    command = add("inspect", inspect, "say what a packed prompt is", "p.safetensors --words 3")
    command.add_argument("file", metavar="FILE", help="packed prompt")
    command.add_argument("--json", action="store_true", help="everything that it says, as JSON")
    command.add_argument(
        "--words", type=int, metavar="K", help="the K nearest words of each context vector"
    )
    _add_model_options(command)

    about = "write a packed prompt, or what can be used without this code"
    command = add("export", export, about, "output/run -o p.safetensors --bits 2")
    export_command.add_options(command)
    _add_classes(command)

    command = add(
        "classify", classify, "say what images show", "p.safetensors photos/ --classes cat,dog"
    )
    command.add_argument("file", metavar="FILE", help="packed prompt")
    command.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="file, folder, or - for paths on stdin",
    )
    _add_classes(command)
    command.add_argument("--top-k", type=_positive, default=1, metavar="K", help="classes to show")
    command.add_argument("--format", choices=["table", "csv", "json"], default="table")
    _add_model_options(command)
    _add_batch_size(command)

    command = add(
        "classifier",
        classifier,
        "write the text features of classes, which need no text tower then",
        "p.safetensors --classes-file names.txt -o head.safetensors",
    )
    command.add_argument("file", metavar="FILE", help="packed prompt")
    _add_classes(command)
    command.add_argument("-o", "--output", required=True, metavar="HEAD", help="file to write")
    _add_model_options(command)

    command = add(
        "evaluate",
        evaluate,
        "measure accuracy on a folder of class folders",
        "p.safetensors --data photos/",
    )
    command.add_argument("file", metavar="FILE", help="packed prompt")
    command.add_argument("--data", required=True, metavar="DIR", help="one folder for each class")
    command.add_argument("--json", action="store_true", help="write JSON")
    _add_model_options(command)
    _add_batch_size(command)

    command = add("diff", diff, "compare two packed prompts", "a.safetensors b.safetensors")
    command.add_argument("files", nargs=2, metavar="FILE")
    return top


def _add_classes(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument("--classes", metavar="A,B", help="class names; default: those of the file")
    group.add_argument(
        "--classes-file", metavar="F", help="class names, one a line; - for standard input"
    )


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--backbone", help="name or file of the CLIP; default: what FILE names")
    command.add_argument("--device", default="cpu", help="such as cuda; default: cpu")
    command.add_argument(
        "--precision", choices=["fp32", "fp16", "bf16"], help="default: fp32 on the CPU, else fp16"
    )


def _add_batch_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--batch-size", type=_positive, default=64, metavar="N", help="images encoded at once"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def inspect(args: argparse.Namespace) -> None:
    from ..prompt import load
    from .inspection import as_text, describe

    prompt = load(args.file)
    about = describe(prompt)
    if args.words is not None:
        about["nearest_words"] = _words(prompt, args)
    if args.json:
        json.dump(about, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        print(as_text(about))


def _words(prompt: Prompt, args: argparse.Namespace) -> list[list[str]]:
    from .backbone import load_backbone
    from .words import nearest_words

    contexts = [t for name, t in prompt.tensors.items() if name in ("ctx", "prompt_learner.ctx")]
    if not contexts:
        raise InvalidOptionError(f"'{prompt.path}' has no context: leave out --words")
    backbone = load_backbone(prompt, args.backbone, args.device, "fp32")
    near = nearest_words(contexts[0].flatten(0, -2).to(args.device), backbone, args.words)
    return [[word.removesuffix("</w>") for word, _ in words] for words in near]


def export(args: argparse.Namespace) -> None:
    export_command.export(args, _classes(args))


def classify(args: argparse.Namespace) -> None:
    from .images import find_images

    model, names = _apply(args), _classes(args)
    paths = [path for image in args.images for path in (_lines("-") if image == "-" else [image])]
    images = list(find_images(paths))
    rows = zip(images, _predict(model, images, names, args), strict=True)
    write = {"table": _write_table, "csv": _write_csv, "json": _write_json}[args.format]
    write(rows)


def _predict(
    model: AppliedPrompt, images: list[str], names: list[str] | None, args: argparse.Namespace
) -> Iterator[list[tuple[str, float]]]:
    """Yield the most probable classes of each image, with a progress bar where somebody looks."""
    from tqdm import tqdm

    size = args.batch_size
    with tqdm(total=len(images), unit="image", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            yield from model.classify(batch, names, size).top(getattr(args, "top_k", 1))
            bar.update(len(batch))


Rows = Iterable[tuple[str, list[tuple[str, float]]]]


def _write_table(rows: Rows) -> None:
    for path, found in rows:
        print(path, *(f"{name} {100 * value:.1f}%" for name, value in found), sep="\t")


def _write_csv(rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for path, found in rows:
        writer.writerows([path, i, name, value] for i, (name, value) in enumerate(found, 1))


def _write_json(rows: Rows) -> None:
    """Write one object for each image, a line each."""
    for path, found in rows:
        classes = [{"class": name, "probability": value} for name, value in found]
        print(json.dumps({"image": path, "classes": classes}, ensure_ascii=False))


def classifier(args: argparse.Namespace) -> None:
    from safetensors.torch import save

    from ..dassl_config import compact_json
    from ..packed_file import write_atomically

    if os.path.exists(args.output):
        raise InvalidOptionError(f"'{args.output}' exists: move it away, or choose another name")
    model = _apply(args)
    names = model.classes(_classes(args))
    tensors = {
        "weight": model.classifier(names).cpu().contiguous(),
        "logit_scale": model.backbone.logit_scale.detach().exp().float().cpu(),
    }
    metadata = {"classnames": compact_json(names), "backbone": model.prompt.backbone}
    write_atomically(args.output, save(tensors, metadata))
    print(f"{args.output}: {len(names)} classes, {tensors['weight'].shape[1]} features")


def evaluate(args: argparse.Namespace) -> None:
    from .evaluation import count_correct, find_classes

    model = _apply(args)
    names, images = find_classes(args.data)
    paths, labels = zip(*images, strict=True)
    predicted = (names.index(top[0][0]) for top in _predict(model, list(paths), names, args))
    result = count_correct(names, labels, predicted)
    if args.json:
        print(json.dumps({"accuracy": result.accuracy, **result._asdict()}, ensure_ascii=False))
        return
    sums = ("all", sum(result.total), sum(result.correct))
    width = max(map(len, names))
    for name, total, correct in (*zip(*result, strict=True), sums):
        print(f"{name:<{width}}  {correct:>6,} of {total:>6,}  {100 * correct / total:6.2f}%")


def diff(args: argparse.Namespace) -> int:
    from ..prompt import load
    from .comparison import differences

    lines = list(differences(*map(load, args.files)))
    print(*lines, sep="\n", end="\n" * bool(lines))
    return DIFFERENT if lines else 0


def _apply(args: argparse.Namespace) -> AppliedPrompt:
    from ..prompt import load

    return load(args.file).apply(args.backbone, args.device, args.precision)


def _classes(args: argparse.Namespace) -> list[str] | None:
    """The class names that were given; None: those of the file."""
    if args.classes_file is not None:
        return _lines(args.classes_file)
    if args.classes is None:
        return None
    return [name.strip() for name in args.classes.split(",") if name.strip()]


def _lines(path: str) -> list[str]:
    """The lines of a text file that are not empty; "-" is standard input."""
    if path == "-":
        text = sys.stdin.read()
    else:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    return [line.strip() for line in text.splitlines() if line.strip()]
