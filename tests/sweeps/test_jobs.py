"""Protocols: which runs they consist of, where these write, and that train.py takes them."""

import shlex
from collections import Counter
from pathlib import Path

import pytest

import train
from dassl.utils import Registry, UnknownNameError
from qprompt.dassl import Options, Quantized
from sweeps import SweepError, protocols
from sweeps.__main__ import launch, parse_args
from sweeps.grid import Grid, read_grids
from sweeps.jobs import expand
from sweeps.protocols import plain_counterpart
from trainers.coop import CoOp

REPOSITORY = Path(__file__).parents[2]
BENCHMARK = 11  # data sets
CONTEXT = "nctx4_cscFalse_ctpend"  # of the tiny configuration
SHIFTS = ("noise", "blur", "inverted", "rotated")


def expanded(protocol, trainers=("QCoOp",), **options):
    options = {"config": "tiny", "seeds": (1,)} | options
    return expand([Grid(protocol, trainers, **options)], "DATA", "out")


def options(run):
    """What matters of a run: data set, classes, bits, weights."""
    args = train.parse_args(run.argv)
    cfg = train.setup_cfg(args)
    assert str(run.folder) == cfg.OUTPUT_DIR and cfg.DATASET.ROOT == "DATA"
    return cfg.DATASET.NAME, cfg.DATASET.SUBSAMPLE_CLASSES, args.eval_only, args.model_dir


def test_base2new_trains_on_base_and_tests_on_new_classes():
    (job,) = expanded("base2new", datasets=("digits",), bits=(2,), shots=(4,))
    base, new = job.runs
    common = "digits/shots_4/QCoOp/tiny_2bit/seed1"
    assert str(base.folder) == f"out/base2new/train_base/{common}"
    assert str(new.folder) == f"out/base2new/test_new/{common}"
    assert options(base) == ("Digits", "base", False, "")
    assert options(new) == ("Digits", "new", True, str(base.folder))
    cfg = train.setup_cfg(train.parse_args(new.argv))
    assert cfg.TRAINER.NAME == "QCoOp" and cfg.TRAINER.QPROMPT.BITS == 2
    assert cfg.SEED == 1 and cfg.DATASET.NUM_SHOTS == 4 and cfg.MODEL.BACKBONE.NAME == "tiny"


def test_few_shot_trains_on_all_classes():
    jobs = expanded("few_shot", datasets=("digits", "eurosat"), shots=(1, 2), seeds=(0, 3))
    assert [str(job.training.folder) for job in jobs] == [
        f"out/{dataset}/QCoOp/tiny_{shots}shots/{CONTEXT}/seed{seed}"
        for dataset in ("digits", "eurosat")
        for seed in (0, 3)
        for shots in (1, 2)
    ]
    assert not any(job.evaluations for job in jobs)
    assert options(jobs[0].training) == ("Digits", "all", False, "")


@pytest.mark.parametrize(
    ("protocol", "source", "targets"),
    [
        ("cross_dataset", "characters", ["Digits"]),
        (
            "domain_generalization",
            "imagenet",
            ["ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"],
        ),
    ],
)
def test_transfer_tests_on_each_target_what_was_trained_once(protocol, source, targets):
    (job,) = expanded(protocol, source=source)
    weights = f"out/{source}/QCoOp/tiny_16shots/{CONTEXT}/seed1"
    assert str(job.training.folder) == weights
    found = [options(run) for run in job.evaluations]
    assert [name for name, *_ in found] == targets
    assert all(rest == ["all", True, weights] for _, *rest in found)
    own_source = "" if source == "imagenet" else f"{source}/"
    folder = f"out/evaluation/{own_source}QCoOp/tiny_16shots/{CONTEXT}/"
    assert all(str(run.folder).startswith(folder) for run in job.evaluations)


