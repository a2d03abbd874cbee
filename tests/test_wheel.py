"""The wheel in a new environment: the command qprompt, and nothing of the training code."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import qprompt

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"clip", "dassl", "datasets", "trainers", "yacs"}:
            raise ImportError("hidden: " + name)

sys.meta_path.insert(0, Hide())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment that sees the packages of this one, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "hide.pth").write_text("import hide\n")
    (site / "hide.py").write_text(HIDE)
    install = "--python", python, "install", "--no-index"
    pip(*install, "--ignore-installed", "--no-deps", wheel)
    pip(*install, f"{wheel}[clip]")  # what it needs is there
    return python


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_installs_one_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"qprompt"}
    assert "qprompt/clip/tiny/weights.safetensors" in names


def test_its_commands_run_in_a_new_environment(environment, tmp_path):
    torch.manual_seed(0)
    learner = nn.Module()
    learner.ctx = nn.Parameter(torch.randn(4, 128))
    packed = tmp_path / "p.safetensors"
    names = json.dumps(["cat", "dog"])
    qprompt.pack(qprompt.quantize_(learner), packed, backbone="tiny", classnames=names)
    torch.save({"state_dict": {"ctx": torch.randn(4, 128)}}, tmp_path / "model.pth.tar-3")
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("L", (9, 9), len(name)).save(tmp_path / "photos" / name / "1.png")

    def run(*arguments):
        program = environment.with_name("qprompt")
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "tiny" in run("inspect", packed, "--words", "2")
    assert len(run("classify", packed, "photos").splitlines()) == 2
    run("classifier", packed, "--classes", "a,b", "-o", "head.safetensors")
    assert "all" in run("evaluate", packed, "--data", "photos")
    run("export", "model.pth.tar-3", "-o", "q.safetensors", "--backbone", "tiny", "--bits", "2")
    run("diff", packed, packed)
