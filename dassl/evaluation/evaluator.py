"""Scores of a classifier, in the log lines that result parsers read."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.utils import Registry, UserError, atomic_write

EVALUATOR_REGISTRY = Registry("EVALUATOR")

CONFUSION_CLASSES = 100  # with more, a confusion matrix would swell each results.json


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> EvaluatorBase:
    """Build the evaluator that cfg.TEST.EVALUATOR names.

    Raises:
        UnknownNameError: no such evaluator is registered.
    """
    evaluator = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    if cfg.VERBOSE:
        print(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return evaluator(cfg, **kwargs)


class EvaluatorBase:
    """Gathers model outputs batch by batch and scores them at the end."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        """Forget all batches."""
        raise NotImplementedError

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add a batch of model outputs and ground-truth labels."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        """Return the scores; the first one is the main one."""
        raise NotImplementedError

    def details(self) -> dict[str, Any]:
        """Return further entries for results.json on what was evaluated last."""
        return {}


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1, all in percent.

    Args:
        cfg: TEST.PER_CLASS_RESULT, TEST.COMPUTE_CMAT and OUTPUT_DIR.
        lab2cname: label -> class name, for results of each class.
    """

    def __init__(
        self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        self._pred: list[torch.Tensor] = []
        self._true: list[torch.Tensor] = []
        self._details: dict[str, Any] = {}

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add a batch: scores (batch, classes) and labels (batch,)."""
        self._pred.append(mo.detach().argmax(dim=1))
        self._true.append(gt.detach())

    def evaluate(self) -> OrderedDict[str, float]:
        """Print and return accuracy, error_rate, macro_f1 (percent), total and correct.

        Macro F1 is the mean over the classes that occur among the labels.

        Raises:
            UserError: no batch was added.
        """
        if not self._true:
            raise UserError("Nothing to evaluate: no batch was processed")
        true, pred = torch.cat(self._true).cpu(), torch.cat(self._pred).cpu()
        n = max(len(self._lab2cname), int(torch.maximum(true.max(), pred.max())) + 1)
        hits, support, predicted = (
            torch.bincount(labels, minlength=n) for labels in (true[true == pred], true, pred)
        )
        self._details = {
            "classnames": [self._lab2cname.get(label, str(label)) for label in range(n)],
            "per_class": {"total": support.tolist(), "correct": hits.tolist()},
        }
        if n <= CONFUSION_CLASSES:
            self._details["confusion"] = _confusion(true, pred, n).tolist()
        present = support > 0
        f1 = 2 * hits[present] / (support + predicted)[present]
        total, correct = int(support.sum()), int(hits.sum())
        accuracy = 100.0 * correct / total
        results: OrderedDict[str, float] = OrderedDict(
            accuracy=accuracy,
            error_rate=100.0 - accuracy,
            macro_f1=100.0 * f1.double().mean().item(),
            total=total,
            correct=correct,
        )
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {accuracy:.2f}%\n"
            f"* error: {results['error_rate']:.2f}%\n"
            f"* macro_f1: {results['macro_f1']:.2f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_classes(hits, support)
        if self.cfg.TEST.COMPUTE_CMAT:
            path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
            with atomic_write(path) as file:
                torch.save(_confusion(true, pred, n) / support.clamp(min=1).unsqueeze(1), file)
            print(f"Confusion matrix is saved to {path}")
        return results

    def details(self) -> dict[str, Any]:
        """Return names and counts of images by label.

        Returns:
            "classnames"; "per_class" with "total" and "correct"; and for few classes "confusion",
            rows by true and columns by predicted label.
        """
        return self._details

    def _print_classes(self, hits: torch.Tensor, support: torch.Tensor) -> float:
        print("=> per-class result")
        accuracies = []
        for label in support.nonzero().flatten().tolist():
            correct, total = int(hits[label]), int(support[label])
            accuracies.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname.get(label, label)})\ttotal: {total:,}\t"
                f"correct: {correct:,}\tacc: {accuracies[-1]:.2f}%"
            )
        average = sum(accuracies) / len(accuracies)
        print(f"* average: {average:.2f}%")
        return average


def _confusion(true: torch.Tensor, pred: torch.Tensor, n: int) -> torch.Tensor:
    """Return counts (n, n), rows by true and columns by predicted label."""
    return torch.bincount(true * n + pred, minlength=n * n).view(n, n)
