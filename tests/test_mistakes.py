"""What users get wrong is said in one line; their folders may have almost any name."""

import io
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

import clip
import train
from dassl.utils import UserError
from qprompt import NoParameterError


@pytest.mark.parametrize(
    ("flags", "opts", "message"),
    [
        (["--trainer", "QCoop"], [], "QCoOp"),
        ([], ["DATASET.NAME", "Digit"], "Digits"),
        ([], ["TRAINER.QPROMPT.BIT", 1], "TRAINER.QPROMPT.BITS"),
        ([], ["OPTIM.LRR", 1], "OPTIM.LR"),
        ([], ["TRAINER.QPROMPT.BITS", 0], "bits must be an integer from 1 to 8, got 0"),
        ([], ["TRAINER.QPROMPT.BITS", 9], "bits must be an integer from 1 to 8, got 9"),
        ([], ["TRAINER.QPROMPT.MODE", "qta"], "mode must be one of"),
        ([], ["TRAINER.QPROMPT.PARAMS", "["], "PARAMS|params|QPROMPT"),
        ([], ["TRAINER.QPROMPT.PARAMS", "nothing"], "no trainable parameter matching 'nothing'"),
        ([], ["TRAINER.COOP.PREC", "int8"], 'Unknown PREC "int8"'),
        ([], ["INPUT.SIZE", "(224, 224)"], r"INPUT.SIZE is \(224, 224\)"),
        ([], ["DATASET.SUBSAMPLE_CLASSES", "old"], 'Unknown DATASET.SUBSAMPLE_CLASSES "old"'),
        (["--backbone", "ViT-B/61"], [], "ViT-B/16"),
    ],
)
def test_bad_options_name_themselves_and_the_nearest_good_one(build, flags, opts, message):
    with pytest.raises((KeyError, ValueError), match=message):
        build("QCoOp", "", *flags, opts=opts)


def test_mistakes_of_the_user_are_one_line_and_faults_show_their_traceback(monkeypatch):
    monkeypatch.setattr(train, "log_to", lambda _: nullcontext())
    argv = ["--trainer", "QCoOp", "VERBOSE", "False"]
    for error in (UserError("say it"), clip.ClipError("say it"), NoParameterError("say it")):
        monkeypatch.setattr(train, "build_trainer", mock.Mock(side_effect=error))
        with pytest.raises(SystemExit, match="^error: say it$"):
            train.main(argv)
    for error in (ValueError("of a library"), KeyError("ours")):
        monkeypatch.setattr(train, "build_trainer", mock.Mock(side_effect=error))
        with pytest.raises(type(error)):
            train.main(argv)


def test_evaluation_without_trained_weights_is_refused(main, tmp_path):
    with pytest.raises(SystemExit, match="^error: --eval-only of CoOp needs trained weights"):
        main("CoOp", tmp_path / "run", "--eval-only")
    assert not (tmp_path / "run/results.json").exists()


def test_output_folder_that_cannot_be_written_is_named(main, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(SystemExit) as error:
        main("QCoOp", file / "run")
    assert error.value.code.startswith("error: ") and str(file) in error.value.code
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("name", ["7", "run.log", "a run/", "~/run", "None"])
def test_folder_may_have_any_name(main, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(train, "build_trainer", mock.Mock(side_effect=UserError("as far as this")))
    name = name if name[0] == "~" else f"{tmp_path}/{name}"
    with pytest.raises(SystemExit, match="as far as this"):
        main("ZeroshotCLIP", name)
    assert {path.name for path in Path(name).expanduser().iterdir()} == {".lock", "log.txt"}


def test_an_output_folder_without_a_name_is_refused(main):
    with pytest.raises(SystemExit, match='^error: "OUTPUT_DIR" in the command line must be the na'):
        main("ZeroshotCLIP", "", "--output-dir", "")


@pytest.fixture
def folders(tmp_path):
    """Make class folders of some names; return the flags of a run on them."""

    def folders(*names):
        for name in names:
            (tmp_path / "data" / name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / f"{i}.png")
        file = "configs/datasets/folder.yaml"
        return "--root", str(tmp_path / "data"), "--dataset-config-file", file

    return folders


def test_the_terminals_encoding_decides_nothing(main, tmp_path, monkeypatch, result, folders):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    options = {"DATASET.SUBSAMPLE_CLASSES": "all", "DATASET.NUM_SHOTS": 1}
    options |= {"TEST.PER_CLASS_RESULT": True}
    opts = [word for pair in options.items() for word in pair]
    main("CoOp", tmp_path / "run", *folders("cat \U0001f431", "dog"), opts=opts)
    assert result(tmp_path / "run")["classnames"][0] == "cat \U0001f431"
    assert b"class: 0 (cat ?)" in terminal.buffer.getvalue()
    assert "class: 0 (cat \U0001f431)" in (tmp_path / "run/log.txt").read_text(encoding="utf-8")


def test_names_that_cannot_be_stored_are_refused_before_training(main, tmp_path, folders):
    with pytest.raises(SystemExit, match=r'^error: "OUTPUT_DIR" .* UTF-8: rename it, got .*udcff'):
        main("CoOp", tmp_path / "\udcff")
    options = {"opts": ["DATASET.SUBSAMPLE_CLASSES", "all", "DATASET.NUM_SHOTS", 1]}
    with pytest.raises(SystemExit, match=r"^error: The class name 'cat.udcff' is not UTF-8"):
        main("CoOp", tmp_path / "run", *folders("cat\udcff", "dog"), **options)


def test_images_that_are_damaged_or_gone_are_named(build, data_root, tmp_path):
    build("CoOp", "")  # makes sure that the digits are there
    root = shutil.copytree(data_root, tmp_path / "data")
    run = build("CoOp", tmp_path / "run", "--root", str(root))
    victim = run.dm.dataset.test[0].impath
    with open(victim, "wb") as file:
        file.write(b"no image")
    with pytest.raises(OSError, match=victim):
        run.test()
    (root / victim).unlink()
    with pytest.raises(OSError, match=victim):
        build("CoOp", "", "--root", str(root))
