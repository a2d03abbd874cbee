"""VPT, IVLP and PromptSRC, which have prompts in the layers of towers, and what quantizes them."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

import clip
from dassl.utils import UserError
from qprompt.parametrization import named_weights, quantized_weights
from trainers.features import FrozenFeatures
from trainers.ivlp import IVLP, IndependentPromptLearner
from trainers.prompted import PromptedCLIP
from trainers.promptsrc import TEMPLATES, PromptSRC
from trainers.templates import encode_templates
from trainers.vpt import VPT, VisualPromptedCLIP, VisualPromptLearner

NAMES = ["dog", "Annual Crop Land", "golden_retriever"]
LEARNERS = ["VPT", "IVLP", "PromptSRC"]
ALL = [*LEARNERS, *(f"Q{name}" for name in LEARNERS)]
FOLDERS = {"VPT": "prompt_learner", "IVLP": "VLPromptLearner", "PromptSRC": "VLPromptLearner"}
SETTINGS = SimpleNamespace(TEXT_LOSS_WEIGHT=25.0, IMAGE_LOSS_WEIGHT=10.0)


def folder_of(trainer):
    return FOLDERS[trainer.removeprefix("Q")]


def images(number=3, size=32):
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(trainer):
    trainer.set_model_mode("eval")
    return trainer.model_inference(images())


# ---- the loss


def embed(plain, template, names):
    """Embeddings of class names in a template, and where their texts end."""
    tokens = clip.tokenize([template.format(name.replace("_", " ")) for name in names])
    return plain.state["token_embedding.weight"][tokens], tokens.argmax(-1)


def plain_features(plain, weights, x, names=NAMES):
    """Normalised features of texts and images, for prompts under upstream's names."""

    def deep(tower):
        keys = [f"{tower}.transformer.resblocks.{i}.VPT_shallow" for i in range(1, 12)]
        return [weights[key] for key in keys if key in weights]

    rows, ends = embed(plain, "a photo of a {}.", names)
    rows = [list(row) for row in rows]
    for row in rows:
        for i, vector in enumerate(weights.get("prompt_learner.ctx", ())):
            row[1 + i] = vector
    rows = torch.stack([torch.stack(row) for row in rows])
    text = plain.text(rows, ends, deep("text_encoder"))
    return text, plain.image(x, weights.get("image_encoder.VPT", ()), deep("image_encoder"))


def plain_loss(trainer, plain, weights, x, labels):
    """The loss of each paper, written out."""
    scale = plain.state["logit_scale"].exp()
    text, image = plain_features(plain, weights, x)
    scores = (scale * image @ text.T).log_softmax(-1)
    loss = -scores[torch.arange(len(labels)), labels].mean()
    if trainer is not PromptSRC:
        return loss
    of_templates = [
        plain.text(*embed(plain, template, NAMES), normalise=False) for template in TEMPLATES
    ]
    text_0 = sum(of_templates) / 60
    text_0 = text_0 / text_0.norm(dim=-1, keepdim=True)
    image_0 = plain.image(x)
    scores_0 = (scale * image_0 @ text_0.T).log_softmax(-1)
    loss = loss + 25 * (text - text_0).abs().mean() + 10 * (image - image_0).abs().mean()
    return loss + (scores_0.exp() * (scores_0 - scores)).mean()


def build_model(trainer, backbone, depth):
    if trainer is VPT:
        learner = VisualPromptLearner(backbone, NAMES, 4, depth, "a photo of a")
        return VisualPromptedCLIP(backbone, learner)
    return PromptedCLIP(backbone, IndependentPromptLearner(backbone, NAMES, 2, 4, depth, depth))


