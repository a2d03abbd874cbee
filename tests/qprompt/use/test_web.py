"""The page that compares prompts, in a browser."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import qprompt
from qprompt.use.images import Preprocess
from qprompt.use.model import AppliedPrompt

pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install -e '.[onnx]'")

from qprompt.use.web import RUNTIME, export_web, find_runtime  # noqa: E402

CLASSES = ["seven", "three", "zero"]
PROMPTS = [("CoOp", 1), ("CoOp", 4), ("CoCoOp", 1), ("MaPLe", 2)]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def serve():
    """Serve a folder as `python -m http.server` does; return its address."""
    servers = []

    def serve(folder):
        handler = functools.partial(Silent, directory=str(folder))
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="module")
def runtime():
    """The folder of onnxruntime-web."""
    try:
        return str(find_runtime(None))
    except qprompt.InvalidOptionError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def models(packed):
    return [qprompt.load(packed(*prompt)).apply() for prompt in PROMPTS]


@pytest.fixture(scope="module")
def page(browser, serve, runtime, models, tmp_path_factory):
    """The page in a browser, which must stay silent and fetch nothing from elsewhere."""
    folder = tmp_path_factory.mktemp("page") / "new"
    export_web(models, CLASSES, str(folder), runtime)
    address, complaints, requests = serve(folder), [], []
    tab = browser.new_page(viewport={"width": 1100, "height": 600})
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: requests.append(sent.url))
    tab.goto(address)
    tab.get_by_text("Nothing leaves this computer").wait_for()
    yield tab
    tab.close()
    assert not complaints
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)


def run(page, code, paths):
    """Run code in the page on ``pixels``, those of each image file; return the results."""
    script = f"""async (files) => {{
        const {{ classify, decode }} = await import("./page.js");
        const {{ preprocess }} = await import("./pixels.js");
        const about = await (await fetch("prompts.json")).json();
        const results = [];
        for (const file of files) {{
            const pixels = await decode(new Blob([new Uint8Array(file)]));
            results.push({code});
        }}
        return results;
    }}"""
    return np.array(page.evaluate(script, [list(Path(path).read_bytes()) for path in paths]))


def test_probabilities_are_those_of_torch(page, models, digits):
    wanted = np.stack([model.classify(digits, CLASSES).probabilities for model in models], axis=1)
    found = run(page, "await classify(pixels)", digits)  # (images, prompts, classes)
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)
    assert (found.argmax(axis=2) == wanted.argmax(axis=2)).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_page_sees_the_pixels_that_torchvision_sees(page, models, tmp_path, mode):
    paths = []
    for size in [(8, 8), (32, 32), (33, 18), (45, 32), (301, 200)]:
        noise = np.random.RandomState(0).randint(0, 256, (*size[::-1], 3), np.uint8)
        paths.append(tmp_path / f"{size}.png")
        Image.fromarray(noise).convert(mode).save(paths[-1])
    found = run(page, "[...preprocess(pixels, about)]", paths)
    wanted = np.stack([models[0].preprocess(path).flatten() for path in paths])
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


def columns(page):
    """Headings, and the probabilities in percent that stand below them."""
    sections = page.locator("section").all()
    headings = [section.locator("h2").inner_text() for section in sections]
    shares = [section.locator("li b").all_inner_texts() for section in sections]
    return headings, [[float(share.rstrip("%")) for share in column] for column in shares]


def test_a_drawn_character_and_an_image_fill_a_column_for_each_prompt(page, models, digits):
    headings, shares = columns(page)
    bytes_of = [f"{model.prompt.packed.payload_bytes:,} bytes" for model in models]
    assert [text.split("\n")[-1] for text in headings] == bytes_of
    assert "QCoOp, 1 bit" in headings[0] and "QMaPLe, 2 bits" in headings[3]
    assert not np.any(shares)

    box = page.locator("canvas").bounding_box()
    for action, x, y in [("move", 60, 60), ("down", 0, 0), ("move", 190, 60), ("move", 110, 200)]:
        place = (box["x"] + x, box["y"] + y) if action == "move" else ()
        getattr(page.mouse, action)(*place)
    page.mouse.up()
    page.wait_for_function("document.querySelector('meter').value > 0")
    assert np.allclose(np.sum(columns(page)[1], axis=1), 100, atol=0.2)

    page.get_by_text("Clear").click()
    assert not np.any(columns(page)[1])
    page.locator("input").set_input_files(digits[3])
    page.wait_for_function("document.querySelector('meter').value > 0")
    wanted = [100 * model.classify([digits[3]], CLASSES).probabilities[0] for model in models]
    np.testing.assert_allclose(columns(page)[1], np.stack(wanted), atol=0.06)


def test_page_fits_a_telephone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_missing_runtime_is_named_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(qprompt.InvalidOptionError, match="npm install onnxruntime-web"):
        find_runtime(None)
    (tmp_path / "node_modules/onnxruntime-web/dist").mkdir(parents=True)
    for name in RUNTIME:
        (tmp_path / "node_modules/onnxruntime-web/dist" / name).touch()
    assert find_runtime(None).samefile("node_modules/onnxruntime-web/dist")
    with pytest.raises(qprompt.InvalidOptionError, match="lacks files"):
        find_runtime(str(tmp_path))


def test_prompts_of_different_preprocessing_need_pages_of_their_own(models, runtime, tmp_path):
    other = AppliedPrompt(models[0].prompt, models[0].backbone)
    other.preprocess = Preprocess((32, 32), "bilinear")
    with pytest.raises(qprompt.InvalidOptionError, match="pages of their own"):
        export_web([models[0], other], CLASSES, str(tmp_path / "page"), runtime)
