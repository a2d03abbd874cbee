"""The mixin on trainers that follow the contract of a host codebase, written here."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from qprompt import InvalidOptionError, NoParameterError, named_quantizers, read_metadata, unpack
from qprompt.dassl import Quantized, add_config

BEST = "model-best.pth.tar"


class Host:
    """The life cycle of Dassl's TrainerX, without data."""

    epochs, steps = 3, 4

    def __init__(self, cfg):
        self._models, self._optims = {}, {}
        self.check_cfg(cfg)
        self.cfg = cfg
        self.log, self.tests = [], []
        self.build_data_loader()
        self.build_model()

    def check_cfg(self, cfg):
        pass

    def build_data_loader(self):
        pass

    def register_model(self, name, model, optim):
        self._models[name], self._optims[name] = model, optim

    def train(self):
        for self.epoch in range(self.epochs):  # noqa: B020
            for _ in range(self.steps):
                self.log.append(self.forward_backward({}))
            if self.epoch == 1:
                self.save_model(self.epoch, self.cfg.OUTPUT_DIR, val_result=1.0, model_name=BEST)
        self.save_model(self.epoch, self.cfg.OUTPUT_DIR)
        self.after_train()

    def after_train(self):
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            self.load_model(self.cfg.OUTPUT_DIR)
        self.test()

    def test(self):
        with torch.no_grad():
            self.tests.append(self.logits())

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        for name, model in self._models.items():
            folder = os.path.join(directory, name)
            os.makedirs(folder, exist_ok=True)
            state = {"state_dict": model.state_dict(), "optimizer": self._optims[name].state_dict()}
            torch.save(state, os.path.join(folder, model_name or "model.pth.tar-last"))

    def load_model(self, directory, epoch=None):
        if not directory:
            return
        for name, model in self._models.items():
            best = os.path.join(directory, name, BEST)
            last = os.path.join(directory, name, "model.pth.tar-last")
            path = best if epoch is None and os.path.exists(best) else last
            state = torch.load(path, weights_only=False)["state_dict"]
            state.pop("token_prefix", None)
            model.load_state_dict(state, strict=False)

    def resume(self, directory):
        for name, model in self._models.items():
            path = os.path.join(directory, name, "model.pth.tar-last")
            checkpoint = torch.load(path, weights_only=False)
            model.load_state_dict(checkpoint["state_dict"])
            self._optims[name].load_state_dict(checkpoint["optimizer"])


class CoOp(Host):
    """Registers the prompt learner alone."""

    make_learner = None

    def build_model(self):
        learner = type(self).make_learner()
        self.model = nn.ModuleDict({"prompt_learner": learner})
        optim = torch.optim.SGD(learner.parameters(), lr=0.02, momentum=0.9)
        self.register_model("prompt_learner", learner, optim)

    @property
    def learner(self):
        return self.model["prompt_learner"]

    def logits(self):
        return self.learner(torch.ones(1, 8))

    def forward_backward(self, batch):
        loss = self.logits()
        (optim,) = self._optims.values()
        optim.zero_grad()
        loss.backward()
        optim.step()
        return {"loss": loss.item()}


class MaPLe(CoOp):
    """Registers the whole model, frozen image encoder included, and wraps it."""

    def build_model(self):
        super().build_model()
        self.model["image_encoder"] = nn.Linear(8, 8).requires_grad_(False)
        optim = self._optims.popitem()[1]
        self._models.clear()
        self.register_model("MultiModalPromptLearner", nn.DataParallel(self.model), optim)


class QCoOp(Quantized, CoOp):
    pass


class QMaPLe(Quantized, MaPLe):
    pass


@pytest.fixture(autouse=True)
def _learner(make_learner, monkeypatch):
    monkeypatch.setattr(CoOp, "make_learner", make_learner)


@pytest.fixture
def cfg(tmp_path):
    cfg = CfgNode()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.MODEL = CfgNode({"BACKBONE": {"NAME": "ViT-B/16"}})
    cfg.TEST = CfgNode({"FINAL_MODEL": "last_step"})
    cfg.TRAINER = CfgNode(
        {"NAME": "", "MAPLE": {"CTX_INIT": "a bad photo"}, "COOP": {"CTX_INIT": "a photo of a"}}
    )
    return cfg


