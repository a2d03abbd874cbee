"""Losses, gradients and checkpoints of learners that share CoOp's prompts."""

import copy

import pytest
import torch

import clip

OPTIONS = ["TRAINER.COOP.CTX_INIT", "a photo of a", "TEST.FEATURE_CACHE", ""]


@pytest.fixture(params=["tiny", pytest.param("vit_b32", marks=pytest.mark.slow)])
def pair(request):
    """A backbone and the plain one, in float64: a projection leaves little but rounding errors."""
    name = "tiny_pair" if request.param == "tiny" else request.param
    backbone, plain = copy.deepcopy(request.getfixturevalue(name))
    plain.state = {name: tensor.double() for name, tensor in plain.state.items()}
    return backbone.double(), plain


@pytest.fixture
def step(build, pair, monkeypatch):
    """Loss and gradient of a trainer, and what a plain implementation needs for them."""
    backbone, plain = pair

    def step(trainer, *opts):
        monkeypatch.setattr(clip, "load", lambda *_: backbone)
        size = backbone.visual.image_size
        options = [*OPTIONS, "INPUT.SIZE", (*size,), "DATALOADER.TRAIN_X.BATCH_SIZE", 3, *opts]
        run = build(trainer, "", opts=options)
        learner = run.model.prompt_learner
        torch.manual_seed(3)
        with torch.no_grad():
            for name, parameter in learner.named_parameters():
                if name != "classes":
                    parameter += 0.02 * torch.randn_like(parameter)
        batch = next(iter(run.train_loader_x))
        loss, *others, _ = run.loss(*run.parse_batch_train(batch))
        run.backward(loss, *others)
        step.learner = learner
        return batch, learner.ctx.detach().clone(), loss.detach(), learner.ctx.grad

    return step


def text_features(plain, names, template, ctx=None, normalise=True):
    """Features of all 77 positions; the words after the start may be a context."""
    tokens = clip.tokenize([template.format(name) for name in names])
    embedded = plain.state["token_embedding.weight"][tokens]
    if ctx is not None:
        rest = embedded[:, 1 + len(ctx) :]
        embedded = torch.cat([embedded[:, :1], ctx.expand(len(names), -1, -1), rest], dim=1)
    return plain.text(embedded, tokens.argmax(-1), normalise=normalise)


def plain_parts(plain, batch, ctx):
    """Cross-entropy, text features, logits, and zero-shot text features and logits."""
    names = ["zero", "one", "two", "three", "four"]
    text = text_features(plain, names, "a photo of a {}.", ctx)
    zero_shot = text_features(plain, names, "a photo of the digit {}.")
    image = plain.state["logit_scale"].exp() * plain.image(batch["img"].double())
    logits = image @ text.T
    picked = logits.softmax(-1)[torch.arange(len(logits)), batch["label"]]
    return -picked.log().mean(), text, logits, zero_shot, image @ zero_shot.T


def assert_agree(ours, expected):
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_kgcoop(step, pair):
    batch, ctx, loss, grad = step("KgCoOp", "TRAINER.COOP.W", 3.0)
    ctx.requires_grad_()
    expected, text, _, zero_shot, _ = plain_parts(pair[1], batch, ctx)
    expected = expected + 3 * (1 - (text * zero_shot).sum(-1).mean())
    expected.backward()
    assert_agree(loss, expected)
    assert_agree(grad, ctx.grad)


def test_dept(step, pair):
    options = ["TRAINER.DEPT.CTX_INIT", "a photo of a", "TRAINER.DEPT.WEIGHT", 0.3]
    batch, ctx, loss, grad = step("DePT", *options)
    ours = {"ctx": grad}
    ours |= {n: p.grad for n, p in step.learner.head.named_parameters()}
    head = {n: p.detach().double() for n, p in step.learner.head.named_parameters()}
    head |= {"ctx": ctx}
    for tensor in head.values():
        tensor.requires_grad_()
    matching, *_ = plain_parts(pair[1], batch, ctx)
    image = pair[1].image(batch["img"].double(), normalise=False)
    names = ["zero", "one", "two", "three", "four"]
    text = text_features(pair[1], names, "a photo of a {}.", ctx, normalise=False)[batch["label"]]
    adjusted = torch.cat(
        [
            image * head["image.scale"] + head["image.shift"],
            text * head["text.scale"] + head["text.shift"],
        ]
    )
    scores = adjusted @ head["classifier.weight"].T + head["classifier.bias"]
    picked = scores.softmax(-1)[torch.arange(6), batch["label"].repeat(2)]
    expected = 0.7 * matching - 0.3 * picked.log().mean()
    expected.backward()
    assert_agree(loss, expected)
    for name, gradient in ours.items():
        assert_agree(gradient, head[name].grad)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_prograd(step, pair, weight):
    batch, ctx, loss, grad = step("ProGrad", "LOSS.LAMBDA", weight, "LOSS.T", 2.0)
    ctx.requires_grad_()
    expected, _, logits, _, zero_shot = plain_parts(pair[1], batch, ctx)
    p, zs = (logits / 2).softmax(-1), (zero_shot / 2).softmax(-1)
    divergence = (zs * (zs / p).log()).sum(-1).mean()
    (g,) = torch.autograd.grad(expected, ctx, retain_graph=True)
    (h,) = torch.autograd.grad(divergence, ctx)
    h = h / h.norm()
    dot = (g * h).sum()
    assert_agree(loss, expected)
    assert_agree(grad, g - weight * dot * h if dot < 0 else g)


