"""The command qprompt on runs of digits: it agrees with train.py --eval-only."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import clip
import qprompt
from qprompt.use.command import main as qprompt_main

ROOT = Path(__file__).parents[3]
FAST = ["OPTIM.MAX_EPOCH", 1, "OPTIM.WARMUP_EPOCH", -1, "OPTIM.LR", 0.02]
NEW = ["DATASET.SUBSAMPLE_CLASSES", "new"]


@pytest.fixture
def run(capsys):
    """Run a command line in this process; return what it wrote and its exit code."""

    def run(*arguments, code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            qprompt_main(list(map(str, arguments)))
        if code == 1:
            return str(exit.value)
        assert (exit.value.code or 0) == code
        return capsys.readouterr().out

    return run


@pytest.fixture
def trained(build, tmp_path):
    """The folder of a short run on the base classes."""

    def trained(trainer, *opts, name="run"):
        build(trainer, tmp_path / name, opts=[*FAST, *opts]).train()
        return tmp_path / name

    return trained


@pytest.mark.parametrize(
    ("trainer", "bits"), [("QCoOp", 1), ("QCoCoOp", 2), ("QMaPLe", 4)]
)  # as in the paper
def test_what_train_py_evaluates(trained, main, result, run, tmp_path, data_root, trainer, bits):
    """Files of digits, of classes that training did not see."""
    packed = tmp_path / "p.safetensors"
    run("export", trained(trainer, "TRAINER.QPROMPT.BITS", bits), "-o", packed)
    flags = ["--eval-only", "--model-dir", packed]
    main(trainer, tmp_path / "new", *map(str, flags), opts=[*FAST, *NEW])
    expected = result(tmp_path / "new")

    split = json.loads((data_root / "digits" / "split_digits.json").read_text())
    names = expected["classnames"]
    for path, _, name in split["test"]:
        if name in names:
            link = tmp_path / "photos" / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(data_root / "digits" / "images" / path)
    found = json.loads(run("evaluate", packed, "--data", tmp_path / "photos", "--json"))
    assert found["accuracy"] == pytest.approx(expected["metrics"]["accuracy"])
    for key, numbers in expected["per_class"].items():
        ours = dict(zip(found["classnames"], found[key], strict=True))
        assert [ours[name] for name in names] == numbers
    table = run("evaluate", packed, "--data", tmp_path / "photos").splitlines()
    assert table[-1].split()[-1] == f"{found['accuracy']:.2f}%" and len(table) == 6

    options = ["--classes", ",".join(names), "--format", "csv"]
    rows = list(csv.DictReader(io.StringIO(run("classify", packed, tmp_path / "photos", *options))))
    right = sum(row["class"] == Path(row["image"]).parent.name for row in rows)
    assert right == expected["metrics"]["correct"] and len(rows) == expected["metrics"]["total"]

    head = tmp_path / "head.safetensors"
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    command = "classifier", packed, "--classes-file", tmp_path / "names.txt", "-o", head
    if trainer == "QCoCoOp":
        assert "depend on the image" in run(*command, code=1) and not head.exists()
        return
    run(*command)
    tensors, model = load_file(head), qprompt.load(packed).apply()
    pixels = torch.stack([model.preprocess(row["image"]) for row in rows[:50]])
    features = F.normalize(model.encode_image(pixels), dim=-1)
    logits = tensors["logit_scale"] * features @ tensors["weight"].T
    assert [names[i] for i in logits.argmax(-1)] == [row["class"] for row in rows[:50]]
    assert "exists: move it away" in run(*command, code=1)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed context near three words, of the tiny CLIP."""
    embedding = clip.load("tiny").token_embedding.weight.detach()
    learner = nn.Module()
    learner.ctx = nn.Parameter(embedding[clip.tokenize("photo three zero")[0, 1:4]])
    qprompt.quantize_(learner, bits=4)
    path = tmp_path_factory.mktemp("packed") / "prompt.safetensors"
    known = {"classnames": '["cat","dog"]', "dataset": "Pets", "shots": 16}
    qprompt.pack(learner, path, backbone="tiny", trainer="QCoOp", **known)
    return path


