"""Options of the mixin; tests/hosts shows what it does to trainers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from yacs.config import CfgNode

from qprompt import InvalidOptionError
from qprompt.dassl import Options, add_config


@pytest.fixture
def cfg():
    return CfgNode({"TRAINER": {"NAME": ""}})


def test_config_node_is_settable_and_added_once(cfg):
    add_config(cfg)
    assert Options.from_cfg(cfg) == Options()
    cfg.merge_from_list(["TRAINER.QPROMPT.BITS", 3, "TRAINER.QPROMPT.PARAMS", "ctx"])
    add_config(cfg)
    assert set(cfg.TRAINER.QPROMPT) == {
        "BITS", "NORMALIZE", "INTERVAL", "KL_THRESHOLD", "MODE", "CODEBOOK", "PARAMS",
        "NOISE_STD", "NOISE_RELATIVE", "HALF_LATENTS", "THROUGH_MOMENTS", "STATISTICS",
    }  # fmt: skip
    assert Options.from_cfg(cfg) == Options(bits=3, params="ctx")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"BITS": 9}, "TRAINER.QPROMPT: bits .* got 9"),
        ({"MODE": "qta"}, "mode must be one of .*'qta'"),
        ({"MODE": "none"}, "mode must be one of .*'none'"),
        ({"CODEBOOK": "median"}, "'median'"),
        ({"INTERVAL": 0}, "interval .* got 0"),
        ({"KL_THRESHOLD": -1.0}, "kl_threshold .* got -1.0"),
        ({"NORMALIZE": "yes"}, "normalize must be a bool, got 'yes'"),
        ({"HALF_LATENTS": 1}, "half_latents must be a bool, got 1"),
        ({"THROUGH_MOMENTS": "no"}, "through_moments must be a bool, got 'no'"),
        ({"PARAMS": "("}, "TRAINER.QPROMPT: "),
    ],
)
def test_bad_options(cfg, options, message):
    cfg.TRAINER.QPROMPT = CfgNode(options)
    with pytest.raises(InvalidOptionError, match=message):
        Options.from_cfg(cfg)


def test_configurations_that_are_not_yacs():
    cfg = SimpleNamespace(TRAINER=SimpleNamespace())
    add_config(cfg)
    assert cfg.TRAINER.QPROMPT.BITS == 1
