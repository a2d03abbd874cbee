from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ["dassl", "clip", "trainers", "datasets", "reporting"]
OTHERS = ["open_clip", "torchvision", "PIL", "tqdm", "regex", "ftfy", "yacs", "sklearn"]

PROGRAM = """
import sys
sys.path.insert(0, {root!r})

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Block())
import qprompt, qprompt.dassl
missing = [name for name in qprompt.__all__ if not hasattr(qprompt, name)]
assert not missing, missing
print("imported")
"""


def test_imports_without_the_rest_of_the_repository():
    program = PROGRAM.format(root=str(ROOT), blocked=OURS + OTHERS)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, cwd="/"
    )
    assert done.stdout == "imported\n", done.stderr


def test_python_3_8_syntax():
    pytest.importorskip("vermin")
    program = "from vermin import main; main()"
    command = [sys.executable, "-c", program, "-t=3.8-", "--no-tips"]
    command += map(str, (ROOT / "qprompt").glob("*.py"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
