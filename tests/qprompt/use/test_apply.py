"""A packed prompt without the training code: the logits of train.py --eval-only, image by image."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import clip
import qprompt

FAST = ["OPTIM.MAX_EPOCH", 1, "OPTIM.WARMUP_EPOCH", -1, "OPTIM.LR", 0.02]
LEARNERS = {
    "QCoOp": [],
    "QCoOp in the middle": ["TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"],
    "QCoCoOp": ["TRAINER.QPROMPT.BITS", 2],
    "QMaPLe": ["TRAINER.QPROMPT.BITS", 4],
    "QMaPLe for inference": ["TRAINER.QPROMPT.BITS", 4],
    "QVPT": [],
    "QIVLP": [],
    "QPromptSRC": [],
}


@pytest.fixture
def trained(build, tmp_path):
    """Train a quantized learner on the base classes, and return a packed prompt of it."""

    def trained(trainer, *opts, name="prompt"):
        build(trainer, tmp_path / "run", opts=[*FAST, *opts]).train()
        (packed,) = (tmp_path / "run").glob(f"*/{name}.safetensors")
        return packed

    return trained


@pytest.fixture
def evaluated(build):
    """Evaluate a packed prompt as train.py does: a hundred images and their logits."""

    def evaluated(trainer, packed, half, *opts):
        run = build(trainer, "", opts=[*FAST, "DATASET.SUBSAMPLE_CLASSES", half, *opts])
        run.load_model(str(packed))
        run.set_model_mode("eval")
        logits, _ = next(iter(run.scores(run.test_loader)))
        dataset = run.dm.dataset
        paths = [item.impath for item in dataset.test[: len(logits)]]
        return SimpleNamespace(logits=logits, paths=paths, classnames=dataset.classnames)

    return evaluated


@pytest.mark.parametrize("learner", LEARNERS)
def test_logits_are_those_of_the_evaluation(trained, evaluated, learner):
    trainer, opts = learner.split()[0], LEARNERS[learner]
    packed = trained(
        trainer, *opts, name="prompt-inference" if "inference" in learner else "prompt"
    )
    model = qprompt.load(packed).apply()
    rounding = 1e-6 if learner == "QMaPLe" else 0  # evaluation projects its prompts in one product
    for half in ("base", "new"):
        expected = evaluated(trainer, packed, half, *opts)
        names = None if half == "base" else expected.classnames  # the file's own are the base
        found = model.classify(expected.paths, names, batch_size=100)
        assert found.classnames == expected.classnames
        wanted = expected.logits.softmax(dim=-1)
        torch.testing.assert_close(found.probabilities, wanted, atol=rounding, rtol=0)


def test_half_precision_is_that_of_the_evaluation(trained, evaluated):
    opts = ["TRAINER.COOP.PREC", "bf16"]
    packed = trained("QCoOp", *opts)
    expected = evaluated("QCoOp", packed, "new", *opts)
    found = (
        qprompt.load(packed)
        .apply(precision="bf16")
        .classify(expected.paths, expected.classnames, batch_size=100)
    )
    assert torch.equal(found.probabilities, expected.logits.softmax(dim=-1))


def test_interpolation_and_colours_are_those_of_the_run(trained, evaluated):
    opts = ["INPUT.INTERPOLATION", "nearest", "INPUT.TRANSFORMS", "('random_flip',)"]
    packed = trained("QCoOp", *opts)
    expected = evaluated("QCoOp", packed, "base", *opts)
    found = qprompt.load(packed).apply().classify(expected.paths, batch_size=100)
    assert torch.equal(found.probabilities, expected.logits.softmax(dim=-1))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Pack tensors under their names, quantized, with metadata."""

    def pack(tensors, **metadata):
        learner = nn.Module()
        for name, tensor in tensors.items():
            learner.register_parameter(name, nn.Parameter(tensor))
        qprompt.quantize_(learner)
        path = tmp_path_factory.mktemp("packed") / "prompt.safetensors"
        qprompt.pack(learner, path, **metadata)
        return path

    return pack


@pytest.fixture(scope="module")
def context(pack):
    """A packed context of random numbers, of the tiny CLIP."""
    torch.manual_seed(0)
    names = json.dumps(["cat", "fire_truck"])
    return pack({"ctx": torch.randn(4, 128)}, trainer="QCoOp", backbone="tiny", classnames=names)


@pytest.fixture(scope="module")
def tiny():
    return clip.load("tiny")


def images(n):
    return [torch.randint(256, (3, 40, 50), dtype=torch.uint8) for _ in range(n)]


