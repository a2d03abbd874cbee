"""The page that compares prompts, in a browser."""

import functools
import json
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
from trainers import base

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


@pytest.fixture
def tiny_on_digits():
    """Where a trainer is built, as options of ``build``."""
    return {"opts": ["DATASET.NUM_SHOTS", 16]}


@pytest.fixture
def vit_b32_on_eurosat(real_root, vit_b32_file, tmp_path):
    """As above: ViT-B/32 with random weights, two steps of training, every 20th test image."""
    folder, name = tmp_path / "data/eurosat", "split_zhou_EuroSAT.json"
    folder.mkdir(parents=True)
    (folder / "2750").symlink_to(real_root / "eurosat/2750")
    split = json.loads((real_root / "eurosat" / name).read_text())
    (folder / name).write_text(json.dumps({**split, "test": split["test"][::20]}))
    flags = ["--root", folder.parent, "--dataset-config-file", "configs/datasets/eurosat.yaml"]
    flags += ["--backbone", vit_b32_file]
    few = ["DATASET.NUM_SHOTS", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 5, "OPTIM.MAX_EPOCH", 1]
    quick = ["OPTIM.WARMUP_EPOCH", -1, "OPTIM.LR", 0.02, "INPUT.SIZE", "(224, 224)"]
    return {"flags": list(map(str, flags)), "opts": few + quick}


@pytest.fixture
def train(build, tmp_path):
    """Train and export a prompt; return it, applied."""

    def train(trainer, bits, epochs, classes="all", flags=(), opts=(), precision="fp32"):
        folder = tmp_path / f"{trainer}-{bits}"
        opts = ["OPTIM.MAX_EPOCH", epochs, "TRAINER.QPROMPT.BITS", min(bits, 8), *opts]
        opts += ["DATASET.SUBSAMPLE_CLASSES", classes, *precision_of(trainer, precision)]
        build(trainer, folder, *flags, opts=opts).train()
        export(str(folder), f"{folder}.safetensors", bits)
        return qprompt.load(f"{folder}.safetensors").apply()

    return train


@pytest.fixture
def evaluate(build):
    """Evaluate a prompt as train.py --eval-only does; return logits, and paths and classes."""

    def evaluate(prompt, flags=(), opts=(), precision="fp32"):
        flags = [*flags, "--eval-only", "--model-dir", prompt.path]
        opts = [*opts, "DATASET.SUBSAMPLE_CLASSES", "all", *precision_of(prompt.trainer, precision)]
        run = build(prompt.trainer, "", *flags, opts=opts)
        run.load_model(prompt.path)
        run.set_model_mode("eval")
        with torch.no_grad():
            logits = torch.cat([logits for logits, _ in run.scores(run.test_loader)])
        dataset = run.dm.dataset
        return logits, [item.impath for item in dataset.test], dataset.classnames

    return evaluate


def precision_of(trainer, precision):
    return [f"TRAINER.{trainer.removeprefix('Q').upper()}.PREC", precision]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "precision"),
    [
        ("tiny_on_digits", "fp32"),
        ("vit_b32_on_eurosat", "fp32"),
        ("vit_b32_on_eurosat", "fp16"),
    ],
)
def test_trained_prompts_agree_with_train_py_image_by_image(
    browser,
    serve,
    runtime,
    train,
    evaluate,
    load_program,
    tmp_path,
    monkeypatch,
    request,
    place,
    precision,
):
    """On all classes, of which training saw half; page and ONNX compute in float32."""
    monkeypatch.setattr(base, "resolve_precision", lambda precision, device: precision)
    where = request.getfixturevalue(place)
    models = [
        train(trainer, bits, epochs, "base", precision=precision, **where)
        for trainer, bits, epochs in [("QCoOp", 1, 200), ("QCoCoOp", 1, 10), ("QMaPLe", 4, 5)]
    ]
    evaluated = [evaluate(model.prompt, precision=precision, **where) for model in models]
    logits, (paths, *_), (names, *_) = zip(*evaluated, strict=True)
    tolerance = {"fp32": 1e-4, "fp16": 0.01}[precision]

    def check(what, found, wanted):
        difference = np.abs(found - wanted).max()
        same = found.argmax(axis=-1) == wanted.argmax(axis=-1)
        print(
            f"{what}: {len(paths)} images, largest difference {difference:.1e}, {same.mean():.1%}"
        )
        assert difference < tolerance
        assert same.all() or precision == "fp16"  # random weights tell classes apart by less

    export_web(models, names, str(tmp_path / "page"), runtime)
    with opened(browser, serve(tmp_path / "page")) as tab:
        found = run(tab, "await classify(pixels)", paths)
    check("page", found, torch.stack(logits, dim=1).softmax(dim=-1).numpy())
    for model, expected in zip(models, logits, strict=True):
        program = load_program(model, tmp_path / f"onnx-{model.prompt.trainer}", names)
        computed = program.compute_logits(np.stack([program.read(path) for path in paths]))
        check(f"ONNX of {model.prompt.trainer}", computed, expected.numpy())
        applied = model.prompt.apply(precision=precision)
        classified = applied.classify(paths, names, batch_size=100)
        wanted = expected.softmax(dim=-1).numpy()
        check(f"classify with {model.prompt.trainer}", classified.probabilities.numpy(), wanted)


@pytest.mark.slow
def test_screenshot_in_docs(browser, serve, runtime, train, tiny_on_digits, tmp_path):
    """Draws what docs/export.md shows."""
    plain = train("CoOp", 16, 50, **tiny_on_digits)
    models = [plain, *(train("QCoOp", bits, 50, **tiny_on_digits) for bits in (1, 2, 4))]
    export_web(models, models[0].classes(None), str(tmp_path / "page"), runtime)
    with opened(browser, serve(tmp_path / "page")) as tab:
        draw(tab, "3")
        assert tab.locator("li.best span").all_inner_texts() == ["three"] * len(models)
        tab.screenshot(path=REPOSITORY / "docs/page.png", full_page=True)
