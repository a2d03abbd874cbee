"""Accuracy of a split, in the lines that result parsers look for."""


class Classification:
    """Counts right answers."""

    def __init__(self, cfg, lab2cname=None):
        self.reset()

    def reset(self):
        self._total = self._correct = 0

    def process(self, scores, labels):
        self._total += len(labels)
        self._correct += int((scores.argmax(dim=1) == labels).sum())

    def evaluate(self):
        accuracy = 100 * self._correct / self._total
        print(
            f"=> result\n* total: {self._total:,}\n* correct: {self._correct:,}\n"
            f"* accuracy: {accuracy:.1f}%\n* error: {100 - accuracy:.1f}%"
        )
        return {"accuracy": accuracy, "error_rate": 100 - accuracy}


def build_evaluator(cfg, **kwargs):
    """Return the evaluator."""
    return Classification(cfg, **kwargs)
