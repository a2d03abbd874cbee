"""Hand-written templates: their features, and zero-shot CLIP with one and with several."""

import pytest
import torch

import clip
from trainers.templates import (
    IMAGENET_TEMPLATES,
    IMAGENET_TEMPLATES_SELECT,
    encode_templates,
    template_features,
)

NAMES = ["dog", "forget-me-not", "golden_retriever"]


def test_the_lists_are_those_of_the_papers():
    assert len(set(IMAGENET_TEMPLATES)) == 80 and len(set(IMAGENET_TEMPLATES_SELECT)) == 7
    assert all(t.count("{}") == 1 for t in IMAGENET_TEMPLATES + IMAGENET_TEMPLATES_SELECT)


def test_templates_of_the_data_sets_as_others_import_them():
    from datasets import EuroSAT
    from trainers.zsclip import CUSTOM_TEMPLATES

    assert CUSTOM_TEMPLATES["EuroSAT"] == EuroSAT.template
    assert all(template.format("dog") for template in CUSTOM_TEMPLATES.values())
    assert len(CUSTOM_TEMPLATES) > 15 and "Eurosat" not in CUSTOM_TEMPLATES


def mean_feature(plain, name, templates):
    """The mean of normalised features of all 77 positions, normalised again."""
    tokens = clip.tokenize([t.format(name.replace("_", " ")) for t in templates])
    embedded = plain.state["token_embedding.weight"][tokens]
    mean = plain.text(embedded, tokens.argmax(-1)).mean(0)
    return mean / mean.norm()


def test_features_are_normalised_means(build, tiny_pair):
    features = build("ZeroshotCLIP", "").features
    ours = template_features(features, NAMES, IMAGENET_TEMPLATES_SELECT)
    expected = [mean_feature(tiny_pair[1], name, IMAGENET_TEMPLATES_SELECT) for name in NAMES]
    torch.testing.assert_close(ours, torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_they_are_encoded_once(build, tmp_path, monkeypatch):
    features = build("ZeroshotCLIP", "", opts=["TEST.FEATURE_CACHE", tmp_path]).features
    encode, calls = clip.encode_text, []
    monkeypatch.setattr(clip, "encode_text", lambda *a: calls.append(1) or encode(*a))
    first, second = (encode_templates(features, NAMES, IMAGENET_TEMPLATES) for _ in range(2))
    assert len(calls) == 80 and torch.equal(first, second)
    assert first.shape == (80, 3, 128)


@pytest.mark.parametrize("dataset", ["Digits", "ImageNet"])
def test_several_templates_are_the_selected_ones_and_that_of_the_data_set(
    build, tiny_pair, monkeypatch, dataset
):
    run = build("ZeroshotCLIP2", "")
    run.cfg.defrost()
    run.cfg.DATASET.NAME = dataset
    own = {"Digits": ["a photo of the digit {}."], "ImageNet": []}[dataset]
    templates = [*IMAGENET_TEMPLATES_SELECT, *own]
    names = run.dm.dataset.classnames
    expected = torch.stack([mean_feature(tiny_pair[1], name, templates) for name in names])
    torch.testing.assert_close(run.encode_classes(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "KgCoOp", "ZeroshotCLIP2"])
def test_templates_of_ones_own_take_the_place_of_the_data_sets(build, tiny_pair, trainer):
    own = ["the digit {}.", "{} in ink."]
    run = build(trainer, "", opts=["DATASET.TEMPLATE", own])
    templates = [*IMAGENET_TEMPLATES_SELECT, *own] if trainer == "ZeroshotCLIP2" else own
    names = run.dm.dataset.classnames
    expected = torch.stack([mean_feature(tiny_pair[1], name, templates) for name in names])
    found = run.zero_shot_text if trainer == "KgCoOp" else run.model.text
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2"])
def test_half_precision_needs_a_gpu(build, trainer):
    options = ["TRAINER.ZEROSHOTCLIP.PREC", "fp16"]
    if torch.cuda.is_available():
        assert build(trainer, "", opts=options).model.text.dtype == torch.float16
        return
    with pytest.warns(UserWarning, match="PREC fp16 runs as fp32"):
        assert build(trainer, "", opts=options).model.text.dtype == torch.float32


def test_both_are_whole_runs(build, tmp_path, result):
    for trainer in ("ZeroshotCLIP", "ZeroshotCLIP2"):
        build(trainer, tmp_path / trainer).train()
        assert result(tmp_path / trainer)["stored_bytes"] == 0
