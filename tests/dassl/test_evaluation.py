import re

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from dassl.evaluation import Classification, build_evaluator
from dassl.metrics import compute_accuracy
from dassl.utils import UnknownNameError


@pytest.mark.parametrize("seed", range(4))
def test_scores_agree_with_scikit_learn(make_cfg, seed, capsys, tmp_path):
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(0, 5, (57,), generator=generator)
    true[true == 3] = 1  # class 3 is predicted, but never true
    scores = torch.randn(57, 7, generator=generator)
    cfg = make_cfg("TEST.COMPUTE_CMAT", True, "TEST.PER_CLASS_RESULT", True)
    evaluator = build_evaluator(cfg, lab2cname=dict(enumerate("abcdefg")))
    for part in range(0, 57, 10):
        evaluator.process(scores[part : part + 10], true[part : part + 10])
    results = evaluator.evaluate()
    pred = scores.argmax(1)
    present = sorted(set(true.tolist()))
    assert list(results)[:3] == ["accuracy", "error_rate", "macro_f1"]
    assert results["accuracy"] == pytest.approx(100 * accuracy_score(true, pred))
    assert results["error_rate"] == pytest.approx(100 - results["accuracy"])
    f1 = f1_score(true, pred, labels=present, average="macro")
    assert results["macro_f1"] == pytest.approx(100 * f1)
    assert (results["total"], results["correct"]) == (57, int((true == pred).sum()))
    cmat = torch.load(tmp_path / "out" / "cmat.pt", weights_only=True)
    counts = torch.tensor(confusion_matrix(true, pred, labels=range(len(cmat))))
    torch.testing.assert_close(cmat, counts / counts.sum(1, keepdim=True).clamp(min=1))
    details = evaluator.details()
    assert details["classnames"] == list("abcdefg")
    counts = confusion_matrix(true, pred, labels=range(7))
    assert details["confusion"] == counts.tolist()
    expected = {"total": counts.sum(1).tolist(), "correct": counts.diagonal().tolist()}
    assert details["per_class"] == expected
    out = capsys.readouterr().out
    assert out.count("* class: ") == len(present)
    accuracies = [float(a) for a in re.findall(r"acc: ([\d.]+)%", out)]
    recall = [100 * float((pred[true == t] == t).float().mean()) for t in present]
    assert accuracies == pytest.approx(recall, abs=0.006)


def test_log_lines(make_cfg, capsys):
    evaluator = Classification(make_cfg())
    evaluator.process(torch.eye(3).repeat(500, 1), torch.tensor([0, 1, 1]).repeat(500))
    evaluator.evaluate()
    assert capsys.readouterr().out == (
        "=> result\n* total: 1,500\n* correct: 1,000\n* accuracy: 66.67%\n* error: 33.33%\n"
        "* macro_f1: 83.33%\n"
    )


def test_confusion_of_many_classes_is_left_out(make_cfg):
    evaluator = Classification(make_cfg())
    evaluator.process(torch.eye(101), torch.arange(101))
    evaluator.evaluate()
    details = evaluator.details()
    assert "confusion" not in details and details["per_class"]["total"] == [1] * 101
    assert details["classnames"][100] == "100"


def test_reset_and_nothing(make_cfg):
    evaluator = Classification(make_cfg())
    evaluator.process(torch.eye(2), torch.tensor([0, 1]))
    evaluator.reset()
    with pytest.raises(ValueError, match="no batch"):
        evaluator.evaluate()
    with pytest.raises(UnknownNameError, match="Did you mean Classification"):
        build_evaluator(make_cfg("TEST.EVALUATOR", "classification"))


def test_compute_accuracy():
    output = torch.tensor([[3.0, 2, 1], [3, 1, 2], [1, 2, 3], [1, 3, 2]])
    target = torch.tensor([0, 2, 0, 1])
    top1, top2, top9 = compute_accuracy(output, target, topk=(1, 2, 9))
    assert (top1.item(), top2.item(), top9.item()) == (50, 75, 100)
    assert compute_accuracy((output, None), target)[0].item() == 50
