"""The HTML page: alone in the world, and at work in a browser."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from reporting.writers import write_report

NAMES = ["annual crop", "forest", "<b>river</b>", "sea & lake"]


def classes(accuracy):
    """Counts of 100 images of each class, the wrong ones taken for the next class."""
    confusion = [[0] * 4 for _ in NAMES]
    for label, hits in enumerate((accuracy, 100, 80, 60)):
        confusion[label][label] = hits
        confusion[label][(label + 1) % 4] += 100 - hits
    hits = [row[label] for label, row in enumerate(confusion)]
    per_class = {"total": [100] * 4, "correct": hits}
    return {"classnames": NAMES, "confusion": confusion, "per_class": per_class}


@pytest.fixture(scope="module")
def page(tmp_path_factory, runs_below):
    """The page of a report with every kind of table and plot."""
    runs = runs_below(tmp_path_factory.mktemp("output"))
    runs.zero_shot("EuroSAT", 56.5, subset="base", **classes(50))
    for seed in (1, 2):
        runs.base_to_new("CoOp", "EuroSAT", 91.0 + seed, 54.0 + seed, seed=seed, **classes(90))
        for bits in (1, 2, 4):
            options = {"seed": seed, "bits": bits, "stored_bytes": 260 * bits}
            runs.base_to_new("QCoOp", "EuroSAT", 89.0 + seed, 60.0 + bits, **options)
            for shots in (1, 4, 16):
                runs.trained("QCoOp", "Digits", 60.0 + shots + seed, shots=shots, **options)
        runs.trained("CoOp", "Digits", 70.0 + seed, seed=seed, shots=16)
    runs.tested(runs.trained("CoOp", "ImageNet", 71.0), "SUN397", 60.0)
    write_report(runs.root, runs.root)
    return runs.root / "report.html"


@pytest.fixture(params=["light", "dark"])
def shown(request, browser, page):
    """The page in a browser that must stay silent and fetch nothing."""
    complaints, requests = [], []
    tab = browser.new_page(viewport={"width": 1400, "height": 1000}, color_scheme=request.param)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: requests.append(sent.url))
    tab.goto(page.as_uri())
    yield tab
    tab.close()
    assert not complaints
    assert requests == [page.as_uri()]


def pixels(element):
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def test_page_needs_nothing_else_and_is_well_formed(page):
    text = page.read_text()
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text)
    assert not re.search(r"@import|url\((?!#)", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {link for link in re.findall(r'href="#([^"]+)"', text)} <= set(ids)


def test_summary_of_each_section_stands_first(page):
    text = page.read_text()
    summary = re.search(r'<ul class="summary">.*?</ul>', text, re.DOTALL)[0]
    assert summary.count("<li>") == text.count("<h2>") == 4
    assert "<dt>smallest prompt</dt>\n<dd><b>260 bytes</b> QCoOp, 1 bit: H " in summary
    assert "<dt>best (16 shots)</dt>" in summary


def test_class_names_are_text_and_no_markup(page):
    text = page.read_text()
    assert "<b>river</b>" not in text
    assert "&lt;b&gt;river&lt;/b&gt;" in text


def test_every_plot_shows(shown):
    background = pixels(shown.locator("figcaption").first)[0, -1]
    shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    plots = {figure.get_attribute("id"): figure for figure in shown.locator("figure").all()}
    for kind in ("trade-off", "bits", "curves", "classes", "confusion"):
        assert any(name.endswith(kind) for name in plots), f"no plot of {kind}"
    for name, figure in plots.items():
        picture = pixels(figure.locator("svg"))
        assert min(picture.shape[:2]) > 150, name
        ink = np.abs(picture - background).max(axis=2) > 40
        coloured = np.ptp(picture, axis=2) > 60
        assert ink.mean() > 0.01, f"{name} is blank"
        assert coloured.sum() > 50, f"{name} shows no data"
        for half in np.array_split(ink, 2, axis=0) + np.array_split(ink, 2, axis=1):
            assert half.any(), f"{name} is drawn in part"


def test_text_stands_out_in_both_schemes(shown):
    shades = shown.evaluate(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    ink, ground = (np.mean([int(v) for v in re.findall(r"\d+", shade)[:3]]) for shade in shades)
    assert abs(ink - ground) > 150


def column(table, index):
    return [
        row.locator("th, td").nth(index).inner_text() for row in table.locator("tbody tr").all()
    ]


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(shown):
    table = shown.locator("table").first
    headings = table.locator("thead th").all_inner_texts()
    base = next(i for i, text in enumerate(headings) if text.startswith("base"))
    heading = table.locator("thead th").nth(base)
    assert heading.get_attribute("aria-sort") == "none"
    before = column(table, base)

    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(table, base)]
    assert values == sorted(values, reverse=True)
    assert column(table, base) != before

    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    values = [float(text.split()[0]) for text in column(table, base)]
    assert values == sorted(values)


def test_names_sort_by_letter_and_gaps_stay_last(shown):
    table = shown.locator("table").first
    names = table.locator("thead th").first
    names.get_by_role("button").press("Enter")
    assert names.get_attribute("aria-sort") == "ascending"
    assert column(table, 0) == sorted(column(table, 0), key=str.lower)
    bits = table.locator("thead th").nth(1)
    for _ in range(2):
        bits.get_by_role("button").click()
        texts = column(table, 1)
        assert texts.index("-") == len(texts) - texts.count("-") > 0
    assert names.get_attribute("aria-sort") == "none"


def test_the_page_fits_a_telephone(browser, page):
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()
