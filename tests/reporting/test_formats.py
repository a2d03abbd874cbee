"""The same report as Markdown, CSV and LaTeX."""

import csv
import io
import re
import subprocess
import sys

import pytest

from reporting.plots import section_plots
from reporting.report import make_report
from reporting.writers import (
    latex,
    latex_escape,
    markdown,
    spreadsheets,
    table_texts,
    write_report,
)


@pytest.fixture
def folder(runs):
    """CoOp and QCoOp on digits, two seeds each, and half of a zero-shot run."""
    for seed, base, new in ((1, 80.0, 60.0), (2, 90.0, 50.0)):
        runs.base_to_new("CoOp", "Digits", base, new, seed=seed)
        runs.base_to_new("QCoOp", "Digits", base - 2, new + 10, seed=seed, bits=1, stored_bytes=260)
    runs.zero_shot("Digits", 70.0, subset="base")
    return runs.root


MARKDOWN = """\
## Base-to-new: embedded stand-ins, ViT-B/16, 16 shots

### Digits

|       method |   bits |             base |              new |                H |   seeds |   prompt bytes |
|-------------:|-------:|-----------------:|-----------------:|-----------------:|--------:|---------------:|
| ZeroshotCLIP |      - |            70.00 |                - |                - |       1 |              0 |
|         CoOp |      - | **85.00 ± 7.07** |     55.00 ± 7.07 |     66.79 ± 3.03 |       2 |           4096 |
|        QCoOp |      1 |     83.00 ± 7.07 | **65.00 ± 7.07** | **72.91 ± 1.72** |       2 |            260 |
"""  # noqa: E501

DIFFERENCES = """\
|       method |   minus |     on |                   base |                     new |                       H |   n |
|-------------:|--------:|-------:|-----------------------:|------------------------:|------------------------:|----:|
| QCoOp, 1 bit |    CoOp | Digits | -2.00 [-2.00, -2.00] | +10.00 [+10.00, +10.00] | +6.14 [-5.64, +17.91] |   2 |
"""  # noqa: E501

LATEX = r"""
\begin{table}[t]
\centering
\caption{Base-to-new: embedded stand-ins, ViT-B/16, 16 shots. Digits.}
\label{tab:base-to-new-embedded-stand-ins-vit-b-16-16-shots-digits}
\begin{tabular}{lrrrrr}
\toprule
method & bits & base & new & H & seeds \\
\midrule
ZeroshotCLIP & - & 70.00 & - & - & 1 \\
CoOp & - & \textbf{85.00 $\pm$ 7.07} & 55.00 $\pm$ 7.07 & 66.79 $\pm$ 3.03 & 2 \\
QCoOp & 1 & 83.00 $\pm$ 7.07 & \textbf{65.00 $\pm$ 7.07} & \textbf{72.91 $\pm$ 1.72} & 2 \\
\bottomrule
\end{tabular}
\end{table}
"""


def squeezed(text):
    return re.sub(r"[ -]{2,}", " ", text)


def test_markdown(folder):
    report = make_report(folder)
    text = markdown(report, {section: [] for section in report.sections}, "plots")
    assert MARKDOWN in text
    assert squeezed(DIFFERENCES) in squeezed(text)


def test_captions_of_plots_over_several_data_sets_begin_with_the_caption(runs):
    for bits in (1, 2):
        runs.tested(runs.trained("QCoOp", "Characters", 80.0, bits=bits), "Digits", 40.0)
    report = make_report(runs.root)
    text = markdown(report, {s: section_plots(s) for s in report.sections}, "plots")
    assert "![Accuracy against bits" in text and "![Characters: Accuracy" in text
    assert "![:" not in text


def test_a_report_on_methods_that_share_no_whole_pair(runs, tmp_path):
    runs.base_to_new("CoOp", "Digits", 90.0, 60.0)
    runs.trained("MaPLe", "Digits", 80.0, subset="base")
    write_report(runs.root, tmp_path)
    assert "-10.00 (no interval)" in (tmp_path / "report.html").read_text()


def test_latex(folder):
    assert LATEX in latex(make_report(folder))


def test_latex_of_a_report_with_everything_is_balanced(runs):
    runs.base_to_new("CoOp", "EuroSAT", 90.0, 60.0, OPTIM__LR_SCHEDULER="50%_&_#~^\\{$")
    runs.base_to_new("CoOp", "EuroSAT", 90.0, 60.0, name="b", OPTIM__LR_SCHEDULER="cosine")
    runs.tested(runs.trained("CoOp", "ImageNet", 71.0), "SUN397", 60.0)
    text = latex(make_report(runs.root))
    code = re.sub(r"\\[\\{}&%$#_]", "", re.sub(r"^%.*", "", text, flags=re.MULTILINE))
    assert not re.search(r"[%#_~^]|\$(?!\\pm\$)(?<!pm\$)", code)
    depth = 0
    for character in code:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 5
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns)}
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels))


def test_latex_escapes_each_special_character_once():
    assert latex_escape(r"a_b & 50% ± \ {x}") == r"a\_b \& 50\% $\pm$ \textbackslash{} \{x\}"


