"""Configuration nodes of this repository's trainers, in upstream's names."""

from __future__ import annotations

from yacs.config import CfgNode

from dassl.config import extends_defaults
from dassl.config.limits import LIMITS, numbers
from qprompt.dassl import add_config
from trainers.features import DEFAULT_FOLDER

LIMITS.update(
    {
        "LOSS.T": numbers(1e-6),
        "TRAINER.CLIPADAPTER.RATIO": numbers(0, 1),
        "TRAINER.TIPADAPTER.AUGMENT_EPOCH": numbers(1),
        "TRAINER.TIPADAPTER.INIT_ALPHA": numbers(0),
        "TRAINER.TIPADAPTER.INIT_BETA": numbers(0),
        "TRAINER.TIPADAPTER.SEARCH_SCALE": numbers(0, count=2),
        "TRAINER.TIPADAPTER.SEARCH_STEP": numbers(1, count=2, kind=int),
    }
)


@extends_defaults
def extend_cfg(cfg: CfgNode) -> None:
    """Add the trainers' nodes, ``TRAINER.QPROMPT`` and a few keys that they share."""
    cfg.VARIANT = ""  # a name for these settings, in reports
    cfg.MODEL.TEXT_ENCODING = "shared"  # or "full": all 77 positions of all prompts, as upstream
    cfg.MODEL.TEXT_CHUNK = 2048  # prompts that are in memory at once; 0: all
    cfg.DATALOADER.CACHED_VIEWS = 0  # views of each training image, encoded once; 0: always new
    cfg.TEST.FEATURE_CACHE = DEFAULT_FOLDER  # of frozen image features; "": none
    cfg.TRAINER.COOP = CfgNode(
        {
            "N_CTX": 16,
            "CSC": False,
            "CTX_INIT": "",
            "PREC": "fp16",
            "CLASS_TOKEN_POSITION": "end",
            "W": 8.0,  # of KgCoOp
        }
    )
    cfg.TRAINER.DEPT = CfgNode(
        {
            "N_CTX": 16,
            "CSC": False,
            "CTX_INIT": "",
            "PREC": "fp16",
            "CLASS_TOKEN_POSITION": "end",
            "WEIGHT": 0.7,
        }
    )
    cfg.TRAINER.COCOOP = CfgNode(
        {
            "N_CTX": 16,
            "CTX_INIT": "",
            "PREC": "fp16",
        }
    )
    cfg.TRAINER.MAPLE = CfgNode(
        {
            "N_CTX": 2,
            "CTX_INIT": "a photo of a",
            "PREC": "fp16",
            "PROMPT_DEPTH": 9,
        }
    )
    cfg.TRAINER.ZEROSHOTCLIP = CfgNode({"PREC": "fp16"})
    cfg.TRAINER.CLIPADAPTER = CfgNode({"PREC": "fp32", "RATIO": 0.2})
    cfg.TRAINER.TIPADAPTER = CfgNode(
        {
            "PREC": "fp16",
            "AUGMENT_EPOCH": 10,  # views of each image that its key is the mean of
            "INIT_ALPHA": 1.17,
            "INIT_BETA": 1.0,
            "SEARCH_SCALE": (13.0, 13.0),  # limits of beta and alpha
            "SEARCH_STEP": (200, 20),
        }
    )
    cfg.LOSS = CfgNode(
        {
            "NAME": "prograd",
            "T": 1.0,
            "LAMBDA": 1.0,
            "GM": False,  # upstream's command lines have these two; ProGrad's loss has not
            "ALPHA": 0.0,
        }
    )
    cfg.TRAINER.VPT = CfgNode(
        {
            "N_CTX_VISION": 2,
            "CTX_INIT": "a photo of a",
            "PREC": "fp16",
            "PROMPT_DEPTH_VISION": 1,
        }
    )
    cfg.TRAINER.IVLP = CfgNode(
        {
            "N_CTX_VISION": 2,
            "N_CTX_TEXT": 2,
            "CTX_INIT": "a photo of a",
            "PREC": "fp16",
            "PROMPT_DEPTH_VISION": 9,
            "PROMPT_DEPTH_TEXT": 9,
        }
    )
    cfg.TRAINER.PROMPTSRC = CfgNode(
        {
            "N_CTX_VISION": 4,
            "N_CTX_TEXT": 4,
            "CTX_INIT": "a photo of a",
            "PREC": "fp16",
            "PROMPT_DEPTH_VISION": 9,
            "PROMPT_DEPTH_TEXT": 9,
            "TEXT_LOSS_WEIGHT": 25.0,
            "IMAGE_LOSS_WEIGHT": 10.0,
            "GPA_MEAN": 15.0,
            "GPA_STD": 1.0,
        }
    )
    add_config(cfg)
