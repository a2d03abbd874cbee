"""Tells the likeliest classes of images: python classify.py IMAGE..."""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image

FOLDER = Path(__file__).parent
ABOUT = json.loads((FOLDER / "labels.json").read_text(encoding="utf-8"))


def read(path: str) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    size = [ABOUT["resize"] * side // min(image.size) for side in image.size]
    image = image.resize(size, Image.Resampling[ABOUT["interpolation"].upper()])
    height, width = ABOUT["size"]
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    return ((pixels - np.float32(ABOUT["mean"])) / np.float32(ABOUT["std"])).transpose(2, 0, 1)


def compute_logits(images: np.ndarray) -> np.ndarray:
    features = InferenceSession(FOLDER / "image.onnx").run(None, {"images": images})[0]
    if (FOLDER / "classes.npy").exists():
        return features @ np.load(FOLDER / "classes.npy").T
    return InferenceSession(FOLDER / "classes.onnx").run(None, {"features": features})[0]


if __name__ == "__main__":
    logits = compute_logits(np.stack([read(path) for path in sys.argv[1:]]))
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for path, row in zip(sys.argv[1:], probabilities, strict=True):
        best = row.argsort()[::-1][:3]
        print(path, *(f"{ABOUT['labels'][i]} {row[i]:.1%}" for i in best), sep="\t")
