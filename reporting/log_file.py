"""Read the log that a run of Dassl leaves behind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reporting.run import Config

_ACCURACY = re.compile(r"^\* accuracy: ([\d.eE+-]+)%", re.MULTILINE)
_ENTRY = re.compile(r"( *)(\w+):(?: (.*))?$")
_EPOCH = re.compile(r"^epoch \[", re.MULTILINE)
_LOADED = re.compile(r'^Load(?:ing|ed) weights .*?from "?([^"\s]+)"?', re.MULTILINE)


@dataclass(frozen=True)
class LogFile:
    """What a log says: of the weights that were evaluated, empty where it trained them itself."""

    config: Config
    accuracy: float | None  # percent; None where the run did not get that far
    weights: str


def read_log(folder: Path) -> LogFile | None:
    """Read the logs of a run's folder; of several starts, the last that came to a result counts."""
    logs = [_parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("log.txt*"))]
    finished = [log for log in logs if log.accuracy is not None]
    return (finished or logs or [None])[-1]


def _parse(text: str) -> LogFile:
    arguments, config = _block(text, "** Arguments **"), _block(text, "** Config **")
    trained = _EPOCH.search(text)
    if trained:
        weights, (_, mark, result) = "", text.partition("Finish training")
    else:
        loaded = _LOADED.search(text)
        weights = str(arguments.get("model_dir") or (loaded[1] if loaded else ""))
        _, mark, result = text.partition("=> result")
    found = _ACCURACY.findall(result) if mark else []
    return LogFile(config, float(found[-1]) if found else None, weights)


def _block(text: str, heading: str) -> Config:
    """The flattened entries below a heading, up to the first line that is none."""
    _, _, rest = text.partition(f"{heading}\n")
    return dict(_entries(rest))


def _entries(text: str) -> Iterator[tuple[str, object]]:
    sections: list[str] = []
    for line in filter(None, text.splitlines()):
        if set(line) <= {"*", "-", "="}:  # a rule under the heading
            continue
        match = _ENTRY.match(line)
        if not match:
            return
        indent, key, value = match.groups()
        sections = [*sections[: len(indent) // 2], key]
        if value is not None:
            yield ".".join(sections), _literal(value)


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
