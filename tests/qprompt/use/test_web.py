"""The page that compares prompts, in a browser."""

import functools
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import qprompt
from clip.tiny.pen import VARIANTS
from qprompt.use.export import export
from qprompt.use.images import Preprocess
from qprompt.use.model import AppliedPrompt

pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install -e '.[onnx]'")

from qprompt.use.web import RUNTIME, export_web, find_runtime  # noqa: E402

REPOSITORY = Path(__file__).parents[3]
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
        server.server_close()


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


@contextmanager
def opened(browser, address):
    """A page in the browser, which must stay silent and fetch nothing from elsewhere."""
    complaints, requests = [], []
    tab = browser.new_page(viewport={"width": 1100, "height": 520})
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: requests.append(sent.url))
    tab.goto(address)
    tab.get_by_text("Nothing leaves this computer").wait_for()
    yield tab
    tab.close()
    assert not complaints
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)


@pytest.fixture(scope="module")
def page(browser, serve, runtime, models, tmp_path_factory):
    """A page of untrained prompts."""
    folder = tmp_path_factory.mktemp("page") / "new"
    export_web(models, CLASSES, str(folder), runtime)
    with opened(browser, serve(folder)) as tab:
        yield tab


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


def draw(page, digit):
    """Draw the first variant of a digit with the mouse, and wait for its classes."""
    box = page.locator("canvas").bounding_box()
    for stroke in VARIANTS[digit][0]:
        for number, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + 60 + 136 * x, box["y"] + 40 + 176 * y)
            if number == 0:
                page.mouse.down()
        page.mouse.up()
    page.wait_for_function("document.querySelector('meter').value > 0")


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

    draw(page, "7")
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
    other.preprocess = Preprocess((32, 32), "bilinear", (0, 0, 0), (1, 1, 1))
    with pytest.raises(qprompt.InvalidOptionError, match="pages of their own"):
        export_web([models[0], other], CLASSES, str(tmp_path / "page"), runtime)


OPTS = ["DATASET.NUM_SHOTS", 16, "DATASET.SUBSAMPLE_CLASSES", "all"]


@pytest.fixture
def train(build, tmp_path):
    """Train on all digits; return the prompt, exported and applied."""

    def train(trainer, bits, epochs):
        folder = tmp_path / f"{trainer}-{bits}"
        opts = [*OPTS, "OPTIM.MAX_EPOCH", epochs, "TRAINER.QPROMPT.BITS", min(bits, 8)]
        build(trainer, folder, opts=opts).train()
        export(str(folder), f"{folder}.safetensors", bits)
        return qprompt.load(f"{folder}.safetensors").apply()

    return train


@pytest.fixture
def evaluate(build):
    """Evaluate a prompt as train.py --eval-only does; return logits and paths of all images."""

    def evaluate(prompt):
        bits = [
            "TRAINER.QPROMPT.BITS",
            max(tensor.bits for tensor in prompt.packed.quantized.values()),
        ]
        run = build(prompt.trainer, "", opts=[*OPTS, *bits])
        run.load_model(prompt.path)
        run.set_model_mode("eval")
        with torch.no_grad():
            logits = torch.cat([logits for logits, _ in run.scores(run.test_loader)])
        return logits, [item.impath for item in run.dm.dataset.test]

    return evaluate


@pytest.mark.slow
def test_trained_prompts_agree_with_train_py_image_by_image(
    browser, serve, runtime, train, evaluate, load_program, tmp_path
):
    models = [train("QCoOp", 1, 200), train("QCoCoOp", 1, 10), train("QMaPLe", 4, 5)]
    logits, (paths, *_) = zip(*(evaluate(model.prompt) for model in models), strict=True)
    export_web(models, models[0].classes(None), str(tmp_path / "page"), runtime)
    with opened(browser, serve(tmp_path / "page")) as tab:
        found = run(tab, "await classify(pixels)", paths)
    wanted = torch.stack(logits, dim=1).softmax(dim=-1).numpy()
    print(f"{len(paths)} images, largest difference {np.abs(found - wanted).max():.1e}")
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)
    assert (found.argmax(axis=2) == wanted.argmax(axis=2)).all()
    for model, expected in zip(models, logits, strict=True):
        program = load_program(model, tmp_path / f"onnx-{model.prompt.trainer}")
        computed = program.compute_logits(np.stack([program.read(path) for path in paths]))
        print(f"{model.prompt}: largest difference {np.abs(computed - expected.numpy()).max():.1e}")
        np.testing.assert_allclose(computed, expected, atol=1e-4, rtol=0)
        assert (computed.argmax(axis=1) == expected.argmax(dim=1).numpy()).all()


@pytest.mark.slow
def test_screenshot_in_docs(browser, serve, runtime, train, tmp_path):
    """Draws what docs/export.md shows."""
    models = [train("CoOp", 16, 50), *(train("QCoOp", bits, 50) for bits in (1, 2, 4))]
    export_web(models, models[0].classes(None), str(tmp_path / "page"), runtime)
    with opened(browser, serve(tmp_path / "page")) as tab:
        draw(tab, "3")
        assert tab.locator("li.best span").all_inner_texts() == ["three"] * len(models)
        tab.screenshot(path=REPOSITORY / "docs/page.png", full_page=True)