def test_images_may_be_files_pil_images_or_tensors(context, tiny, tmp_path):
    model = qprompt.load(context).apply(tiny)
    (pixels,) = images(1)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    picture.save(tmp_path / "image.png")
    kinds = [tmp_path / "image.png", str(tmp_path / "image.png"), picture, pixels]
    found = model.classify([*kinds, model.preprocess(picture)], batch_size=5).probabilities
    assert torch.equal(found, found[:1].expand(5, -1))
    grey = Image.new("I;16", (8, 8))
    grey.save(tmp_path / "grey.png")
    for bad, message in {
        tmp_path / "grey.png": "grey.png' has pixels of type I;16: save it with 8 bits",
        tmp_path / "no.png": "there is no image",
        context: "cannot be decoded",
        torch.rand(3, 5, 5): r"pixels of shape \(3, 5, 5\)",
    }.items():
        with pytest.raises(qprompt.QPromptError, match=message):
            model.classify([bad])


def test_batches_and_the_number_of_classes_do_not_matter(context, tiny):
    model, some = qprompt.load(context).apply(tiny), images(5)
    found = model.classify(some, ["dog"] * 3 + ["cat"])
    assert found.probabilities.shape == (5, 4) and len(found.top(9)[0]) == 4
    assert torch.allclose(model.classify(some, found.classnames, 2).probabilities, found[1])
    assert torch.allclose(found.probabilities[:, 0], found.probabilities[:, 2])
    assert model.classify([], ["dog"]).top() == []
    best, probability = found.top()[0][0]
    assert probability == pytest.approx(found.probabilities[0].max().item())
    assert found.classnames[found.probabilities[0].argmax()] == best


def test_classes_are_those_of_the_file_unless_others_are_given(context, tiny, pack):
    model = qprompt.load(context).apply(tiny)
    own = model.classifier()
    assert torch.equal(own, model.classifier(["cat", "fire truck"]))
    assert own.norm(dim=-1) == pytest.approx([1, 1])
    with pytest.raises(qprompt.InvalidOptionError, match="'cat,dog' is one name"):
        model.classifier("cat,dog")
    nameless = qprompt.load(pack({"ctx": torch.randn(4, 128)})).apply(tiny)
    with pytest.raises(qprompt.InvalidOptionError, match="names no classes"):
        nameless.classifier()


def test_contexts_of_single_classes_take_no_others(pack, tiny):
    names = json.dumps(["cat", "dog"])
    prompt = qprompt.load(pack({"ctx": torch.randn(2, 4, 128)}, backbone="tiny", classnames=names))
    model = prompt.apply(tiny)
    assert model.classifier().shape == (2, 128)
    for others in (["cat", "bird"], ["cat", "dog", "bird"]):
        with pytest.raises(qprompt.InvalidOptionError, match="each of its 2 classes"):
            model.classifier(others)


def test_another_backbone_is_refused(context, pack, vit_like):
    prompt = qprompt.load(context)
    with pytest.raises(qprompt.InvalidOptionError, match="on the backbone tiny, and ViT-B/32"):
        prompt.apply("ViT-B/32")
    with pytest.raises(qprompt.InvalidOptionError, match="text tower has width 128; .* has 64"):
        prompt.apply(vit_like)
    with pytest.raises(qprompt.InvalidOptionError, match="names no backbone"):
        qprompt.load(pack({"ctx": torch.randn(4, 128)})).apply()


@pytest.fixture
def vit_like():
    """A CLIP of other widths."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32)
    return CLIP(32, vision, CLIPTextCfg(width=64, heads=1, layers=1), quick_gelu=True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ViT-B/16", "ViT-B-16:openai", True),
        ("ViT-B/16", "ViT-B-16-quickgelu:openai", True),
        ("ViT-B/16", "somewhere/weights.pt", True),
        ("ViT-B/16", "ViT-B-16:laion400m_e32", False),
        ("ViT-B-16:laion400m_e32", "ViT-B-16:laion400m_e31", False),
        ("ViT-B/16", "ViT-B/32", False),
    ],
)
def test_names_of_backbones(one, other, same):
    from qprompt.use.backbone import may_be_same

    assert may_be_same(one, other) == may_be_same(other, one) == same


@pytest.mark.parametrize("trainer", ["QDePT", "QCLIPAdapter"])
def test_other_learners_are_named_with_what_evaluates_them(trained, trainer):
    prompt = qprompt.load(trained(trainer))
    with pytest.raises(qprompt.InvalidOptionError, match=f"{trainer} .*train.py --eval-only"):
        prompt.apply()
