"""Evaluation has the settings of training: taken from the run, and never silently contradicted."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import qprompt
import train
from dassl.data.transforms import build_transform
from qprompt.dassl_config import describe_data

LEARNER = "prompt_learner"
OTHERWISE = {  # than the default, and of no tensor's shape but for BITS
    "TRAINER.COOP.CLASS_TOKEN_POSITION": "front",
    "TRAINER.QPROMPT.BITS": 3,
    "TRAINER.QPROMPT.NORMALIZE": False,
    "TRAINER.QPROMPT.CODEBOOK": "uniform",
}
EPOCH = ["OPTIM.MAX_EPOCH", 1]


def pairs(settings):
    return [word for pair in settings.items() for word in pair]


@pytest.fixture
def run(build, tmp_path):
    """The folder of a QCoOp run with settings of its own."""
    build("QCoOp", tmp_path / "run", opts=pairs(OTHERWISE) + EPOCH).train()
    return tmp_path / "run"


def without_settings(path):
    """Write a packed prompt as version 0.1.0 did."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    for key in ("settings", "input", "sha256"):
        del metadata[key]
    save_file(tensors, path, {**metadata, "format_version": "1"})


def settings(*flags):
    """The configuration of an evaluation, by dotted keys as above."""
    cfg = train.setup_cfg(train.parse_args(["--eval-only", *map(str, flags)]))
    return {key: cfg.TRAINER[key.split(".")[1]][key.split(".")[2]] for key in OTHERWISE}


@pytest.mark.parametrize(
    "weights",
    [
        ["--model-dir", "{run}"],
        ["--model-dir", "{run}/prompt_learner/prompt.safetensors"],
        ["MODEL.INIT_WEIGHTS", "{run}/prompt_learner/prompt.safetensors"],
    ],
)
def test_the_settings_of_the_run_need_not_be_given_again(main, run, result, tmp_path, weights):
    weights = [word.format(run=run) for word in weights]
    flags, opts = (weights, []) if weights[0].startswith("--") else ([], weights)
    main("QCoOp", tmp_path / "eval", "--eval-only", *flags, opts=opts + EPOCH)
    assert result(tmp_path / "eval")["metrics"] == result(run)["metrics"]
    trainer = result(tmp_path / "eval")["config"]["TRAINER"]
    assert trainer["COOP"]["CLASS_TOKEN_POSITION"] == "front"
    assert trainer["QPROMPT"] == result(run)["config"]["TRAINER"]["QPROMPT"]


@pytest.mark.parametrize("weights", [".", f"{LEARNER}/prompt.safetensors"])
def test_not_even_trainer_and_configuration_file_need_to_be(
    run, result, tmp_path, data_root, weights
):
    argv = ["--root", data_root, "--dataset-config-file", "configs/datasets/digits.yaml"]
    argv += ["--eval-only", "--model-dir", run / weights, "--output-dir", tmp_path / "eval"]
    argv += ["DATASET.NUM_SHOTS", 4, "DATASET.SUBSAMPLE_CLASSES", "base"]
    train.main([*map(str, argv), "DATALOADER.NUM_WORKERS", "0", "TRAINER.COOP.PREC", "fp32"])
    assert result(tmp_path / "eval")["metrics"] == result(run)["metrics"]


