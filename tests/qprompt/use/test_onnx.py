"""ONNX graphs, and the program beside them that needs no PyTorch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import qprompt

pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install -e '.[onnx]'")
onnx = pytest.importorskip("onnx")

from qprompt.use.onnx import OPSET, export_onnx  # noqa: E402

CLASSES = ["seven", "three", "zero", "the letter A"]  # not those of the file


@pytest.fixture(scope="module")
def exported(packed, load_program, tmp_path_factory):
    """Export the prompt of a learner; return it applied, the folder and the program in it."""
    done = {}

    def export(name, int8=False):
        if (name, int8) not in done:
            model = qprompt.load(packed(name)).apply()
            folder = tmp_path_factory.mktemp("onnx") / "exported"
            done[name, int8] = model, folder, load_program(model, folder, CLASSES, int8)
        return done[name, int8]

    return export


@pytest.mark.parametrize("name", ["CoCoOp", "MaPLe"])
def test_logits_are_those_of_torch_for_every_batch(exported, digits, name):
    model, _, program = exported(name)
    images = np.stack([program.read(path) for path in digits])
    wanted = model.logits(torch.from_numpy(images), CLASSES).numpy()
    for batch in (slice(0, 1), slice(1, 8), slice(None)):
        logits = program.compute_logits(images[batch])
        np.testing.assert_allclose(logits, wanted[batch], atol=1e-4, rtol=0)
        assert (logits.argmax(axis=1) == wanted[batch].argmax(axis=1)).all()


def test_graph_states_its_opset(exported):
    _, folder, _ = exported("MaPLe")
    graph = onnx.load(folder / "image.onnx")
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", OPSET)]
    assert {path.name for path in folder.iterdir()} == {
        *("classes.npy", "classify.py", "image.onnx", "labels.json")
    }


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (5, 33), (45, 32), (301, 200), (64, 640)])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_program_sees_the_pixels_that_torchvision_sees(exported, tmp_path, size, mode):
    model, _, program = exported("MaPLe")
    noise = np.random.RandomState(0).randint(0, 256, (*size[::-1], 4), np.uint8)
    path = tmp_path / "image.png"
    image = Image.fromarray(noise)
    (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(path)
    np.testing.assert_allclose(program.read(path), model.preprocess(path), atol=1e-6, rtol=0)


def test_program_needs_no_torch(exported, digits):
    model, folder, _ = exported("CoCoOp")
    blocked = "import sys, runpy; sys.modules.update(torch=None, qprompt=None, open_clip=None);"
    run = f"sys.argv[1:] = {digits[:3]}; runpy.run_path('classify.py', run_name='__main__')"
    command = [sys.executable, "-c", blocked + run]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, path, best in zip(
        done.stdout.splitlines(), digits, model.classify(digits[:3], CLASSES).top(), strict=False
    ):
        (label, probability), *_ = best
        assert line.split("\t")[:2] == [path, f"{label} {probability:.1%}"]


def test_eight_bits_are_a_third_of_the_size_and_mostly_agree(exported, digits):
    _, whole, program = exported("MaPLe")
    _, folder, rounded = exported("MaPLe", int8=True)
    sizes = [(at / "image.onnx").stat().st_size for at in (folder, whole)]
    assert sizes[0] < 0.4 * sizes[1]
    images = np.stack([program.read(path) for path in digits])
    same = program.compute_logits(images).argmax(1) == rounded.compute_logits(images).argmax(1)
    assert same.mean() > 0.9
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


def test_nothing_is_overwritten_and_nothing_half_written(packed, tmp_path, monkeypatch):
    model = qprompt.load(packed("CoOp")).apply()
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(qprompt.InvalidOptionError, match="not empty"):
        export_onnx(model, CLASSES, str(tmp_path))
    monkeypatch.setattr("qprompt.use.onnx.write_tower", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_onnx(model, CLASSES, str(tmp_path / "new"))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine"]
