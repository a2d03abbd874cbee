"""The transcripts in docs/COOP.md and docs/MAPLE.md, run again with fewer seeds and shots."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="this repository's engine needs torchvision")

REPOSITORY = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "upstream/scripts"
NUMBER = r"\d[\d.,:]*(?:e[-+]\d+)?"


def transcript(document):
    """Each command, and what it prints as a pattern: any numbers, and any lines for "..."."""
    text = (REPOSITORY / document).read_text()
    block = re.search(r"```console\n\$ (.*?)```", text, re.DOTALL)[1]
    for part in block.replace("\n> ", "\0").split("\n$ "):
        command, _, printed = part.partition("\n")
        pattern = NUMBER.join(map(re.escape, re.split(NUMBER, printed.rstrip())))
        yield command.replace("\0", "\n"), pattern.replace(r"\.\.\.", "(?:.*\n)*.*")


@pytest.mark.parametrize(
    ("document", "folder", "fewer_shots"),
    [
        ("docs/COOP.md", "CoOp/scripts/coop", ("16(?=shots| False)", "1")),
        pytest.param(
            "docs/MAPLE.md",
            "multimodal-prompt-learning/scripts/maple",
            ("sed -i '", r"\g<0>s|=16|=1|; "),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_transcript(document, folder, fewer_shots, data_root, tmp_path):
    shutil.copytree(STAND_INS, tmp_path / folder)
    here = tmp_path / "QPrompt"
    here.mkdir()
    for name in ("configs", "reporting", "scripts", "train.py"):
        here.joinpath(name).symlink_to(REPOSITORY / name)
    here.joinpath("data").symlink_to(data_root)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command, pattern in transcript(document):
        done = subprocess.run(
            ["bash", "-c", re.sub(*fewer_shots, command)],
            cwd=here,
            env={**os.environ, "PATH": path, "SEEDS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        printed = done.stdout.replace(" \n", "\n")
        assert re.search(pattern, printed), f"{command}\n{printed}"
