import os

import pytest
import yaml
from yacs.config import CfgNode as YacsNode

from dassl.config import UnknownConfigKeyError, clean_cfg, get_cfg_default
from dassl.utils import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = YacsNode()  # as hosts' extend_cfg adds it
    cfg.TRAINER.COOP.N_CTX = 16
    cfg.TRAINER.COOP.CTX_INIT = ""
    cfg.TRAINER.MAPLE = YacsNode({"N_CTX": 2})
    return cfg


def test_defaults_are_independent_copies():
    get_cfg_default().OPTIM.LR = 9.0
    assert get_cfg_default().OPTIM.LR == 0.0003
    assert get_cfg_default().DATASET.SUBSAMPLE_CLASSES == "all"


def test_a_file_read_again_says_what_it_says_now(cfg, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("DATASET: {TEMPLATE: [a photo of a]}")
    cfg.merge_from_file(path)
    cfg.DATASET.TEMPLATE.append("a drawing of a")
    cfg.merge_from_file(path)
    assert cfg.DATASET.TEMPLATE == ["a photo of a"]
    path.write_text("DATASET: {TEMPLATE: [a sketch of a]}")
    cfg.merge_from_file(path)
    assert cfg.DATASET.TEMPLATE == ["a sketch of a"]


def test_file_and_options_reach_nodes_of_hosts(cfg, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "INPUT:\n  SIZE: [32, 32]\nOPTIM:\n  LR: 1\n  WARMUP_CONS_LR: 1e-5\n"
        "TRAINER:\n  COOP:\n    N_CTX: 4\n    CTX_INIT: a photo of a\nDATALOADER: {}\n"
    )
    cfg.merge_from_file(path)
    assert cfg.INPUT.SIZE == (32, 32)
    assert cfg.OPTIM.LR == 1.0 and isinstance(cfg.OPTIM.LR, float)
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5
    assert (cfg.TRAINER.COOP.N_CTX, cfg.TRAINER.COOP.CTX_INIT) == (4, "a photo of a")
    assert cfg.DATALOADER.NUM_WORKERS == 4
    cfg.merge_from_list(["TRAINER.COOP.N_CTX", "8", "USE_CUDA", "False"])
    assert cfg.TRAINER.COOP.N_CTX == 8 and cfg.USE_CUDA is False
    other = cfg.clone()
    other.SEED = 0
    cfg.merge_from_other_cfg(other)
    assert cfg.SEED == 0


@pytest.mark.parametrize(
    ("yaml", "key", "close"),
    [
        ("OPTIM:\n  LRR: 0.1\n", "OPTIM.LRR", "OPTIM.LR"),
        ("OPTIMM:\n  LR: 0.1\n", "OPTIMM.LR", "OPTIM.LR"),
        ("SEEDS: 1\n", "SEEDS", "SEED"),
        ("TRAINER:\n  COOP:\n    NCTX: 4\n", "TRAINER.COOP.NCTX", "TRAINER.COOP.N_CTX"),
        ("trainer:\n  coop:\n    n_ctx: 4\n", "trainer.coop.n_ctx", "TRAINER.COOP.N_CTX"),
        ("SEED:\n  VALUE: 4\n", "SEED.VALUE", "SEED"),
    ],
)
def test_unknown_key_names_key_file_and_nearest(cfg, tmp_path, yaml, key, close):
    path = tmp_path / "typo.yaml"
    path.write_text(yaml)
    with pytest.raises(UnknownConfigKeyError) as error:
        cfg.merge_from_file(path)
    assert all(part in str(error.value) for part in (f'"{key}"', str(path), f'"{close}"'))
    with pytest.raises(KeyError, match=f'"{close}"'):
        cfg.merge_from_list([key, 1])


def test_bad_values(cfg, tmp_path):
    with pytest.raises(ValueError, match="OPTIM.MAX_EPOCH.*int.*'many'"):
        cfg.merge_from_list(["OPTIM.MAX_EPOCH", "many"])
    with pytest.raises(ValueError, match="OPTIM.*section"):
        cfg.merge_from_list(["OPTIM", 3])
    with pytest.raises(ValueError, match="SEED"):
        cfg.merge_from_list(["SEED"])
    path = tmp_path / "broken.yaml"
    path.write_text("A: [1\n")
    with pytest.raises(ValueError, match="broken.yaml"):
        cfg.merge_from_file(path)
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.merge_from_list(["SEED", 3])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SEED", 2**64, f"must be {2**64 - 1} or less"),
        ("DATALOADER.NUM_WORKERS", -1, "must be 0 or more, got -1"),
        ("DATALOADER.PIXEL_CACHE_MB", -1, "must be 0 or more"),
        ("DATALOADER.TRAIN_X.BATCH_SIZE", 0, "must be 1 or more, got 0"),
        ("DATALOADER.TEST.BATCH_SIZE", 0, "must be 1 or more"),
        ("OPTIM.MAX_EPOCH", -5, "must be 0 or more"),
        ("OPTIM.LR", ".nan", "must be 0 or more"),
        ("OPTIM.LR", ".inf", "must be 0 or more"),
        ("INPUT.SIZE", "[]", r"must be 2 whole numbers, each 1 or more, got \(\)"),
        ("INPUT.PIXEL_STD", "[0, 1, 1]", "must be 3 numbers, each 1e-06 or more"),
        ("INPUT.RRCROP_SCALE", "[1.0, 0.08]", "must be 2 numbers above 0 in ascending order"),
        ("OPTIM.ADAM_BETA1", 1.0, "must be 0 or more and below 1, got 1.0"),
        ("TRAINER.TIPADAPTER.SEARCH_STEP", "[1.5, 2]", "must be 2 whole numbers, each 1 or more"),
        ("OPTIM.STEPSIZE", "[]", "must be 1 or more numbers"),
        ("OPTIM.STEPSIZE", "[1, a]", r"must hold numbers .*, got 'a'"),
        ("OPTIM.LR", "null", r"must be a float \(default: 0.0003\), got None"),
        ("OPTIM.MAX_EPOCH", "null", "must be a int .*, got None"),
        ("TRAINER.COOP.CTX_INIT", "null", "must be a str .*, got None"),
        ("TRAINER.COOP.CTX_INIT", "[a]", "must be a str .*, got the list"),
        ("OUTPUT_DIR", "''", "must be the name of a folder, got ''"),
        ("OUTPUT_DIR", r'"\udcff"', r"must be UTF-8: rename it, got '\\udcff'"),
    ],
)
def test_a_value_out_of_range_names_key_origin_and_what_is_allowed(
    cfg, tmp_path, key, value, message
):
    path = tmp_path / "file.yaml"
    path.write_text(f"{key}: {value}")
    value = yaml.safe_load(str(value))
    origins = {f'the file "{path}"': lambda: cfg.merge_from_file(path)}
    origins["the command line"] = lambda: cfg.merge_from_list([key, value])
    for origin, merge in origins.items():
        with pytest.raises(UserError, match=f'^"{key}" in {origin} {message}') as caught:
            merge()
        assert "\n" not in str(caught.value)


