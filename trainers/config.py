"""Configuration nodes of this repository's trainers, in upstream's names."""

from __future__ import annotations

from yacs.config import CfgNode

from qprompt.dassl import add_config


def extend_cfg(cfg: CfgNode) -> None:
    """Add ``TRAINER.COOP`` and ``TRAINER.QPROMPT`` to a Dassl configuration."""
    cfg.TRAINER.COOP = CfgNode(
        {
            "N_CTX": 16,
            "CSC": False,
            "CTX_INIT": "",
            "PREC": "fp16",
            "CLASS_TOKEN_POSITION": "end",
        }
    )
    add_config(cfg)