@pytest.mark.parametrize(
    ("pair", "trainer", "depth"),
    [
        *(("tiny_pair", trainer, depth) for trainer in (VPT, IVLP, PromptSRC) for depth in (1, 4)),
        *(pytest.param("vit_b32", t, 9, marks=pytest.mark.slow) for t in (VPT, IVLP, PromptSRC)),
    ],
)
def test_loss_and_gradients_are_those_of_the_equations(request, pair, trainer, depth):
    backbone, plain = request.getfixturevalue(pair)
    torch.manual_seed(depth)
    model = build_model(trainer, backbone, depth)
    x, labels = images(2, backbone.visual.image_size[0]), torch.tensor([2, 0])
    features = FrozenFeatures(backbone, "", "")
    run = SimpleNamespace(
        model=model,
        settings=SETTINGS,
        frozen_features=model.encode_image,
        frozen_text=encode_templates(features, NAMES, TEMPLATES).mean(dim=0),
    )
    loss, scores = trainer.loss(run, x, labels)
    loss.backward()

    state = model.prompt_learner.state_dict()
    weights = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    expected = plain_loss(trainer, plain, weights, x, labels)
    expected.backward()
    assert scores.shape == (2, 3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.prompt_learner.named_parameters():
        largest = weights[name].grad.abs().max()
        assert largest > 0
        assert (parameter.grad - weights[name].grad).abs().max() < 1e-5 * largest, name


# ---- names, and checkpoints of others


def deep_names(tower, depth, shape):
    return [(f"{tower}.transformer.resblocks.{i}.VPT_shallow", shape) for i in range(1, depth)]


EXPECTED = {
    "VPT": [("image_encoder.VPT", (4, 128)), *deep_names("image_encoder", 3, (4, 128))],
    "IVLP": [
        ("prompt_learner.ctx", (2, 128)),
        *deep_names("text_encoder", 3, (2, 128)),
        ("image_encoder.VPT", (2, 128)),
        *deep_names("image_encoder", 3, (2, 128)),
    ],
}
EXPECTED["PromptSRC"] = EXPECTED["IVLP"]


def upstream(folder, trainer, change=lambda state: None):
    """A checkpoint with the keys of upstream's whole model, for the tiny backbone."""
    torch.manual_seed(0)
    state = {name: 0.02 * torch.randn(shape) for name, shape in EXPECTED[trainer]}
    for name, tensor in clip.load("tiny").state_dict().items():
        if name.startswith("visual."):
            name = name.removeprefix("visual.")
            state[f"image_encoder.{name}"] = tensor
            if trainer == "PromptSRC":
                state[f"prompt_learner.ZS_image_encoder.{name}"] = tensor
        elif name != "logit_scale" and not name.startswith("token_embedding"):
            state[f"text_encoder.{name}"] = tensor
        else:
            state["logit_scale"] = tensor
    if trainer != "VPT":
        state["prompt_learner.token_prefix"] = torch.zeros(2, 1, 128)
        state["prompt_learner.token_suffix"] = torch.zeros(2, 74, 128)
    change(state)
    path = folder / folder_of(trainer) / "model.pth.tar-5"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 5, "optimizer": {}, "scheduler": {}}, path)
    return state


def learned(run):
    """The learned weights by their plain names: the latent ones of a quantized trainer."""
    weights = named_weights(run.model.prompt_learner)
    return {weight.name: weight.latent for weight in weights}


@pytest.mark.parametrize("trainer", ALL)
def test_checkpoint_of_upstream_loads(build, tmp_path, capsys, tiny_pair, trainer):
    plain = trainer.removeprefix("Q")
    state = upstream(tmp_path, plain)
    run = build(trainer, "")
    assert [(name, tuple(weight.shape)) for name, weight in learned(run).items()] == EXPECTED[plain]
    run.load_model(str(tmp_path), epoch=5)
    out = capsys.readouterr().out
    assert "missing keys: none" in out and "unexpected keys: none" in out
    assert all(torch.equal(weight, state[name]) for name, weight in learned(run).items())
    if trainer == plain:
        names = run.dm.dataset.classnames
        text, image = plain_features(tiny_pair[1], state, images(), names)
        expected = tiny_pair[1].state["logit_scale"].exp() * image @ text.T
        torch.testing.assert_close(logits(run), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trainer", LEARNERS)
def test_missing_and_unexpected_keys_are_named(build, tmp_path, capsys, trainer):
    lost = "image_encoder.transformer.resblocks.2.VPT_shallow"

    def change(state):
        del state[lost]
        state["image_encoder.transformer.resblocks.3.VPT_shallow"] = torch.zeros(4, 128)
        state["prompt_learner.meta_net.linear1.weight"] = torch.zeros(2)

    upstream(tmp_path, trainer, change)
    build(trainer, "").load_model(str(tmp_path), epoch=5)
    out = capsys.readouterr().out
    assert f"missing keys: {lost}\n" in out
    unexpected = out.split("unexpected keys: ")[1].splitlines()[0].split(", ")
    assert sorted(unexpected) == [
        "image_encoder.transformer.resblocks.3.VPT_shallow",
        "prompt_learner.meta_net.linear1.weight",
    ]


def test_prompts_in_the_towers_are_unexpected_where_there_are_none(build, tmp_path, capsys):
    upstream(tmp_path, "IVLP")
    (tmp_path / "VLPromptLearner").rename(tmp_path / "MultiModalPromptLearner")
    build("MaPLe", "").load_model(str(tmp_path), epoch=5)
    assert "unexpected keys: text_encoder.transformer.resblocks.1.VPT" in capsys.readouterr().out


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_text": 0}, "PROMPT_DEPTH_TEXT is 0: the backbone takes 1 to 4"),
        ({"depth_text": 5}, "PROMPT_DEPTH_TEXT is 5: the backbone takes 1 to 4"),
        ({"depth_vision": 5}, "PROMPT_DEPTH_VISION is 5: the backbone takes 1 to 4"),
        ({"n_ctx_vision": 0}, "N_CTX_VISION is 0"),
        ({"n_ctx_text": 0}, "N_CTX_TEXT is 0"),
    ],
)
def test_bad_options_are_named(tiny_pair, options, message):
    options = {"depth_text": 2, "depth_vision": 2, **options}
    with pytest.raises(UserError, match=message):
        IndependentPromptLearner(tiny_pair[0], NAMES, **options)