def with_options(cfg, **options):
    add_config(cfg)
    for name, value in options.items():
        setattr(cfg.TRAINER.QPROMPT, name, value)
    return cfg


def path_of(cfg, model="prompt_learner", name="prompt.safetensors"):
    return os.path.join(cfg.OUTPUT_DIR, model, name)


def test_defaults_apply_without_the_node(cfg):
    trainer = QCoOp(cfg)
    assert {q.bits for _, q in named_quantizers(trainer.learner)} == {1}
    assert len(trainer.learner.ctx.unique()) == 2
    assert list(cfg.TRAINER) == ["NAME", "MAPLE", "COOP"]


def test_config_node_is_settable_and_added_once(cfg):
    add_config(cfg)
    cfg.merge_from_list(["TRAINER.QPROMPT.BITS", 3, "TRAINER.QPROMPT.PARAMS", "ctx"])
    add_config(cfg)
    assert set(cfg.TRAINER.QPROMPT) == {
        "BITS", "NORMALIZE", "INTERVAL", "KL_THRESHOLD", "MODE", "CODEBOOK", "PARAMS",
    }  # fmt: skip
    ((name, quantizer),) = named_quantizers(QCoOp(cfg).learner)
    assert name == "ctx" and quantizer.bits == 3


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
        ({"PARAMS": "("}, "TRAINER.QPROMPT: "),
    ],
)
def test_bad_options_are_found_before_anything_is_built(cfg, monkeypatch, options, message):
    monkeypatch.setattr(CoOp, "build_data_loader", lambda self: pytest.fail("data were loaded"))
    with pytest.raises(InvalidOptionError, match=message):
        QCoOp(with_options(cfg, **options))


def test_params_that_match_nothing(cfg):
    with pytest.raises(NoParameterError, match="matching 'prompt'.*ctx"):
        QCoOp(with_options(cfg, PARAMS="prompt"))


@pytest.mark.parametrize("trainer_class", [QCoOp, QMaPLe])
@pytest.mark.parametrize("final", ["last_step", "best_val"])
@pytest.mark.parametrize("mode", ["qat", "ptq"])
def test_training_then_evaluation_only(cfg, trainer_class, final, mode):
    with_options(cfg, BITS=2, MODE=mode, INTERVAL=2, KL_THRESHOLD=0.0)
    cfg.TEST.FINAL_MODEL = final
    trainer = trainer_class(cfg)
    trainer.train()
    assert len(trainer.learner.ctx.unique()) <= 4

    for _ in range(2):
        evaluated = trainer_class(cfg)
        evaluated.load_model(cfg.OUTPUT_DIR, None if final == "best_val" else 3)
        evaluated.test()
        assert torch.equal(evaluated.tests[0], trainer.tests[-1])
        assert torch.equal(evaluated.learner.ctx, trainer.learner.ctx)

    model, prefix = next(iter(trainer._models)), ""
    if trainer_class is QMaPLe:
        prefix = "prompt_learner."
    name = "prompt-best.safetensors" if final == "best_val" else "prompt.safetensors"
    packed = unpack(path_of(cfg, model, name))
    assert torch.equal(packed[prefix + "ctx"], trainer.learner.ctx)
    assert all(key.startswith(prefix) for key in packed) and len(packed) == 6
    assert read_metadata(path_of(cfg, model, name)) == {
        "trainer": trainer_class.__name__,
        "backbone": "ViT-B/16",
        "ctx_init": "a photo of a" if trainer_class is QCoOp else "a bad photo",
        "epoch": "2" if final == "best_val" else "3",
    }


def test_post_training_quantization_trains_and_saves_the_plain_model(cfg, tmp_path):
    with_options(cfg, BITS=2, MODE="ptq")
    trainer = QCoOp(cfg)
    trainer.train()
    plain_cfg = cfg.clone()
    plain_cfg.OUTPUT_DIR = str(tmp_path / "plain")
    plain = CoOp(plain_cfg)
    plain.train()
    assert trainer.log == plain.log
    saved, expected = (
        torch.load(path_of(c, name="model.pth.tar-last"), weights_only=False)["state_dict"]
        for c in (cfg, plain_cfg)
    )
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], expected[key]) for key in saved)
    assert not torch.equal(trainer.tests[0], plain.tests[0])


