"""Print what some extras of pyproject.toml need and this Python lacks; exit with 1 if there is any.

python scripts/missing.py train,report
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:>=([\d.]+))?")


def missing(extras: list[str]) -> list[str]:
    """Return the requirements that are not met, Python's own version first."""
    lacking = [] if sys.version_info >= (3, 10) else ["python>=3.10"]
    for requirement in sorted(set(requirements(read_project(), extras))):
        name, _, least = REQUIREMENT.fullmatch(requirement).groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking.append(requirement)
        else:
            if numbers(version) < numbers(least or "0"):
                lacking.append(f"{requirement} (there is {version})")
    return lacking


def read_project() -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        from pip._vendor import tomli as tomllib
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]


def requirements(project: dict[str, Any], extras: list[str]) -> Iterator[str]:
    """Yield them, with those of the extras that an extra consists of."""
    yield from project["dependencies"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            name, inner, _ = REQUIREMENT.fullmatch(requirement).groups()
            if name == project["name"]:
                yield from requirements(project, inner.split(","))
            else:
                yield requirement


def numbers(version: str) -> list[int]:
    """Return [2, 4, 1] for 2.4.1+cpu."""
    return [int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number]


if __name__ == "__main__":
    lacking = missing(sys.argv[1].split(","))
    print(*lacking, sep=", ")
    sys.exit(bool(lacking))