def test_inspect(packed, run):
    text = run("inspect", packed, "--words", 2)
    assert "QCoOp" in text and "tiny" in text and "Pets, 16 shots" in text and "2: cat, dog" in text
    assert "ctx: 3 x 128 numbers of 4 bits, 224 bytes" in text
    assert f"224 bytes, {3 * 128 * 2 / 224:.1f} times less" in text
    assert "  2: three, " in text
    about = json.loads(run("inspect", packed, "--json"))
    assert about["payload_bytes"] == 224 and about["file_bytes"] == packed.stat().st_size
    ctx = about["quantized"]["ctx"]
    assert sum(ctx["use"]) == 3 * 128 and len(ctx["codebook"]) == len(ctx["use"]) == 16
    values = qprompt.unpack(packed)["ctx"]
    for value, number in zip(ctx["codebook"], ctx["use"], strict=True):
        assert (values == value).sum() == number


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, grey in (("b.png", 9), ("a.jpg", 200), ("more/c.PNG", 90)):
        Image.new("L", (50, 40), grey).save(folder / name)
    (folder / "notes.txt").write_text("none")
    return folder


def test_classify_writes_tables_csv_and_json(packed, run, photos, monkeypatch):
    options = "--top-k", 2, "--batch-size", 2
    lines = run("classify", packed, photos, *options).splitlines()
    files = [str(photos / name) for name in ("a.jpg", "b.png", "more/c.PNG")]
    assert [line.split("\t")[0] for line in lines] == files
    text = run("classify", packed, photos, *options, "--format", "json")
    lines = list(map(json.loads, text.splitlines()))
    assert [line["image"] for line in lines] == files
    for line in lines:
        assert sum(entry["probability"] for entry in line["classes"]) == pytest.approx(1)
        assert {entry["class"] for entry in line["classes"]} == {"cat", "dog"}
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(files[:2])))
    rows = list(csv.reader(io.StringIO(run("classify", packed, "-", "--format", "csv"))))
    assert rows[0] == ["image", "rank", "class", "probability"]
    assert [row[:3] for row in rows[1:]] == [
        [line["image"], "1", line["classes"][0]["class"]] for line in lines[:2]
    ]


def test_diff(packed, run, tmp_path):
    assert run("diff", packed, packed) == ""
    file = qprompt.load(packed).packed
    other = tmp_path / "other.safetensors"
    file._replace(metadata={**file.metadata, "shots": "4"}).write(other)
    assert run("diff", packed, other, code=3) == "shots: 16 | 4\n"
    learner = nn.Module()
    learner.ctx = nn.Parameter(qprompt.unpack(packed)["ctx"] + 1)
    qprompt.pack(qprompt.quantize_(learner, 2), other, **file.metadata)
    (line,) = run("diff", packed, other, code=3).splitlines()
    assert line.startswith("ctx: 4 | 2 bits; 384 of 384 numbers differ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing.safetensors"], "No such file"),
        (["inspect", __file__], "no packed file"),
        (["inspect", "EMPTY"], "such as prompt_learner/prompt.safetensors"),
        (["classify", "PACKED", "x.png", "--classes", ","], "the given list names no classes"),
        (["classify", "PACKED", "missing.png"], "there is no image 'missing.png'"),
        (["classify", "PACKED", "EMPTY"], "no image lies below"),
        (["evaluate", "PACKED", "--data", "EMPTY"], "holds no folders"),
        (["classify", "PACKED", "x.png", "--backbone", "ViT-B/32"], "ViT-B/32 is another"),
        (["classify", "PACKED", "x.png", "--classes-file", "no.txt"], "No such file"),
        (["inspect", "PACKED", "--words", "0"], "topk is 0"),
        (["classify", "PACKED", "x.png", "--device", "abacus"], "device 'abacus' is not to be had"),
    ],
)
def test_what_a_user_can_put_right_is_said_in_one_line(packed, run, tmp_path, arguments, message):
    words = {"PACKED": packed, "EMPTY": tmp_path}
    said = run(*(words.get(word, word) for word in arguments), code=1)
    assert said.startswith("error: ") and message in said and "\n" not in said


def test_help_and_wrong_usage_need_no_torch():
    program = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_module('qprompt', "
    program += "run_name='__main__')"
    for arguments, code in ((["--help"], 0), (["classify", "--help"], 0), (["classify"], 2)):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code and "usage: qprompt" in done.stdout + done.stderr
