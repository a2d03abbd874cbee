"""IVLP under the name of upstream's file, which ``train.py`` of MaPLe and PromptSRC imports."""

from trainers.ivlp import IVLP

__all__ = ["IVLP"]
