"""CoCoOp and QCoCoOp: against a plain implementation, in chunks, and whole runs."""

import pytest
import torch
from torch.nn import functional as F

import clip
from trainers.cocoop import ConditionalCLIP, ConditionalPromptLearner

NAMES = ["dog", "Annual Crop Land", "golden_retriever"]
LEARNER = "prompt_learner"


@pytest.fixture(scope="module")
def tiny():
    return clip.load("tiny").requires_grad_(False)


def images(number=3, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, 3, size, size, generator=generator)


@torch.no_grad()
def logits(trainer):
    trainer.set_model_mode("eval")
    return trainer.model_inference(images())


def gradients(model, x, labels):
    learner = model.prompt_learner
    learner.zero_grad()
    scores = model(x)
    F.cross_entropy(scores, labels).backward()
    return scores.detach(), {name: p.grad.clone() for name, p in learner.named_parameters()}


# ---- the model


def test_logits_and_gradients_are_those_of_the_equations(vit_b32, assert_close):
    backbone, plain = vit_b32
    torch.manual_seed(1)
    learner = ConditionalPromptLearner(backbone, NAMES, ctx_init="a photo of a")
    model = ConditionalCLIP(backbone, learner)
    x, labels = images(2, 224), torch.tensor([2, 0])
    ours, grads = gradients(model, x, labels)

    weights = {name: t.clone().requires_grad_() for name, t in learner.state_dict().items()}
    tokens = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    expected = []
    for feature in plain.image(x):
        hidden = weights["meta_net.linear1.weight"] @ feature + weights["meta_net.linear1.bias"]
        hidden = hidden.clamp(min=0)
        shift = weights["meta_net.linear2.weight"] @ hidden + weights["meta_net.linear2.bias"]
        scores = []
        for row in tokens:
            embedded = list(plain.state["token_embedding.weight"][row])
            embedded[1:5] = [vector + shift for vector in weights["ctx"]]
            text = plain.text(torch.stack(embedded)[None], row.argmax()[None])[0]
            scores.append(plain.state["logit_scale"].exp() * feature @ text)
        expected.append(torch.stack(scores))
    expected = torch.stack(expected)
    F.cross_entropy(expected, labels).backward()

    assert_close(ours, expected)
    for name, grad in grads.items():
        assert_close(grad, weights[name].grad)


def test_parameter_names_and_shapes_are_upstreams(vit_b32):
    learner = ConditionalPromptLearner(vit_b32[0], NAMES, n_ctx=4)
    assert {name: tuple(p.shape) for name, p in learner.state_dict().items()} == {
        "ctx": (4, 512),
        "meta_net.linear1.weight": (32, 512),
        "meta_net.linear1.bias": (32,),
        "meta_net.linear2.weight": (512, 32),
        "meta_net.linear2.bias": (512,),
    }


@pytest.mark.parametrize("chunk", [1, 4, 6, 7])
def test_chunks_change_nothing(tiny, assert_close, chunk):
    torch.manual_seed(0)
    learner = ConditionalPromptLearner(tiny, NAMES, n_ctx=4)
    x, labels = images(3), torch.tensor([2, 0, 1])
    whole, expected = gradients(ConditionalCLIP(tiny, learner, text_chunk=9), x, labels)
    model = ConditionalCLIP(tiny, learner, text_chunk=chunk)
    scores, grads = gradients(model, x, labels)
    assert_close(scores, whole)
    for name, grad in grads.items():
        assert_close(grad, expected[name])
    with torch.no_grad():
        assert_close(model(x), whole)


def test_one_image_at_a_time_gives_the_same_logits(tiny, assert_close):
    model = ConditionalCLIP(tiny, ConditionalPromptLearner(tiny, NAMES, n_ctx=4))
    with torch.no_grad():
        assert_close(torch.cat([model(image[None]) for image in images()]), model(images()))


@pytest.mark.parametrize("classes", [1, 1000])
def test_any_number_of_classes_with_one_image(tiny, classes):
    learner = ConditionalPromptLearner(tiny, [f"class {i}" for i in range(classes)], n_ctx=4)
    model = ConditionalCLIP(tiny, learner, text_chunk=256)
    scores, grads = gradients(model, images(1), torch.tensor([0]))
    assert scores.shape == (1, classes)
    assert all(grad.isfinite().all() for grad in grads.values())
    assert classes == 1 or all(grad.abs().sum() > 0 for grad in grads.values())


@pytest.mark.parametrize(
    ("options", "chunk", "message"),
    [({"n_ctx": 0}, 1, "N_CTX is 0"), ({"n_ctx": 4}, -1, "TEXT_CHUNK is -1")],
)
def test_bad_options_are_named(tiny, options, chunk, message):
    with pytest.raises(ValueError, match=message):
        ConditionalCLIP(tiny, ConditionalPromptLearner(tiny, NAMES, **options), text_chunk=chunk)


# ---- whole runs


def test_checkpoint_and_packed_file_give_bit_identical_logits(build, tmp_path):
    run = build("QCoCoOp", tmp_path)
    run.train()
    packed = tmp_path / LEARNER / "prompt.safetensors"
    for half in ("base", "new"):
        opts = ["DATASET.SUBSAMPLE_CLASSES", half]
        ways = [build(name, "", opts=opts) for name in ("QCoCoOp", "QCoCoOp", "CoCoOp")]
        for way, source in zip(ways, (tmp_path, packed, packed), strict=True):
            way.load_model(str(source))
        scores = [logits(way) for way in ways]
        assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
        assert half == "new" or torch.equal(scores[0], logits(run))
    assert not torch.equal(scores[0], logits(build("QCoCoOp", "", opts=opts)))


def test_upstreams_checkpoint_loads(build, tmp_path, capsys):
    run = build("CoCoOp", "")
    learner = run.model.prompt_learner
    state = {name: torch.randn_like(t) for name, t in learner.state_dict().items()}
    tokens = {"token_prefix": torch.zeros(5, 1, 128), "token_suffix": torch.zeros(5, 72, 128)}
    (tmp_path / LEARNER).mkdir()
    checkpoint = {"state_dict": {**state, **tokens}, "epoch": 10, "optimizer": {}, "scheduler": {}}
    torch.save(checkpoint, tmp_path / LEARNER / "model.pth.tar-10")
    run.load_model(str(tmp_path), epoch=10)
    out = capsys.readouterr().out
    assert "missing keys: none" in out and "unexpected keys: none" in out
    assert all(torch.equal(t, state[name]) for name, t in learner.state_dict().items())
