"""Configuration nodes of this repository's trainers, in upstream's names."""

from __future__ import annotations

from yacs.config import CfgNode

from qprompt.dassl import add_config


def extend_cfg(cfg: CfgNode) -> None:
    """Add the nodes ``TRAINER.COOP``, ``COCOOP``, ``MAPLE`` and ``QPROMPT``."""
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
            "CHUNK": 256,  # prompts (images x classes) that are encoded at once
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