def test_csv_holds_every_number_unrounded_and_no_missing_one(folder):
    files = spreadsheets(make_report(folder))
    assert files.keys() == {"base_to_new.csv", "paired.csv"}
    lines = list(csv.DictReader(files["base_to_new.csv"].splitlines()))
    assert len(lines) == 7  # base, new and H of two methods, and the base of zero-shot CLIP
    (h,) = [line for line in lines if (line["method"], line["measure"]) == ("CoOp", "H")]
    assert float(h["mean"]) == 2 * 85 * 55 / 140
    assert (h["dataset"], h["seeds"], h["shots"]) == ("Digits", "2", "16")
    (zero,) = [line for line in lines if line["method"] == "ZeroshotCLIP"]
    assert (zero["measure"], zero["mean"], zero["std"]) == ("base", "70.0", "")
    paired = {line["measure"]: line for line in csv.DictReader(files["paired.csv"].splitlines())}
    assert (paired["new"]["first_minus_second"], paired["new"]["pairs"]) == ("10.0", "2")


def test_cells(runs):
    for seed, accuracy in ((1, 80.0), (2, 90.0)):
        runs.base_to_new("CoOp", "Digits", accuracy, 0.0, seed=seed)
    runs.trained("MaPLe", "Digits", 85.0, subset="base")
    runs.base_to_new("MaPLe", "Characters", 85.0, 85.0)
    section, *_ = make_report(runs.root).sections
    texts = {table.dataset: table_texts(section, table) for table in section.tables}
    assert list(texts["Digits"].base) == ["85.00 ± 7.07", "85.00"]
    assert list(texts["Digits"].new) == ["0.00 ± 0.00", "-"]
    assert list(texts["average"].base) == ["85.00 ± 7.07 (1 of 2)", "85.00 (1 of 2)"]


def test_best_is_what_reads_as_best(runs):
    for trainer, accuracy in (("CoOp", 80.001), ("MaPLe", 80.004), ("CoCoOp", 79.0)):
        for dataset in ("Digits", "Characters"):
            runs.trained(trainer, dataset, accuracy)
    runs.trained("ProGrad", "Digits", 99.0)
    average, *_ = make_report(runs.root).sections[0].tables
    best = average.best["16 shots"]
    assert {method.name for method in best.index[best]} == {"CoOp", "MaPLe"}


def test_pipes_and_lines_in_names_stay_in_their_cell(runs):
    for schedule in ("a|b", "c\nd"):
        options = {"name": schedule[0], "OPTIM__LR_SCHEDULER": schedule}
        runs.trained("CoOp", "Digits", 80.0, **options)
    report = make_report(runs.root)
    text = markdown(report, {section: [] for section in report.sections}, "plots")
    assert r"CoOp (OPTIM.LR_SCHEDULER=a\|b) |" in text
    assert "CoOp (OPTIM.LR_SCHEDULER=c d) |" in text


@pytest.mark.parametrize("separator", ["\n", "\r", "\u2028"])
def test_names_cannot_put_commands_into_files(runs, separator):
    command = f"x{separator}\\input{{/etc/passwd}}{separator}# heading"
    for seed in (1, 2):
        for trainer in ("=2+5", "@SUM(1)", "-x", f"CoOp{separator}\\input{{a}}"):
            runs.base_to_new(trainer, "EuroSAT", 80, 70, seed=seed, backbone=command)
    report = make_report(runs.root)
    lines = latex(report).splitlines()
    assert not [line for line in lines if line.lstrip().startswith(r"\input")]
    lines = markdown(report, {section: [] for section in report.sections}, "plots").splitlines()
    assert not [line for line in lines if line.startswith("# heading")]
    for text in spreadsheets(report).values():
        cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
        assert not [cell for cell in cells if cell[:1] in set("=+-@") and not is_number(cell)]


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_command_writes_all_files_the_same_each_time(folder, tmp_path_factory):
    outputs = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "reporting", folder, "--output", outputs[0]],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "83.00 ± 7.07" in done.stdout and str(outputs[0] / "report.html") in done.stdout
    write_report(folder, outputs[1])
    first, second = (
        {p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in outputs
    )
    assert first == second
    names = {path.name for path in first}
    assert {"report.html", "report.md", "report.tex", "base_to_new.csv", "paired.csv"} < names
    for link in re.findall(r"\]\((plots/.*?)\)", (outputs[0] / "report.md").read_text()):
        assert (outputs[0] / link).read_text().startswith("<svg ")
    assert str(folder).encode() not in first[(outputs[0] / "report.md").relative_to(outputs[0])]


def test_by_default_the_report_stands_beside_the_runs(folder):
    write_report(folder, folder)
    before = (folder / "report.md").read_bytes()
    write_report(folder, folder)  # reads no file of its own as a run
    assert (folder / "report.md").read_bytes() == before


BLOCKED = """
import runpy, sys
sys.modules[sys.argv.pop(1)] = None
runpy.run_module("reporting", run_name="__main__", alter_sys=True)
"""


def report_without(module, folder):
    command = [sys.executable, "-c", BLOCKED, module, folder]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["jinja2", "matplotlib.figure", "pandas", "scipy", "tabulate"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, module):
    done = report_without(module, tmp_path)
    package = module.split(".")[0]
    message = f'error: {package} is not installed: pip install "clip-qprompt[report]"\n'
    assert (done.returncode, done.stderr) == (1, message)


def test_any_other_missing_module_shows_its_traceback(tmp_path):
    done = report_without("reporting.report", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and "reporting.report" in done.stderr