def test_a_folder_of_images_is_a_data_set():
    (job,) = expanded("cross_dataset", source="digits", datasets=("./own/cats/", "characters"))
    folder = f"out/evaluation/digits/QCoOp/tiny_16shots/{CONTEXT}/cats/seed1"
    assert str(job.evaluations[0].folder) == folder
    cfgs = [train.setup_cfg(train.parse_args(run.argv)).DATASET for run in job.evaluations]
    found = [(cfg.NAME, cfg.ROOT) for cfg in cfgs]
    assert found == [("Folder", "./own/cats/"), ("Characters", "DATA")]
    base, new = expanded("base2new", datasets=("/own/cats",))[0].runs
    assert str(base.folder) == "out/base2new/train_base/cats/shots_16/QCoOp/tiny/seed1"
    with pytest.raises(SweepError, match="different runs in .*/cats/seed1"):
        expanded("cross_dataset", source="digits", datasets=("/a/cats", "/b/cats"))


@pytest.mark.parametrize(
    ("trainer", "flags", "variables", "part"),
    [
        ("CoOp", [], {}, "nctx4_cscFalse_ctpend/"),
        ("QCoOp", ["--nctx", "2", "--ctp", "middle"], {"CSC": "True"}, "nctx2_cscTrue_ctpmiddle/"),
        ("ProGrad", [], {"NCTX": "8", "CTP": "front", "CSC": ""}, "nctx8_cscFalse_ctpfront/"),
        ("MaPLe", [], {}, ""),
        ("CoCoOp", [], {}, ""),
        ("ZeroshotCLIP", [], {}, ""),
    ],
)
def test_folders_say_the_context_as_coops_do(monkeypatch, capsys, trainer, flags, variables, part):
    for name, value in {"CFG": "tiny", **variables}.items():
        monkeypatch.setenv(name, value)
    transfer = ["domain_generalization", trainer, "3", "--source", "digits"]
    for command in (["few_shot", trainer, "digits", "16", "3"], transfer):
        assert launch(parse_args([*command, *flags, "--output", "out", "--dry-run"]))
    lines = [shlex.split(line)[2:] for line in capsys.readouterr().out.splitlines()]
    cfgs = [train.setup_cfg(train.parse_args(line)) for line in lines]
    method = f"{trainer}/tiny_16shots/{part}"
    trained = f"out/digits/{method}seed3"
    targets = [f"out/evaluation/digits/{method}digits_{shift}/seed3" for shift in SHIFTS]
    assert [cfg.OUTPUT_DIR for cfg in cfgs] == [trained, trained, *targets]
    if part:
        coop = cfgs[0].TRAINER.COOP
        values = f"nctx{coop.N_CTX}_csc{coop.CSC}_ctp{coop.CLASS_TOKEN_POSITION}/"
        assert values == part and all(coop == cfg.TRAINER.COOP for cfg in cfgs)


def test_grids_of_other_contexts_have_other_folders():
    opts = [{}, {"TRAINER.COOP.N_CTX": 16}, {"TRAINER.COOP.CSC": True}]
    grids = [Grid("few_shot", ("CoOp",), ("digits",), config="tiny", opts=o) for o in opts]
    folders = {job.training.folder.parts[-2] for job in expand(grids, "DATA", "out")}
    assert folders == {CONTEXT, "nctx16_cscFalse_ctpend", "nctx4_cscTrue_ctpend"}


def test_cross_dataset_has_the_papers_ten_targets():
    (job,) = expanded("cross_dataset")
    names = {options(run)[0] for run in job.evaluations}
    assert len(names) == len(job.evaluations) == BENCHMARK - 1 and "ImageNet" not in names


def test_bits_multiply_the_quantized_trainers_alone():
    jobs = expanded(
        "base2new", ("ZeroshotCLIP", "CoOp", "QCoOp", "QMaPLe"), datasets=("digits",), bits=(1, 4)
    )
    names = Counter(job.training.folder.parts[-3:-1] for job in jobs)
    assert names == Counter(
        [
            ("ZeroshotCLIP", "tiny"),
            ("CoOp", "tiny"),
            *((trainer, f"tiny_{bits}bit") for trainer in ("QCoOp", "QMaPLe") for bits in (1, 4)),
        ]
    )