def test_a_run_whose_checkpoints_are_a_link_to_elsewhere_is_found(run, tmp_path):
    (run / LEARNER).rename(tmp_path / "elsewhere")
    (run / LEARNER).symlink_to(tmp_path / "elsewhere")
    path = run / LEARNER / "prompt.safetensors"
    without_settings(path)
    assert settings("--model-dir", path) == OTHERWISE


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["TRAINER.QPROMPT.BITS", 1], "TRAINER.QPROMPT.BITS is 1, and was 3"),
        (
            ["TRAINER.COOP.CLASS_TOKEN_POSITION", "end"],
            'TRAINER.COOP.CLASS_TOKEN_POSITION is "end", and was "front"',
        ),
        (["TRAINER.COOP.CTX_INIT", "a photo"], 'COOP.CTX_INIT is "a photo", and was ""'),
        (["INPUT.INTERPOLATION", "nearest"], 'ION is "nearest", and was "bicubic"'),
        (["--backbone", "ViT-B/16"], 'MODEL.BACKBONE.NAME is "ViT-B/16", and was "tiny"'),
        (["--trainer", "QCoCoOp"], 'TRAINER.NAME is "QCoCoOp", and was "QCoOp"'),
    ],
)
def test_contradictions_name_key_values_and_file(main, run, words, message, packed, tmp_path):
    origin = run / LEARNER / "prompt.safetensors" if packed else run / "config.json"
    flags, opts = (words, []) if words[0].startswith("--") else ([], words)
    flags = [*flags, "--eval-only", "--model-dir", str(origin if packed else run)]
    with pytest.raises(SystemExit) as error:
        main("QCoOp", tmp_path / "eval", *flags, opts=opts)
    assert error.value.code.startswith(f'error: "{origin}" says')
    assert message in error.value.code and "--use-given-settings" in error.value.code
    assert not (tmp_path / "eval").exists()


def test_a_configuration_file_gives_way_to_the_run(run, tmp_path, capsys):
    file = tmp_path / "other.yaml"
    file.write_text('{TRAINER: {COOP: {CLASS_TOKEN_POSITION: "middle"}}}')
    argv = ["--eval-only", "--config-file", str(file), "--model-dir", str(run)]
    cfg = train.setup_cfg(train.parse_args(argv))
    assert cfg.TRAINER.COOP.CLASS_TOKEN_POSITION == "front"
    line = f'CLASS_TOKEN_POSITION is "front", as "{run}/config.json" says, not "middle"'
    assert line in capsys.readouterr().out
    cfg = train.setup_cfg(train.parse_args([*argv, "--use-given-settings"]))
    assert cfg.TRAINER.COOP.CLASS_TOKEN_POSITION == "middle"


def test_what_does_not_shape_the_prompt_is_free(run, tmp_path):
    free = {
        "DATASET.NAME": "Characters",
        "DATASET.SUBSAMPLE_CLASSES": "new",
        "SEED": 5,
        "DATALOADER.TEST.BATCH_SIZE": 7,
        "TEST.PER_CLASS_RESULT": True,
        "TRAINER.COOP.PREC": "bf16",
        "TRAINER.COCOOP.N_CTX": 3,  # of another trainer
    }
    given = {key: str(value) for key, value in free.items()}
    assert settings("--model-dir", run, *pairs(given)) == OTHERWISE


def test_nothing_is_taken_for_training_or_from_nowhere(run):
    cfg = train.setup_cfg(train.parse_args(["--model-dir", str(run)]))
    assert cfg.TRAINER.QPROMPT.BITS == 1
    nowhere = ["--model-dir", run / "nowhere"]
    assert settings(*nowhere, "--trainer", "QCoOp")["TRAINER.QPROMPT.BITS"] == 1
    with pytest.raises(train.UserError, match='nowhere" is missing'):
        settings(*nowhere)
    with pytest.raises(train.UserError, match="does not say whose it is: give --trainer"):
        settings("--model-dir", run / LEARNER)