@pytest.mark.parametrize("sign", [-1, 1])
def test_only_a_conflict_is_projected(build, sign):
    run = build("ProGrad", "")
    (ctx,) = run.optim.param_groups[0]["params"]
    g, h = torch.randn(2, *ctx.shape)
    h = sign * h * (g * h).sum().sign()
    run.backward((ctx * g).sum(), (ctx * h).sum())
    if sign > 0:
        assert torch.equal(ctx.grad, g)
    else:
        assert (ctx.grad * h).sum().abs() < 1e-4
        torch.testing.assert_close(ctx.grad, g - (g * h).sum() / h.square().sum() * h)


def test_a_prompt_that_says_what_zero_shot_clip_says_is_trained_as_by_coop(build):
    run = build("ProGrad", "")
    (ctx,) = run.optim.param_groups[0]["params"]
    g = torch.randn_like(ctx)
    run.backward((ctx * g).sum(), (ctx * 0).sum())
    assert torch.equal(ctx.grad, g)


def test_another_loss_is_refused(build):
    with pytest.raises(ValueError, match='Unknown LOSS.NAME "kd"'):
        build("ProGrad", "", opts=["LOSS.NAME", "kd"])


@pytest.mark.parametrize("trainer", ["KgCoOp", "ProGrad", "QKgCoOp", "QProGrad"])
def test_upstreams_checkpoint_loads(build, tmp_path, capsys, trainer):
    run = build(trainer, "")
    shapes = {"ctx": (4, 128), "token_prefix": (5, 1, 128), "token_suffix": (5, 72, 128)}
    if "KgCoOp" in trainer:  # which has parts that nothing reads
        shapes |= {"bias_vectors": (1, 512), "meta_net.linear1.weight": (512, 512)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    (tmp_path / "prompt_learner").mkdir()
    checkpoint = {"state_dict": state, "epoch": 100, "optimizer": {}, "scheduler": {}}
    torch.save(checkpoint, tmp_path / "prompt_learner/model.pth.tar-100")
    run.load_model(str(tmp_path), epoch=100)
    out = capsys.readouterr().out
    assert "missing keys: none" in out
    unread = "bias_vectors, meta_net.linear1.weight" if "KgCoOp" in trainer else "none"
    assert f"unexpected keys: {unread}\n" in out
    learned = dict(run.model.prompt_learner.named_parameters())
    assert torch.equal(next(iter(learned.values())), state["ctx"])


# ---- where the authors start, and from which words


START = ["TRAINER.COOP.CTX_INIT", "True", "TRAINER.COOP.N_CTX"]


def words(text):
    tokens = clip.tokenize(text)[0]
    return clip.load("tiny").token_embedding.weight[tokens[1 : tokens.argmax()]]


def test_prograd_starts_from_zeros_and_the_words_before_the_class_name(build):
    ctx = build("ProGrad", "", opts=[*START, 7]).model.prompt_learner.ctx
    assert not ctx[:2].any() and torch.equal(ctx[2:], words("a photo of the digit"))
    fewer = build("QProGrad", "", opts=[*START, 3]).model.prompt_learner
    assert torch.equal(fewer.parametrizations.ctx.original, words("of the digit"))


def test_kgcoop_starts_from_its_authors_words(build):
    ctx = build("KgCoOp", "", opts=[*START, 16]).model.prompt_learner.ctx
    assert torch.equal(ctx, words("a photo of a"))


@pytest.mark.parametrize(
    ("trainer", "dataset", "template"),
    [
        ("KgCoOp", "DescribableTextures", "a photo of a {}, a type of texture."),
        ("KgCoOp", "Food101", "a photo of the digit {}."),  # that of the data set, whatever it is
        ("ProGrad", "Food101", "a type of food, a photo of {}."),
        ("TipAdapterF", "ImageNetV2", "itap of a {}."),
    ],
)
def test_templates_are_those_of_the_authors(build, trainer, dataset, template):
    run = build(trainer, "")
    run.cfg.defrost()
    run.cfg.DATASET.NAME = dataset
    assert run.templates[0] == template
    run.cfg.DATASET.TEMPLATE = "my {}."  # which the data set has taken
    assert run.templates == run.dm.dataset.templates
