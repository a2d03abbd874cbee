"""Configuration nodes of this repository's trainers, in upstream's names."""

from __future__ import annotations

from yacs.config import CfgNode

from qprompt.dassl import add_config
from trainers.features import DEFAULT_FOLDER


def extend_cfg(cfg: CfgNode) -> None:
    """Add the nodes ``TRAINER.COOP``, ``COCOOP``, ``MAPLE`` and ``QPROMPT``, and a few keys."""
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
    add_config(cfg)