def test_the_class_says_what_a_trainer_quantizes():
    plain = ["ZeroshotCLIP", "CoOp", "CoCoOp", "MaPLe"]
    assert [plain_counterpart(trainer) for trainer in plain] == [None] * len(plain)
    quantized = [f"Q{trainer}" for trainer in plain[1:]]
    assert [plain_counterpart(trainer) for trainer in quantized] == plain[1:]


def test_a_quantized_trainer_without_files_has_those_of_the_plain_one(monkeypatch):
    """And a plain one has none of another, whatever letter its name starts with."""
    registry = Registry("TRAINER")
    for name, bases in {"CoOp8": (Quantized, CoOp), "CoOp": (CoOp,), "Quick": (CoOp,)}.items():
        registry.register(type(name, bases, {}))
    monkeypatch.setattr(protocols, "TRAINER_REGISTRY", registry)
    for config, file in {"": "vit_b16_ep50_ctxv1", "tiny": "tiny"}.items():
        jobs = expanded("few_shot", ("CoOp8",), datasets=("imagenet",), config=config, bits=(2, 4))
        assert [job.training.folder.parts[-4:-2] for job in jobs] == [
            ("CoOp8", f"{file}_{bits}bit_16shots") for bits in (2, 4)
        ]
        for job in jobs:
            path = train.parse_args(job.training.argv).config_file
            assert path.endswith(f"configs/trainers/CoOp/{file}.yaml")
    with pytest.raises(UnknownNameError, match='configuration of Quick "tiny". Known: none'):
        expanded("few_shot", ("Quick",), datasets=("digits",))
    with pytest.raises(SweepError, match="no published setting of Quick"):
        expanded("few_shot", ("Quick",), datasets=("digits",), config="")


@pytest.mark.parametrize("protocol", ["base2new", "few_shot", "cross_dataset"])
def test_defaults_are_the_papers_settings_and_data_sets(protocol):
    trainers = ("ZeroshotCLIP", "CoOp", "QCoOp", "CoCoOp", "QCoCoOp", "MaPLe", "QMaPLe")
    trainers += ("VPT", "QVPT", "IVLP", "QIVLP", "PromptSRC", "QPromptSRC")
    jobs = expanded(protocol, trainers, config="")
    for job in jobs:
        for run in job.runs:
            cfg = train.setup_cfg(train.parse_args(run.argv))
            assert cfg.MODEL.BACKBONE.NAME == "ViT-B/16" and cfg.DATASET.NAME
    epochs = {
        (job.dataset, cfg.TRAINER.NAME): cfg.OPTIM.MAX_EPOCH
        for job in jobs
        for cfg in [train.setup_cfg(train.parse_args(job.training.argv))]
    }
    assert epochs["imagenet", "CoOp"] == epochs["imagenet", "QCoOp"] == 50
    assert epochs["imagenet", "MaPLe"] == (2 if protocol == "cross_dataset" else 5)
    assert epochs["imagenet", "CoCoOp"] == 10
    assert epochs["imagenet", "PromptSRC"] == epochs["imagenet", "QPromptSRC"]
    assert epochs["imagenet", "PromptSRC"] == (50 if protocol == "few_shot" else 20)
    if protocol != "cross_dataset":
        assert len({dataset for dataset, _ in epochs}) == BENCHMARK
        assert epochs["eurosat", "CoOp"] == 200


@pytest.mark.parametrize("trainer", ["CoOp", "QCoOp", "ProGrad"])
def test_few_shot_epochs_follow_the_shots(trainer):
    """As in the papers of CoOp and ProGrad, unless a configuration or its epochs are named."""
    common = {"datasets": ("eurosat", "imagenet"), "shots": (1, 2, 4, 8, 16)}

    def epochs(**options):
        jobs = expanded("few_shot", (trainer,), **common, **options)
        found = [train.setup_cfg(train.parse_args(job.training.argv)) for job in jobs]
        return [cfg.OPTIM.MAX_EPOCH for cfg in found]

    assert epochs(config="") == [50, 100, 100, 200, 200] + [50] * 5
    assert epochs(config="vit_b16_ctxv1") == [200] * 10
    assert epochs(config="", opts={"OPTIM.MAX_EPOCH": 7}) == [7] * 10


