"""`quantized`: the counterpart of any trainer of a host."""

from __future__ import annotations

import pytest

from qprompt import (
    InvalidOptionError,
    NoParameterError,
    named_quantizers,
)
from qprompt.dassl import Quantized, quantized

PROJECTIONS = [f"prompt_learner.compound_prompt_projections.{i}.weight" for i in range(2)]
DEEP = [f"prompt_learner.compound_prompts_text.{i}" for i in range(2)]
QUANTIZED = {
    "CoOp": {"ctx"},
    "CoCoOp": {"ctx", "meta_net.linear1.weight", "meta_net.linear2.weight"},
    "ProGrad": {"ctx"},
    "MaPLe": {"prompt_learner.ctx", "prompt_learner.proj.weight", *PROJECTIONS, *DEEP},
    "PromptSRC": {
        "prompt_learner.ctx",
        "image_encoder.VPT",
        "image_encoder.blocks.1.VPT_shallow",
        "image_encoder.blocks.2.VPT_shallow",
    },
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_counterpart_is_registered_and_quantizes_what_trains(host, name):
    plain = getattr(host.trainers, name)
    counterpart = quantized(plain)
    assert host.registry.get("Q" + name) is counterpart is quantized(plain)
    assert counterpart.__bases__ == (Quantized, plain)
    assert counterpart.__name__ == counterpart.__qualname__ == "Q" + name
    assert counterpart.__module__ == plain.__module__
    assert counterpart.__doc__ == f"{name} with K-Means-quantized prompts. {plain.__doc__}"

    run = host.build("Q" + name)  # without a node TRAINER.QPROMPT
    module = run.model.prompt_learner if run.name == "prompt_learner" else run.model
    found = dict(named_quantizers(module))
    assert set(found) == QUANTIZED[name]
    assert {quantizer.bits for quantizer in found.values()} == {1}
    for name in found:
        owner, _, attribute = name.rpartition(".")
        assert len(getattr(module.get_submodule(owner), attribute).unique()) == 2


def test_counterpart_from_a_file_of_its_own_is_found(host):
    @host.registry.register()
    class QMaPLe(Quantized, host.trainers.MaPLe):
        pass

    assert quantized(host.trainers.MaPLe) is QMaPLe


def test_name_of_another_class_is_not_taken(host):
    @host.registry.register()
    class QCoOp(host.trainers.CoCoOp):
        pass

    with pytest.raises(InvalidOptionError, match=r"'QCoOp' is registered .*QCoOp, .* rename"):
        quantized(host.trainers.CoOp)
    assert host.registry.get("QCoOp") is QCoOp


def test_quantized_trainers_have_no_counterpart(host):
    with pytest.raises(InvalidOptionError, match="QCoOp is a quantized trainer already"):
        quantized(quantized(host.trainers.CoOp))
    assert "QQCoOp" not in host.registry.registered_names()


def test_trainers_without_a_docstring(host):
    class Bare(host.trainers.CoOp):
        pass

    Bare.__doc__ = None
    assert quantized(Bare).__doc__ == "Bare with K-Means-quantized prompts."


def test_parameters_that_a_subclass_freezes_after_building_stay_plain(host):
    class Partial(host.trainers.MaPLe):
        def build_model(self):
            super().build_model()
            for name, parameter in self.model.named_parameters():
                if "compound" in name:
                    parameter.requires_grad_(False)

    quantized(Partial)
    run = host.build("QPartial")
    found = set(dict(named_quantizers(run.model)))
    assert found == {"prompt_learner.ctx", "prompt_learner.proj.weight"}
    frozen = [p.clone() for p in run.model.prompt_learner.compound_prompts_text]
    run.train()
    learner = run.model.prompt_learner
    assert all(
        before.equal(after)
        for before, after in zip(frozen, learner.compound_prompts_text, strict=True)
    )


def test_trainer_without_a_model_has_nothing_to_quantize(host):
    class ZeroshotCLIP(host.trainers.CoOp):
        def build_model(self):
            self.model = None

    quantized(ZeroshotCLIP)
    with pytest.raises(NoParameterError, match="QZeroshotCLIP registers no model"):
        host.build("QZeroshotCLIP")
