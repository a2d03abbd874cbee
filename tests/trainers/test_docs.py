"""docs/trainers.md has every trainer, with sizes that are true."""

from pathlib import Path

import pytest
import torch
import yaml
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

import clip
import trainers  # noqa: F401 (registers the trainers)
from dassl.engine import TRAINER_REGISTRY
from sweeps.protocols import plain_counterpart

REPOSITORY = Path(__file__).parents[2]
DEFAULTS = yaml.safe_load((REPOSITORY / "sweeps/defaults.yaml").read_text())["configs"]
LINES = (REPOSITORY / "docs/trainers.md").read_text().splitlines()
ROWS = {
    cells[0]: cells[3:6]
    for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in LINES)
    if len(cells) == 8
}
SHIPPED = [
    name
    for name in TRAINER_REGISTRY.registered_names()
    if TRAINER_REGISTRY.get(name).__module__.startswith("trainers.")
]
PLAIN = [name for name in SHIPPED if not plain_counterpart(name)]


@pytest.fixture(scope="module")
def vit_b16():
    """A backbone with the widths and layers of ViT-B/16; the rest does not matter."""
    vision = CLIPVisionCfg(
        layers=12, width=768, head_width=64, mlp_ratio=0.01, patch_size=16, image_size=32
    )
    text = CLIPTextCfg(width=512, heads=8, layers=12, mlp_ratio=0.01)
    torch.manual_seed(0)
    return CLIP(512, vision, text).requires_grad_(False)


@pytest.mark.filterwarnings("ignore:no GPU")
@pytest.mark.parametrize("name", PLAIN)
def test_row(build, vit_b16, monkeypatch, name):
    monkeypatch.setattr(clip, "load", lambda *_: vit_b16)
    config = DEFAULTS[name]["default"]

    def sizes(trainer):
        options = ["INPUT.SIZE", (32, 32), "TEST.FEATURE_CACHE", ""]
        run = build(trainer, "", config=config, opts=options)
        if hasattr(run.model.prompt_learner, "cache_keys"):  # a size for each kept image
            keys = run.model.prompt_learner.cache_keys
            bits = run.qprompt.bits if hasattr(run, "qprompt") else 16
            return f"{keys.shape[1]} an image", f"{keys.shape[1] * bits // 8:,} an image"
        learned = [p for p in run.model.parameters() if p.requires_grad]
        if hasattr(run.model.prompt_learner, "head"):  # a size for each class
            learner, bits = run.model.prompt_learner, run.qprompt.bits if trainer[0] == "Q" else 16
            row, names = learner.head.classifier.in_features, learner.classes.numel()
            count, number = len(learner.classnames), sum(p.numel() for p in learned) - names
            total = run.run_summary()["stored_bytes"] - 2 * names
            each = row * bits // 8 + 2
            return f"{number - count * (row + 1):,} + {row + 1} a class", (
                f"{total - count * each:,} + {each:,} a class"
            )
        return f"{sum(p.numel() for p in learned):,}", f"{run.run_summary()['stored_bytes']:,}"

    quantized = sizes(f"Q{name}")[1] if f"Q{name}" in SHIPPED else "-"
    assert ROWS[name] == [*sizes(name), quantized]


def test_no_other_rows():
    assert set(ROWS) - {"trainer", "---"} == set(PLAIN)