def test_few_shot_weights_of_epochs_follow_the_data_set():
    jobs = expanded("few_shot", ("QPromptSRC",), datasets=("imagenet", "eurosat"), config="")
    found = [train.setup_cfg(train.parse_args(job.training.argv)) for job in jobs]
    weights = [(cfg.TRAINER.PROMPTSRC.GPA_MEAN, cfg.TRAINER.PROMPTSRC.GPA_STD) for cfg in found]
    assert weights == [(30, 30), (45, 5)]


def test_opts_reach_every_run():
    (job,) = expanded(
        "base2new", datasets=("digits",), opts={"OPTIM.LR": 0.5, "INPUT.SIZE": [8, 8]}
    )
    for run in job.runs:
        cfg = train.setup_cfg(train.parse_args(run.argv))
        assert cfg.OPTIM.LR == 0.5 and tuple(cfg.INPUT.SIZE) == (8, 8)


def test_grids_share_a_training_run_that_both_ask_for():
    common = {"trainers": ("QCoOp",), "config": "tiny", "seeds": (1,)}
    grids = [
        Grid("few_shot", datasets=("digits",), **common),
        Grid("domain_generalization", source="digits", **common),
        Grid("cross_dataset", source="digits", datasets=("eurosat", "digits_blur"), **common),
    ]
    (job,) = expand(grids, "DATA", "out")
    assert len(job.evaluations) == 4 + 1  # both test on digits_blur
    assert len({run.folder for run in job.runs}) == len(job.runs)


def test_grids_that_disagree_about_a_folder_are_refused():
    grids = [
        Grid("few_shot", ("CoOp",), ("digits",), config="tiny", opts={"OPTIM.MAX_EPOCH": epochs})
        for epochs in (1, 2)
    ]
    with pytest.raises(SweepError, match="different runs in out/digits/CoOp"):
        expand(grids, "DATA", "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainers": ("QCoop",)}, 'Unknown TRAINER "QCoop". Did you mean QCoOp'),
        ({"datasets": ("digit",)}, 'Unknown data set "digit". Did you mean digits'),
        ({"config": "tin"}, 'configuration of QCoOp "tin". Did you mean tiny'),
    ],
)
def test_unknown_names_are_refused(change, message):
    with pytest.raises(UnknownNameError, match=message):
        expanded("base2new", **{"datasets": ("digits",), **change})


def test_transfer_from_another_source_needs_its_targets():
    with pytest.raises(SweepError, match="from imagenet, characters only"):
        expanded("cross_dataset", source="eurosat")


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs/sweeps").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_sweeps_open_with_their_command_and_expand(path):
    name = path.relative_to(REPOSITORY)
    command = path.read_text().splitlines()[0].removeprefix("# python train.py ")
    args = train.parse_args(shlex.split(command))
    assert args.sweep == str(name) and args.root and args.output_dir
    for job in expand(read_grids(str(path)), "DATA", "out"):
        if job.training.folder.name == "seed1":
            Options.from_cfg(train.setup_cfg(train.parse_args(job.training.argv)))


def test_demo_has_nine_settings_and_ten_seeds_of_coop():
    jobs = expand(read_grids(str(REPOSITORY / "configs/sweeps/demo.yaml")), "DATA", "out")
    settings = Counter(job.training.folder.parent for job in jobs)
    assert len(settings) == 9
    for folder, seeds in settings.items():
        assert seeds == (10 if folder.parent.name in ("CoOp", "QCoOp") else 3)
    assert {options(run)[1] for job in jobs for run in job.runs} == {"base", "new"}