def test_refits_are_counted_and_logged(cfg):
    trainer = QCoOp(with_options(cfg, BITS=2, INTERVAL=5, KL_THRESHOLD=0.0))
    trainer.train()
    refits = [entry["refits"] for entry in trainer.log]
    assert all(type(number) is float for number in refits)
    assert refits[:4] == [0.0] * 4 and sum(refits) > 0
    summary = trainer.run_summary()
    assert summary["codebook_fits"] == sum(refits) + 5
    quantized, bias = 4 * 64 + 3 * 2 * 32 + 6 * 8, 6
    assert summary["stored_bytes"] == quantized * 2 // 8 + 5 * 4 * 2 + bias * 2
    assert summary["bits"] == 2


def test_summary_extends_that_of_the_host(cfg, monkeypatch):
    host = {"stored_bytes": 7, "more": 1}
    monkeypatch.setattr(CoOp, "run_summary", lambda self: host, raising=False)
    summary = QCoOp(cfg).run_summary()
    assert summary["more"] == 1 and summary["stored_bytes"] > 7
    unquantized = QCoOp(with_options(cfg, MODE="ptq"))
    assert unquantized.run_summary() == {**host, "bits": None}


def test_resume_in_the_middle_is_the_same_run(cfg):
    with_options(cfg, BITS=2, INTERVAL=2, KL_THRESHOLD=0.0)
    first = QCoOp(cfg)
    first.train()
    second = QCoOp(cfg)
    second.resume(cfg.OUTPUT_DIR)
    for _ in range(6):
        assert first.forward_backward({}) == second.forward_backward({})
    assert torch.equal(first.learner.ctx, second.learner.ctx)


def test_quantized_training_loads_a_plain_checkpoint(cfg, capsys):
    CoOp(cfg).train()
    trainer = QCoOp(with_options(cfg, BITS=2))
    trainer.load_model(cfg.OUTPUT_DIR)
    ptq = QCoOp(with_options(cfg, BITS=2, MODE="ptq"))
    ptq.load_model(cfg.OUTPUT_DIR)
    assert torch.equal(trainer.learner.ctx, ptq.learner.ctx)
    assert (
        "QPrompt: ctx, bits=2, codebook=kmeans, normalize=True, fits=1" in capsys.readouterr().out
    )


def test_checkpoint_without_the_prompt_is_reported(cfg, capsys):
    trainer = QCoOp(cfg)
    trainer.learner.load_state_dict({"proj.bias": torch.ones(6)}, strict=False)
    printed = capsys.readouterr().out
    assert "the checkpoint lacks" in printed and " parametrizations.ctx.original" in printed
    assert "frozen" not in printed and "bias" not in printed


def test_best_flag_of_save_model_writes_both_files(cfg):
    trainer = QCoOp(cfg)
    trainer.save_model(0, cfg.OUTPUT_DIR, is_best=True)
    assert os.path.exists(path_of(cfg))
    assert os.path.exists(path_of(cfg, name="prompt-best.safetensors"))
    os.unlink(path_of(cfg))
    trainer.save_model(0, cfg.OUTPUT_DIR, False, val_result=1.0, model_name=BEST)
    assert not os.path.exists(path_of(cfg))


def test_saving_for_ptq_leaves_the_weights_as_they_were(cfg):
    trainer = QCoOp(with_options(cfg, MODE="ptq"))
    held, value = trainer.learner.ctx, trainer.learner.ctx.detach().clone()
    trainer.save_model(0, cfg.OUTPUT_DIR)
    assert trainer.learner.ctx is held and torch.equal(held, value)
    assert len(unpack(path_of(cfg))["ctx"].unique()) == 2


def test_context_initialisation_of_other_trainers(cfg):
    class QKgCoOp(Quantized, CoOp):
        pass

    cfg.TRAINER.COOP.CTX_INIT = ""
    assert QKgCoOp(cfg).packed_metadata()["ctx_init"] == ""
    cfg.TRAINER.pop("COOP")
    assert QKgCoOp(cfg).packed_metadata()["ctx_init"] == "a bad photo"


def test_configurations_that_are_not_yacs():
    cfg = SimpleNamespace(TRAINER=SimpleNamespace())
    add_config(cfg)
    assert cfg.TRAINER.QPROMPT.BITS == 1