@pytest.mark.parametrize("transforms", ["['random_flip']", "['normalize']"])
@pytest.mark.parametrize("given", ["['random_flip']", "['normalize']"])
def test_a_packed_prompt_alone_says_how_images_are_prepared(tmp_path, transforms, given):
    def configure(*words):
        return train.setup_cfg(train.parse_args(words))

    size = ["INPUT.SIZE", "(32, 48)", "INPUT.PIXEL_STD", "[1, 2, 3]"]
    trained = configure("INPUT.TRANSFORMS", transforms, "INPUT.INTERPOLATION", "nearest", *size)
    path, learner = tmp_path / "alone.safetensors", torch.nn.Embedding(4, 8)
    qprompt.quantize_(learner)
    about = {"trainer": "QCoOp", "settings": '{"COOP":{}}', **describe_data(trained, None)}
    qprompt.pack(learner, path, **about)
    file = tmp_path / "given.yaml"
    file.write_text(f"INPUT: {{TRANSFORMS: {given}, INTERPOLATION: bicubic}}")
    found = configure("--eval-only", "--model-dir", str(path), "--config-file", str(file))
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (50, 40, 3), np.uint8))
    pixels = [build_transform(cfg, is_train=False)(picture) for cfg in (trained, found)]
    assert torch.equal(*pixels)


def test_a_checkpoint_shows_what_its_quantizers_do(build, main, result, tmp_path):
    """Where there is no config.json, as in the folders of other repositories."""
    opts = ["TRAINER.QPROMPT.PARAMS", "compound_prompts_text", "TRAINER.QPROMPT.BITS", 2]
    trained = build("QMaPLe", tmp_path / "run", opts=opts + EPOCH)
    trained.train()
    (tmp_path / "run" / "config.json").unlink()
    flags = ["--eval-only", "--model-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="tar-1.*BITS is 3, and was 2"):
        main("QMaPLe", tmp_path / "eval", *flags, opts=["TRAINER.QPROMPT.BITS", 3])
    main("QMaPLe", tmp_path / "eval", *flags)  # 4 in its configuration file
    assert result(tmp_path / "eval")["metrics"] == result(tmp_path / "run")["metrics"]
    config = result(tmp_path / "eval")["config"]["TRAINER"]["QPROMPT"]
    assert config["PARAMS"].count("compound_prompts_text") == 2


def test_plain_weights_may_be_quantized_and_packed_ones_read_plainly(
    build, main, run, result, tmp_path
):
    opts = ["TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"]
    build("CoOp", tmp_path / "plain", opts=opts + EPOCH).train()
    new = ["TRAINER.QPROMPT.BITS", 2]
    main("QCoOp", tmp_path / "a", "--eval-only", "--model-dir", str(tmp_path / "plain"), opts=new)
    checkpoint = tmp_path / "plain" / LEARNER / "model.pth.tar-1"
    main("QCoOp", tmp_path / "b", "--eval-only", opts=[*new, "MODEL.INIT_WEIGHTS", checkpoint])
    assert result(tmp_path / "a")["metrics"] == result(tmp_path / "b")["metrics"]
    for name in "ab":
        assert result(tmp_path / name)["bits"] == 2
        config = result(tmp_path / name)["config"]["TRAINER"]
        assert config["COOP"]["CLASS_TOKEN_POSITION"] == "middle"

    packed = str(run / LEARNER / "prompt.safetensors")
    main("CoOp", tmp_path / "c", "--eval-only", "--model-dir", packed)
    assert result(tmp_path / "c")["metrics"] == result(run)["metrics"]
    with pytest.raises(SystemExit, match='TRAINER.NAME is "CoOp", and was "QCoOp"'):
        main("CoOp", tmp_path / "d", "--eval-only", "--model-dir", str(run))


def test_packed_prompts_of_the_first_release(run, tmp_path):
    path = run / LEARNER / "prompt.safetensors"
    without_settings(path)
    assert settings("--model-dir", path) == OTHERWISE  # from config.json of its run
    alone = path.rename(tmp_path / "alone.safetensors")
    with (
        pytest.warns(UserWarning, match="INPUT keeps the defaults"),
        pytest.warns(UserWarning, match="does not say which settings.*lies outside its run"),
    ):
        assert settings("--model-dir", alone)["TRAINER.QPROMPT.BITS"] == 3


def test_records_that_cannot_be_read_are_named(run):
    (run / "config.json").write_text(json.dumps({"architectures": ["CLIPModel"]}))
    with pytest.raises(train.UserError, match='config.json" is not the record of a run'):
        settings("--model-dir", run)