def test_image_prompts_alone_need_a_layer(tiny_pair):
    with pytest.raises(UserError, match="PROMPT_DEPTH_VISION is 0: the backbone takes 1 to 4"):
        VisualPromptLearner(tiny_pair[0], NAMES, 4, 0, "a photo of a")


def test_image_tower_that_takes_no_prompts():
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, head_width=8, image_size=32)
    resnet = CLIP(64, vision, CLIPTextCfg(width=64, heads=1, layers=2)).requires_grad_(False)
    with pytest.raises(clip.UnsupportedBackboneError, match="ModifiedResNet"):
        IndependentPromptLearner(resnet, NAMES, depth_text=2, depth_vision=1)
    assert IndependentPromptLearner(resnet, NAMES, depth_text=2, depth_vision=0)().image is None


@pytest.mark.parametrize("trainer", ["IVLP", "PromptSRC"])
def test_language_prompts_alone_leave_the_image_tower_frozen(build, tmp_path, trainer):
    node = f"TRAINER.{trainer.upper()}"
    options = [f"{node}.N_CTX_VISION", 0, f"{node}.PROMPT_DEPTH_VISION", 0]
    run = build(trainer, tmp_path, opts=[*options, "DATALOADER.CACHED_VIEWS", 1])
    assert run.model.frozen_image_tower
    run.train()
    assert set(learned(run)) == {name for name, _ in EXPECTED["IVLP"] if "image" not in name}


@pytest.mark.parametrize("std", [0, -1])
def test_weights_of_epochs_need_a_width(build, std):
    with pytest.raises(UserError, match=f"GPA_STD is {std}"):
        build("PromptSRC", "", opts=["TRAINER.PROMPTSRC.GPA_STD", std])


# ---- PromptSRC's average


EPOCHS = ["OPTIM.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_FREQ", 1, "TRAINER.PROMPTSRC.GPA_MEAN", 2.5]


def saved_state(folder, epoch):
    path = folder / "VLPromptLearner" / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("trainer", ["PromptSRC", "QPromptSRC"])
def test_last_prompts_are_the_weighted_sum_of_all_epochs(build, tmp_path, monkeypatch, trainer):
    run = build(trainer, tmp_path, opts=EPOCHS)
    epochs, average = [], run.average_epochs

    def record():
        epochs.append({name: weight.detach().clone() for name, weight in learned(run).items()})
        average()

    monkeypatch.setattr(run, "average_epochs", record)
    run.train()
    raw = [math.exp(-((t - 2.5) ** 2) / 2) for t in (1, 2, 3)]
    for name, weight in learned(run).items():
        parts = [w / sum(raw) * epoch[name] for w, epoch in zip(raw, epochs, strict=True)]
        torch.testing.assert_close(weight.data, sum(parts), rtol=1e-5, atol=1e-7)
        assert not torch.equal(weight, epochs[-1][name])
    for quantizer, weight in quantized_weights(run.model):
        fresh = copy.deepcopy(quantizer)
        fresh.fit_(weight)
        assert torch.equal(fresh.codebook, quantizer.codebook)


@pytest.mark.parametrize("trainer", ["PromptSRC", "QPromptSRC"])
def test_interrupted_run_ends_like_an_undisturbed_one(build, tmp_path, result, trainer):
    options = [*EPOCHS, "TRAINER.QPROMPT.INTERVAL", 1]
    build(trainer, tmp_path / "whole", opts=options).train()
    cut = build(trainer, tmp_path / "cut", opts=options)
    cut.max_epoch = 2
    cut.train()
    (tmp_path / "cut/results.json").unlink()
    resumed = build(trainer, tmp_path / "cut", opts=options)
    resumed.train()
    assert resumed.start_epoch == 2
    assert result(tmp_path / "cut")["metrics"] == result(tmp_path / "whole")["metrics"]
    cut, whole = (saved_state(tmp_path / name, 3) for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in cut.items())


def test_run_resumed_without_an_average_averages_what_follows(build, tmp_path):
    cut = build("PromptSRC", tmp_path, opts=EPOCHS)
    cut.max_epoch = 2
    cut.train()
    path = tmp_path / "VLPromptLearner/model.pth.tar-2"
    checkpoint = torch.load(path, weights_only=True)
    for state in checkpoint["optimizer"]["state"].values():
        del state["average"], state["first_epoch"]
    torch.save(checkpoint, path)
    (tmp_path / "results.json").unlink()
    resumed, last = build("PromptSRC", tmp_path, opts=EPOCHS), {}
    average = resumed.average_epochs
    resumed.average_epochs = lambda: (
        last.update({name: w.detach().clone() for name, w in learned(resumed).items()}),
        average(),
    )
    resumed.train()
    assert all(torch.equal(weight, last[name]) for name, weight in learned(resumed).items())
