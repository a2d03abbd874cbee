"""Model cards: what the Hugging Face Hub shows of a packed prompt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from open_clip.pretrained import get_pretrained_cfg

from ..clip.weights import OPENAI_NAMES
from ..errors import InvalidOptionError
from ..prompt import Prompt

TASK = "zero-shot-image-classification"
CARD = """\
---
{front_matter}
---

# {title}

A learned prompt of {size:,} bytes for CLIP ({backbone}){origin}. The file holds the prompt alone:
images are classified by CLIP, with any class names.

```python
import qprompt  # pip install "clip-qprompt[clip]"

model = qprompt.load("{file}").apply()
print(model.classify(["photo.jpg"], ["cat", "dog"]).top(1))
```
"""


def write_card(prompt: Prompt) -> Path:
    """Write the model card, README.md, beside a packed prompt; return its path.

    Raises:
        InvalidOptionError: there is such a file already.
    """
    path = Path(prompt.path).with_name("README.md")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(card(prompt))
    except FileExistsError:
        raise InvalidOptionError(f"'{path}' is there already; move it away") from None
    return path


def card(prompt: Prompt) -> str:
    """Return the card's text: front matter as the Hub reads it, what the prompt is, how to use it.

    Source: https://huggingface.co/docs/hub/model-cards
    """
    about = prompt.metadata
    dataset, shots = about.get("dataset"), about.get("shots")
    title = f"{prompt.trainer} on {dataset or prompt.backbone}"
    learned_from = f"{shots} images of each class of {dataset}" if shots else dataset
    origin = f", learned from {learned_from}" if dataset else ""
    front_matter = {
        "library_name": "qprompt",
        "pipeline_tag": TASK,
        "tags": ["clip", "prompt-learning", "quantization"],
        "base_model": _hub_model(prompt.backbone),
        "datasets": [dataset] if dataset else None,
        "metrics": ["accuracy"],
        "model-index": _results(title, prompt.read_json("accuracies") or {}),
    }
    return CARD.format(
        # JSON is YAML, too
        front_matter="\n".join(
            f"{key}: {json.dumps(value)}" for key, value in front_matter.items() if value
        ),
        title=title,
        size=prompt.packed.payload_bytes,
        backbone=prompt.backbone,
        origin=origin,
        file=os.path.basename(prompt.path),
    )


def _hub_model(backbone: str) -> str:
    """Return the Hub's name of a backbone, by open_clip's list; "" if it is not there."""
    name = f"{backbone.replace('/', '-')}:openai" if backbone in OPENAI_NAMES else backbone
    architecture, _, tag = name.partition(":")
    return str(get_pretrained_cfg(architecture, tag).get("hf_hub", "")).strip("/")


def _results(name: str, accuracies: dict[str, float]) -> list[dict[str, Any]]:
    """Return accuracies in percent by test set, as the Hub records results."""
    results = [
        {
            "task": {"type": TASK},
            "dataset": {"name": test, "type": test.partition(",")[0].lower()},
            "metrics": [{"type": "accuracy", "value": accuracy}],
        }
        for test, accuracy in accuracies.items()
    ]
    return [{"name": name, "results": results}] if results else []
