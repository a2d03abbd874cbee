"""Every shipped configuration file parses, says how it is used, and builds its trainer."""

from pathlib import Path

import pytest
import torch

import train
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from sweeps.protocols import plain_counterpart
from trainers.config import extend_cfg

REPOSITORY = Path(__file__).parents[1]
TRAINERS = REPOSITORY / "configs/trainers"
FILES = sorted(TRAINERS.glob("*/*.yaml"))


def relative(path):
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_opens_with_the_command_that_uses_it(path):
    text = path.read_text()
    trainer = path.parent.name
    assert text.startswith("# python train.py ")
    head = text.split("\n\n")[0]
    assert f"--trainer {trainer} " in head and relative(path) in head


@pytest.mark.filterwarnings("ignore:no GPU")
@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_parses_and_builds_on_the_tiny_backbone(path, data_root, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    cfg = train.setup_cfg(
        train.parse_args(
            [
                *("--root", str(data_root), "--trainer", path.parent.name, "--seed", "1"),
                *("--dataset-config-file", "configs/datasets/digits.yaml"),
                *("--config-file", str(path)),
            ]
        )
    )
    expected = {"rn50": "RN50", "rn101": "RN101", "vit_b32": "ViT-B/32", "vit_b16": "ViT-B/16"}
    architecture = next((a for a in expected if path.stem.startswith(a)), "tiny")
    assert expected.get(architecture, "tiny") == cfg.MODEL.BACKBONE.NAME
    assert ("adamw" if path.parent.name.endswith("TipAdapterF") else "sgd") == cfg.OPTIM.NAME
    assert cfg.OPTIM.LR_SCHEDULER == "cosine"

    cfg.defrost()
    cfg.merge_from_list(
        ["MODEL.BACKBONE.NAME", "tiny", "INPUT.SIZE", (32, 32), "DATASET.NUM_SHOTS", 1]
    )
    for node in (value for value in cfg.TRAINER.values() if isinstance(value, dict)):
        for key in [key for key in node if key.startswith("PROMPT_DEPTH")]:
            node[key] = min(node[key], 4)
    trainer = build_trainer(cfg)
    with torch.no_grad():
        assert trainer.model_inference(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def merged(path):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.merge_from_file(path)
    return cfg


@pytest.mark.parametrize(
    "path", [path for path in FILES if plain_counterpart(path.parent.name)], ids=relative
)
def test_file_of_a_quantized_trainer_is_the_plain_one_but_for_the_quantizer(path):
    expected = merged(TRAINERS / plain_counterpart(path.parent.name) / path.name)
    if path.parent.name == "QMaPLe":
        expected.TRAINER.QPROMPT.BITS = 4
    assert merged(path) == expected


# what the files of the authors' repositories say: batch, epochs, rate, and the trainer's own node
AUTHORS = {
    "KgCoOp/vit_b16_ep100_ctxv1": (128, 100, 0.002, "COOP", {"CTX_INIT": "a photo of a", "W": 8}),
    "ProGrad/rn50_ep50": (32, 50, 0.002, "COOP", {"CTX_INIT": "True", "N_CTX": 16}),
    "ProGrad/rn50_ep100": (32, 100, 0.002, "COOP", {"CTX_INIT": "True", "N_CTX": 16}),
    "ProGrad/rn50": (32, 200, 0.002, "COOP", {"CTX_INIT": "True", "N_CTX": 16}),
    "VPT/vit_b16_c2_ep5_batch4_4": (
        *(4, 5, 0.0025, "VPT"),
        {"N_CTX_VISION": 8, "PROMPT_DEPTH_VISION": 12, "CTX_INIT": "a photo of a"},
    ),
    "IVLP/vit_b16_c2_ep5_batch4_2+2ctx": (
        *(4, 5, 0.0035, "IVLP"),
        {"N_CTX_VISION": 2, "N_CTX_TEXT": 2, "PROMPT_DEPTH_VISION": 12, "PROMPT_DEPTH_TEXT": 12},
    ),
    "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx": (
        *(4, 20, 0.0025, "PROMPTSRC"),
        {"N_CTX_VISION": 4, "N_CTX_TEXT": 4, "PROMPT_DEPTH_VISION": 9, "PROMPT_DEPTH_TEXT": 9}
        | {"TEXT_LOSS_WEIGHT": 25, "IMAGE_LOSS_WEIGHT": 10, "GPA_MEAN": 15, "GPA_STD": 1}
        | {"CTX_INIT": "a photo of a"},
    ),
    "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets": (
        *(4, 20, 0.0025, "PROMPTSRC"),
        {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 3, "GPA_MEAN": 6, "GPA_STD": 10},
    ),
    "PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot": (
        *(4, 50, 0.0025, "PROMPTSRC"),
        {"PROMPT_DEPTH_VISION": 9, "N_CTX_TEXT": 4, "GPA_MEAN": 30, "GPA_STD": 30},
    ),
    "DePT/vit_b16_ep10_bs4_lr35": (
        *(4, 10, 0.0035 * 6.5, "DEPT"),
        {"N_CTX": 16, "CTX_INIT": "", "WEIGHT": 0.7},
    ),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_file_has_the_settings_of_the_authors(name):
    cfg = merged(TRAINERS / f"{name}.yaml")
    batch, epochs, rate, node, own = AUTHORS[name]
    found = cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.LR
    assert found == pytest.approx((batch, epochs, rate))
    assert {key: cfg.TRAINER[node][key] for key in own} == own
    assert (cfg.OPTIM.NAME, cfg.OPTIM.LR_SCHEDULER) == ("sgd", "cosine")
    assert (cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_CONS_LR) == (1, 1e-5)
