"""Imports point one way (CONTRIBUTING.md, "The house")."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = {"clip", "dassl", "datasets", "qprompt", "reporting", "sweeps", "trainers", "train"}
ALLOWED = {
    "qprompt": set(),
    "dassl": set(),
    "clip": {"qprompt"},
    "datasets": {"dassl"},
    "trainers": {"clip", "dassl", "qprompt"},
    "reporting": set(),
    "sweeps": {"dassl", "qprompt", "trainers"},
}


def imports(path):
    """Top-level packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_package_imports_only_what_it_may(package):
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = set(imports(path)) & OURS - ALLOWED[package] - {package}
        assert not wrong, f"{path.relative_to(REPOSITORY)} imports {wrong}"
