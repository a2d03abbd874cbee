"""The page that puts the paper's numbers beside measured ones."""

import pytest

from reporting.paper import main, page, published


def rows(text):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if "|" in line
    ]


def test_the_papers_headline_is_there_once():
    numbers = [n for n in published() if n.table == "base_to_new" and n.method.trainer == "QCoOp"]
    assert {n.measure: round(n.value, 2) for n in numbers} == {
        "base": 80.68,
        "new": 74.44,
        "H": 77.43,
    }
    assert [n.method.bits for n in numbers] == [1, 1, 1]


def test_measured_means_stand_beside_the_published_ones(runs, monkeypatch, capsys):
    runs.root = runs.root / "paper" / "ablation"
    runs.base_to_new("QCoOp", "EuroSAT", 80.0, 70.0, bits=1, stored_bytes=260)
    runs.base_to_new("QCoOp", "EuroSAT", 90.0, 60.0, bits=1, name="ptq", VARIANT="ptq")
    folder = runs.root.parent
    found = rows(page(folder, ["ablation"]))
    assert ["Base-to-new", "QCoOp", "1", "base", "78.24", "80.00", "+1.76", "1 of 11"] in found
    assert ["Base-to-new", "QCoOp (ptq)", "1", "new", "68.50", "60.00", "-8.50", "1 of 11"] in found
    assert ["Base-to-new", "QCoOp", "4", "H", "75.76", "-", "-", "-"] in found
    monkeypatch.setattr("sys.argv", ["paper", str(folder)])
    main()
    assert (folder / "paper.md").read_text().strip() == capsys.readouterr().out.strip()


@pytest.mark.parametrize("table", ["few_shot", "noise"])
def test_a_table_without_means_says_so(tmp_path, table):
    assert "gives no means" in page(tmp_path, [table])