WORDS = ["10", "007", "1e3", "1_000", "0x10", "yes", "True", "2024-01-01", "a: 10", "{[1]: 2}"]


@pytest.mark.parametrize("words", WORDS)
def test_a_text_may_look_like_something_else(cfg, tmp_path, words):
    path = tmp_path / "file.yaml"
    quoted = f"'{words}'" if ":" in words else words
    path.write_text(f"TRAINER:\n  COOP:\n    CTX_INIT: {quoted}\n")
    cfg.merge_from_file(path)
    assert words == cfg.TRAINER.COOP.CTX_INIT
    cfg.merge_from_list(["OUTPUT_DIR", words, "TRAINER.COOP.CTX_INIT", "'a photo'"])
    assert (words, "a photo") == (cfg.OUTPUT_DIR, cfg.TRAINER.COOP.CTX_INIT)
    cfg.merge_from_flags({"OUTPUT_DIR": "None", "DATASET.SOURCE_DOMAINS": ["a"]})
    assert (cfg.OUTPUT_DIR, cfg.DATASET.SOURCE_DOMAINS) == ("None", ("a",))


def test_home_is_found_in_files_and_options(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("DATASET:\n  ROOT: ~/data\n")
    (tmp_path / "file.yaml").write_text("_BASE_: ~/base.yaml\n")
    cfg.merge_from_file("~/file.yaml")
    cfg.merge_from_list(["RESUME", "~/run/"])
    assert (f"{tmp_path}/data", f"{tmp_path}/run/") == (cfg.DATASET.ROOT, cfg.RESUME)


def test_file_may_build_on_another(cfg, tmp_path):
    (tmp_path / "base.yaml").write_text("SEED: 5\nTRAINER:\n  COOP:\n    N_CTX: 4\n")
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "own.yaml"
    path.write_text("_BASE_: ../base.yaml\nSEED: 6\n")
    cfg.merge_from_file(path)
    assert (cfg.SEED, cfg.TRAINER.COOP.N_CTX) == (6, 4)


def test_new_allowed_nodes_take_new_keys(cfg):
    cfg.TRAINER.FREE = YacsNode(new_allowed=True)
    cfg.merge_from_list(["TRAINER.FREE.A.B", 3])
    assert cfg.TRAINER.FREE.A.B == 3


def test_clean_cfg(cfg):
    clean_cfg(cfg, "CoOp")
    assert set(cfg.TRAINER) == {"NAME", "COOP"}


def test_nothing_but_yaml_is_a_configuration(cfg, tmp_path):
    ran = tmp_path / "ran"
    program = tmp_path / "config.py"
    program.write_text(f"open({str(ran)!r}, 'w')\ncfg = dict(SEED=1)\n")
    file = tmp_path / "file.yaml"
    file.write_text("_BASE_: config.py\n")
    for path in (program, file):
        with pytest.raises(UserError, match="config.py"):
            cfg.merge_from_file(path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"_BASE_: file.yaml", "builds on itself"),
        (b"_BASE_: [file.yaml]", "must name a file"),
        (b"- SEED", "holds no keys and values"),
        (b"SEED", "holds no keys and values"),
        (b"SEED: 1\nVERBOSE: True\nSEED: 2", 'the key "SEED" stands there twice'),
        (b"OPTIM: {LR: 1, LR: 2}", 'the key "LR" stands there twice'),
        ("OUTPUT_DIR: \u00fc".encode("latin-1"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_no_configuration(cfg, tmp_path, content, message):
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        cfg.merge_from_file(file)
    assert len(str(caught.value)) < 1000


def test_long_values_do_not_fill_the_screen(cfg, tmp_path):
    lists = ["- &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        lists.append(f"- &{name} [{', '.join([f'*{before}'] * 9)}]")
    file = tmp_path / "bomb.yaml"  # 400 bytes that say 9^8 letters
    file.write_text("SEED:\n" + "\n".join(lists))
    with pytest.raises(UserError, match="SEED") as caught:
        cfg.merge_from_file(file)
    assert len(str(caught.value)) < 1000


def test_files_that_are_not_regular(cfg, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="no regular file"):
            cfg.merge_from_file(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop"):
        cfg.merge_from_file(tmp_path / "loop")


def test_byte_order_mark_of_windows_editors(cfg, tmp_path):
    file = tmp_path / "file.yaml"
    file.write_bytes(b"\xef\xbb\xbfSEED: 7\n")
    cfg.merge_from_file(file)
    assert cfg.SEED == 7
