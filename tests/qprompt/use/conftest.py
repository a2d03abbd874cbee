"""Packed prompts of the tiny CLIP, which nothing trained, and images of digits."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import clip
import qprompt
from trainers.cocoop import ConditionalPromptLearner
from trainers.coop import PromptLearner
from trainers.maple import MultiModalPromptLearner

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = "a photo of a"
INPUT = {
    "size": [32, 32],
    "interpolation": "bicubic",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
LEARNERS = {
    "CoOp": lambda backbone, names: PromptLearner(backbone, names, ctx_init=WORDS),
    "CoCoOp": lambda backbone, names: ConditionalPromptLearner(backbone, names, ctx_init=WORDS),
    "MaPLe": lambda backbone, names: MultiModalPromptLearner(backbone, names, depth=3),
}


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """Pack the prompt of a learner at its start; return the file."""
    folder, backbone = tmp_path_factory.mktemp("prompts"), clip.load("tiny")

    def pack(name, bits=1):
        path = folder / f"{name}-{bits}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            learner = LEARNERS[name](backbone, DIGITS)
            qprompt.quantize_(learner, bits)
            settings = {name.upper(): {"CTX_INIT": WORDS}}
            qprompt.pack(
                learner,
                path,
                trainer=f"Q{name}",
                backbone="tiny",
                ctx_init=WORDS,
                settings=json.dumps(settings),
                input=json.dumps(INPUT),
                classnames=json.dumps(DIGITS),
            )
        return str(path)

    return pack


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Paths of images of digits, 8 x 8 pixels."""
    folder = tmp_path_factory.mktemp("digits")
    paths = [folder / f"{i}.png" for i in range(100)]
    for path, pixels in zip(paths, load_digits().images, strict=False):
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(path)
    return list(map(str, paths))


@pytest.fixture(scope="session")
def load_program():
    """Export an applied prompt as ONNX into a folder; return the program that lies there."""

    def load_program(model, folder, classnames=None, int8=False):
        from qprompt.use.onnx import export_onnx

        export_onnx(model, model.classes(classnames), str(folder), int8)
        spec = importlib.util.spec_from_file_location("classify", folder / "classify.py")
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        return program

    return load_program
