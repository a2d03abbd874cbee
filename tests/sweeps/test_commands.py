"""The commands of scripts/ and of ``python -m sweeps``: their flags, and their mistakes."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import train
from sweeps.__main__ import launch, main, parse_args

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    """Run a script of scripts/ with this Python."""

    def run(name, *arguments, **variables):
        environment = {"PATH": "/usr/bin:/bin", "QPROMPT_PYTHON": sys.executable}
        return subprocess.run(
            ["bash", str(REPOSITORY / f"scripts/{name}.sh"), *arguments],
            capture_output=True,
            text=True,
            env={**environment, "DATA": "some where", "OUTPUT": "out", **variables},
        )

    return run


SCRIPTS = [
    (("base2new", "QCoOp", "digits", "2", "4"), ["base", "new"]),
    (("few_shot", "QCoOp", "digits", "8", "2", "4"), ["all"]),
    (("cross_dataset", "QCoOp", "2", "4"), ["all"] * 2),
    (("domain_generalization", "QCoOp", "2", "4"), ["all"] * 5),
]


def test_help_and_mistakes_in_flags_do_not_wait_for_torch():
    code = "import sys; from sweeps.__main__ import parse_args; parse_args(['file', 'a.yaml'])"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


@pytest.mark.parametrize(("command", "classes"), SCRIPTS, ids=[c[0] for c, _ in SCRIPTS])
def test_script_prints_commands_that_train_takes(script, command, classes):
    source = "characters" if command[0] == "cross_dataset" else "digits"
    done = script(*command, "--dry-run", CFG="tiny", SHOTS="8", SOURCE=source)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(line[:2] == ["python", "train.py"] for line in lines)
    found = [train.setup_cfg(train.parse_args(line[2:])) for line in lines]
    assert [cfg.DATASET.SUBSAMPLE_CLASSES for cfg in found] == classes
    for cfg in found:
        assert cfg.DATASET.ROOT == "some where" and cfg.OUTPUT_DIR.startswith("out/")
        assert cfg.SEED == 2 and cfg.TRAINER.QPROMPT.BITS == 4 and cfg.DATASET.NUM_SHOTS == 8


def test_sweep_script_takes_lists_as_variables_and_as_flags(script):
    done = script(
        *("sweep", "--dry-run", "--bits", "1", "--opts", "OPTIM.LR", "0.5"),
        **{"CFG": "tiny", "TRAINERS": "CoOp QCoOp", "DATASETS": "digits eurosat", "SEEDS": "1 2"},
    )
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line)[2:] for line in done.stdout.splitlines()]
    assert len(lines) == 2 * 2 * 2 * 2
    configs = [train.setup_cfg(train.parse_args(line)) for line in lines]
    assert {cfg.OPTIM.LR for cfg in configs} == {0.5}
    assert all("tiny_OPTIM.LR=0.5/seed" in cfg.OUTPUT_DIR for cfg in configs if not _quantizes(cfg))
    assert all(
        "tiny_1bit_OPTIM.LR=0.5/seed" in cfg.OUTPUT_DIR for cfg in configs if _quantizes(cfg)
    )


def _quantizes(cfg):
    return cfg.TRAINER.NAME == "QCoOp"


def test_script_says_what_is_wrong_in_a_line(script):
    done = script("base2new", "QCoOp", "digit", "1", CFG="tiny")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert 'argument DATASET: there is no "digit", but digits' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("few_shot", "QCoOp", "digits", "1", "1", "--opts", "OPTIM.LR"), "OPTIM.LR has no value"),
        (("few_shot", "MaPLe", "digits", "1", "1", "--nctx", "4"), "MaPLe lacks one of the keys"),
        (("few_shot", "CoOp", "digits", "1", "1", "--csc", "yes"), 'no "yes", but False, True'),
        (("few_shot", "CoOp", "digits", "1", "1", "--nctx", "x"), 'got "x"'),
        (("grid", "--protocol", "fewshot"), "invalid choice: 'fewshot'"),
        (
            ("base2new", "QCoOp", "digits", "1", "--jobs", "0"),
            "--jobs: must be a whole number 1 or more",
        ),
    ],
)
def test_mistakes_end_in_one_line(command, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(list(command))
    line = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err
    assert message in line.splitlines()[-1]


def test_a_sweep_file_can_be_shown_as_commands(tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text("{protocol: few_shot, trainers: [CoOp], datasets: [dtd]}")
    assert launch(parse_args(["file", str(file), "--dry-run"]))
    assert capsys.readouterr().out.count("/dtd/CoOp/vit_b16_ctxv1_16shots/nctx") == 3


def test_flags_stand_in_place_of_what_a_sweep_file_says(tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    file.write_text("[{protocol: few_shot, trainers: [QCoOp], datasets: [dtd], variants: {a: {}}}]")
    flags = "--datasets digits --config tiny --seeds 7 8 --shots 2 --bits 3 --dry-run"
    assert launch(parse_args(["file", str(file), *flags.split()]))
    lines = capsys.readouterr().out.splitlines()
    folders = [line.partition("--output-dir ")[2].split()[0] for line in lines]
    assert folders == [
        f"output/digits/QCoOp/tiny_3bit_a_2shots/nctx4_cscFalse_ctpend/seed{n}" for n in (7, 8)
    ]


def test_ablations_run_as_named_with_other_flags(script):
    flags = ("--dry-run", "--datasets", "dtd", "--seeds", "9")
    done = script("ablate", "stability/noise", *flags)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line)[2:] for line in done.stdout.splitlines()]
    folders = [train.parse_args(line).output_dir for line in lines]
    assert len(folders) == 2 * (1 + 1 + 3 + 3)
    for folder in folders:
        assert folder.startswith("out/stability/noise/base2new/")
        assert "/dtd/" in folder and folder.endswith("seed9")


def test_the_paper_is_reproduced_table_by_table_beside_its_numbers(script):
    done = script("reproduce_paper", "slip", "--dry-run", "--datasets", "dtd")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("== SLIP, on 11 data sets: 6 hours, 8 GiB.")
    assert "74.04" in done.stdout and done.stdout.count("python train.py") == 2 * 3 * 2
