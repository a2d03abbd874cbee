"""MaPLe and QMaPLe: against a plain implementation, upstream's checkpoints, and whole runs."""

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors import safe_open
from torch.nn import functional as F

import clip
import qprompt
from trainers.maple import MultiModalCLIP, MultiModalPromptLearner

MODEL = "MultiModalPromptLearner"
NAMES = ["dog", "Annual Crop Land", "golden_retriever"]


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


def learned(trainer):
    return trainer.model.prompt_learner


# ---- the model


@pytest.mark.parametrize("depth", [1, 9, 12])
def test_logits_and_gradients_are_those_of_the_equations(vit_b32, assert_close, depth):
    backbone, plain = vit_b32
    torch.manual_seed(depth)
    model = MultiModalCLIP(backbone, MultiModalPromptLearner(backbone, NAMES, depth=depth))
    x, labels = images(2, 224), torch.tensor([2, 0])
    ours = model(x)
    F.cross_entropy(ours, labels).backward()

    state = model.prompt_learner.state_dict()
    weights = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    tokens = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    embedded = [list(row) for row in plain.state["token_embedding.weight"][tokens]]
    for row in embedded:
        row[1:3] = weights["ctx"]
    embedded = torch.stack([torch.stack(row) for row in embedded])
    text_deep, image_deep = [], []
    for i in range(depth - 1):
        projection = f"compound_prompt_projections.{i}."
        text_deep.append(weights[f"compound_prompts_text.{i}"])
        image_deep.append(
            text_deep[-1] @ weights[projection + "weight"].T + weights[projection + "bias"]
        )
    text = plain.text(embedded, tokens.argmax(-1), text_deep)
    beside_patches = weights["ctx"] @ weights["proj.weight"].T + weights["proj.bias"]
    features = plain.image(x, beside_patches, image_deep)
    expected = plain.state["logit_scale"].exp() * features @ text.T
    F.cross_entropy(expected, labels).backward()

    assert_close(ours, expected)
    for name, parameter in model.prompt_learner.named_parameters():
        assert_close(parameter.grad, weights[name].grad)


def test_parameter_names_shapes_and_order_are_upstreams(vit_b32):
    learner = MultiModalPromptLearner(vit_b32[0], NAMES, depth=3)
    shapes = {name: tuple(p.shape) for name, p in learner.named_parameters()}
    assert list(shapes.items()) == [
        ("ctx", (2, 512)),
        ("proj.weight", (768, 512)),
        ("proj.bias", (768,)),
        ("compound_prompts_text.0", (2, 512)),
        ("compound_prompts_text.1", (2, 512)),
        ("compound_prompt_projections.0.weight", (768, 512)),
        ("compound_prompt_projections.0.bias", (768,)),
        ("compound_prompt_projections.1.weight", (768, 512)),
        ("compound_prompt_projections.1.bias", (768,)),
    ]
    assert list(learner.state_dict()) == list(shapes)
    first, second = learner.compound_prompt_projections
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(*learner.compound_prompts_text)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_that_of_the_first_layers_prompts_alone(precision):
    """As upstream; checkpoints with all in half precision are loaded, too."""
    backbone = clip.load("tiny", precision).requires_grad_(False)
    learner = MultiModalPromptLearner(backbone, NAMES, depth=3)
    half = {n for n, p in learner.named_parameters() if p.dtype == clip.compute_dtype(backbone)}
    assert half == {"ctx", "proj.weight", "proj.bias"}
    deep = [p for n, p in learner.named_parameters() if n not in half]
    assert all(p.dtype == torch.float32 for p in deep)
    assert not any(torch.equal(p, p.half().float()) for p in deep)
    old = {name: tensor.half() for name, tensor in learner.state_dict().items()}
    learner.load_state_dict(old)
    assert all(torch.equal(p, p.half().float()) for p in deep)


@pytest.mark.parametrize("n_ctx", [1, 2, 4])
def test_words_beyond_the_context_stay_in_the_prompt(tiny, n_ctx):
    learner = MultiModalPromptLearner(tiny, NAMES, n_ctx=n_ctx, ctx_init="a_photo_of_a", depth=2)
    tokens = clip.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    expected = clip.embed_tokens(tiny, tokens[:, : learner.prefix_length + max(learner.lengths)])
    assert learner.ctx.shape == (n_ctx, 128)
    prompts = learner()
    assert torch.equal(prompts.prefix, expected[:1, : learner.prefix_length])
    assert torch.equal(prompts.suffix, expected[:, learner.prefix_length :])


@pytest.mark.parametrize("words", ["", "a photo of a"])
def test_context_that_words_cannot_fill_is_random(tiny, words):
    torch.manual_seed(0)
    learner = MultiModalPromptLearner(tiny, NAMES, n_ctx=16, ctx_init=words, depth=2)
    assert learner.ctx.std().item() == pytest.approx(0.02, rel=0.1)
    assert learner.prefix_length + learner.lengths[0] == 1 + 16 + 3


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("classes", [1, 1000])
def test_any_depth_and_number_of_classes_with_one_image(tiny, depth, classes):
    learner = MultiModalPromptLearner(tiny, [f"class {i}" for i in range(classes)], depth=depth)
    model = MultiModalCLIP(tiny, learner)
    scores = model(images(1))
    assert scores.shape == (1, classes)
    F.cross_entropy(scores, torch.tensor([0])).backward()
    # with one class the loss is 0 whatever the prompts are
    assert all(p.grad.isfinite().all() for p in learner.parameters())
    assert classes == 1 or all(p.grad.abs().sum() > 0 for p in learner.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "PROMPT_DEPTH is 0: the backbone takes 1 to 4"),
        ({"depth": 5}, "PROMPT_DEPTH is 5: the backbone takes 1 to 4"),
        ({"depth": 2, "n_ctx": 0}, "N_CTX is 0"),
        ({"depth": 2, "n_ctx": 80}, "takes 77"),
    ],
)
def test_bad_options_are_named(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        MultiModalPromptLearner(tiny, NAMES, **options)


def test_image_tower_that_takes_no_prompts_is_refused_at_the_start():
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, head_width=8, image_size=32)
    resnet = CLIP(64, vision, CLIPTextCfg(width=64, heads=1, layers=2))
    with pytest.raises(clip.UnsupportedBackboneError, match="ModifiedResNet"):
        MultiModalPromptLearner(resnet, NAMES, depth=1)


# ---- training


@pytest.mark.parametrize("trainer", ["MaPLe", "QMaPLe"])
def test_only_the_prompts_train_and_only_they_are_saved(build, tmp_path, trainer):
    run = build(trainer, tmp_path, opts=["OPTIM.MAX_EPOCH", 1])
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    held = [p for group in run.optim.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in run.model.parameters() if p.requires_grad}
    run.train()
    changed = {n for n, p in run.model.named_parameters() if not torch.equal(p, before[n])}
    trainable = {n for n, p in run.model.named_parameters() if p.requires_grad}
    assert changed == trainable and len(changed) == 9
    assert all(name.startswith("prompt_learner.") for name in changed)
    path = tmp_path / MODEL / "model.pth.tar-1"
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert trainable <= set(saved) and all(name.startswith("prompt_learner.") for name in saved)
    assert not any("token_" in name for name in saved)
    # momentum included, far below the backbone's 27 MB
    assert path.stat().st_size < 1e6 * (1 if trainer == "MaPLe" else 1.2)


def test_interrupted_run_ends_like_an_undisturbed_one(build, tmp_path, result):
    options = ["TRAIN.CHECKPOINT_FREQ", 1, "TRAINER.QPROMPT.INTERVAL", 1]
    build("QMaPLe", tmp_path / "whole", opts=options).train()
    cut = build("QMaPLe", tmp_path / "cut", opts=options)
    cut.max_epoch = 1
    cut.train()
    (tmp_path / "cut/results.json").unlink()
    resumed = build("QMaPLe", tmp_path / "cut", opts=options)
    resumed.train()
    assert resumed.start_epoch == 1
    assert result(tmp_path / "cut")["metrics"] == result(tmp_path / "whole")["metrics"]
    states = [
        torch.load(tmp_path / name / MODEL / "model.pth.tar-2", weights_only=True)["state_dict"]
        for name in ("cut", "whole")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


# ---- checkpoints of others


def upstream(folder, depth=3, change=lambda state: None):
    """A checkpoint with the keys of upstream's whole model, for the tiny backbone."""
    backbone = clip.load("tiny")
    torch.manual_seed(0)
    learner = MultiModalPromptLearner(backbone, ["one", "two"], n_ctx=2, depth=depth)
    prompts = {name: torch.randn_like(t) * 0.02 for name, t in learner.state_dict().items()}
    prompts["token_prefix"] = torch.zeros(2, 1, 128)
    prompts["token_suffix"] = torch.zeros(2, 74, 128)
    state = {f"prompt_learner.{name}": tensor for name, tensor in prompts.items()}
    for name, tensor in backbone.state_dict().items():
        if name.startswith("visual."):
            state["image_encoder." + name.removeprefix("visual.")] = tensor
        elif name != "logit_scale" and not name.startswith("token_embedding"):
            state[f"text_encoder.{name}"] = tensor
    state["logit_scale"] = backbone.state_dict()["logit_scale"]
    change(state)
    (folder / MODEL).mkdir(parents=True)
    checkpoint = {"state_dict": state, "epoch": 5, "optimizer": {}, "scheduler": {}}
    torch.save(checkpoint, folder / MODEL / "model.pth.tar-5")
    return state


def test_upstreams_whole_model_loads(build, tmp_path, capsys):
    state = upstream(tmp_path)
    run = build("MaPLe", "")
    run.load_model(str(tmp_path), epoch=5)
    out = capsys.readouterr().out
    assert "missing keys: none" in out and "unexpected keys: none" in out
    loaded = run.model.state_dict()
    assert len(loaded) == 9
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


def test_missing_and_unexpected_keys_are_named(build, tmp_path, capsys):
    def change(state):
        del state["prompt_learner.compound_prompts_text.1"]
        state["prompt_learner.ctx_vision"] = torch.zeros(2, 128)
        state["visual_prompts"] = torch.zeros(2)

    upstream(tmp_path, change=change)
    build("MaPLe", "").load_model(str(tmp_path), epoch=5)
    out = capsys.readouterr().out
    assert "missing keys: prompt_learner.compound_prompts_text.1\n" in out
    unexpected = out.split("unexpected keys: ")[1].splitlines()[0].split(", ")
    assert sorted(unexpected) == ["prompt_learner.ctx_vision", "visual_prompts"]


def test_plain_checkpoint_becomes_a_quantized_model(build, tmp_path, result):
    build("MaPLe", tmp_path / "plain").train()
    run = build("QMaPLe", tmp_path / "ptq")
    run.load_model(str(tmp_path / "plain"))
    run.test()
    quantized = dict(qprompt.named_quantizers(run.model))
    assert len(quantized) == 6 and {q.bits for q in quantized.values()} == {4}
    plain = build("MaPLe", "")
    plain.load_model(str(tmp_path / "plain"))
    for name in quantized:
        owner, _, attribute = name.rpartition(".")
        mine = getattr(run.model.get_submodule(owner), attribute)
        theirs = getattr(plain.model.get_submodule(owner), attribute)
        assert len(mine.unique()) <= 16
        assert 0 < (mine - theirs).norm() < 0.2 * theirs.norm()
    accuracy = result(tmp_path / "ptq")["metrics"]["accuracy"]
    assert accuracy == pytest.approx(result(tmp_path / "plain")["metrics"]["accuracy"], abs=5)


# ---- packed files


@pytest.fixture(scope="module")
def full_size():
    """MaPLe's prompt learner for the widths of ViT-B/16, depth 9; the backbone does not matter."""
    vision = CLIPVisionCfg(
        layers=9, width=768, head_width=64, mlp_ratio=0.01, patch_size=16, image_size=32
    )
    text = CLIPTextCfg(width=512, heads=8, layers=9, mlp_ratio=0.01)
    torch.manual_seed(0)
    return MultiModalPromptLearner(CLIP(512, vision, text).requires_grad_(False), NAMES, depth=9)


def test_four_bit_file_of_the_papers_size(full_size, tmp_path):
    weights = sum(p.numel() for p in full_size.parameters() if p.dim() > 1)
    qprompt.quantize_(full_size, bits=4)
    sizes = [len(q.codebook) for _, q in qprompt.named_quantizers(full_size)]
    assert weights == 3_548_160 and sizes == [16] * 18
    payload = weights // 2 + 18 * 16 * 2 + 9 * 768 * 2
    path = tmp_path / "prompt.safetensors"
    assert qprompt.pack(full_size, path) == qprompt.payload_bytes(full_size) == payload
    assert path.stat().st_size <= 1.02 * payload
    qprompt.remove_(full_size)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpoint_and_packed_file_give_bit_identical_logits(build, tmp_path, precision):
    options = ["TRAINER.MAPLE.PREC", precision]
    run = build("QMaPLe", tmp_path, opts=options)
    run.train()
    packed = tmp_path / MODEL / "prompt.safetensors"
    assert not (learned(run).proj.bias == 0).any()
    for half in ("base", "new"):
        opts = [*options, "DATASET.SUBSAMPLE_CLASSES", half]
        ways = [build("QMaPLe", "", opts=opts) for _ in range(2)] + [build("MaPLe", "", opts=opts)]
        for way, source in zip(ways, (tmp_path, packed, packed), strict=True):
            way.load_model(str(source))
        scores = [logits(way) for way in ways]
        assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
        assert half == "new" or torch.equal(scores[0], logits(run))
    assert not torch.equal(scores[0], logits(build("QMaPLe", "", opts=opts)))


def inference_error(ours, full):
    """Largest difference of logits, relative to their spread."""
    return ((ours - full).abs().max() / full.std()).item()


@pytest.mark.parametrize("mode", ["qat", "ptq"])
def test_inference_form_of_a_run_gives_the_logits_of_the_full_form(build, tmp_path, mode):
    options = ["TRAINER.QPROMPT.MODE", mode, "DATASET.SUBSAMPLE_CLASSES", "new"]
    build("QMaPLe", tmp_path, opts=options[:2]).train()
    folder = tmp_path / MODEL
    full, compact = folder / "prompt.safetensors", folder / "prompt-inference.safetensors"
    assert compact.stat().st_size < 0.2 * full.stat().st_size
    ways = [build(name, "", opts=options) for name in ("QMaPLe", "QMaPLe", "MaPLe")]
    for way, source in zip(ways, (full, compact, compact), strict=True):
        way.load_model(str(source))
    expected, *others = (logits(way) for way in ways)
    for scores in others:
        assert inference_error(scores, expected) < 1e-3
    assert torch.equal(*others)
    with safe_open(compact, "pt") as file:
        payload = sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118
    assert ways[1].run_summary()["stored_bytes"] == payload
    with pytest.raises(qprompt.PackedMismatchError, match="proj.weight"):
        ways[1].load_model(str(full))


def test_compact_learner_at_the_papers_size(full_size, tmp_path):
    path = tmp_path / "compact.safetensors"
    learner = qprompt.quantize_(full_size, bits=4)
    compact = learner.compact()
    assert not learner.is_compact and compact.is_compact
    stored = 9 * (2 * 512 // 2 + 16 * 2 + 2 * 768 * 2)
    assert qprompt.pack(compact, path) == qprompt.payload_bytes(compact) == stored
    values = qprompt.unpack(path)
    assert torch.equal(values["ctx"], learner.ctx)
    prompts = learner()
    torch.testing.assert_close(values["proj.value"].float(), prompts.image, rtol=2**-11, atol=1e-7)
    for i, prompt in enumerate(prompts.deep_image):
        value = values[f"compound_prompt_projections.{i}.value"].float()
        torch.testing.assert_close(value, prompt, rtol=2**-11, atol=1e-7)
    qprompt.remove_(learner)


def test_packed_compact_learner_survives_another_packing(tiny, tmp_path):
    def compact(seed):
        torch.manual_seed(seed)
        return qprompt.quantize_(MultiModalPromptLearner(tiny, NAMES, depth=3), bits=4).compact()

    path, target = tmp_path / "compact.safetensors", compact(1)
    qprompt.pack(compact(0), path)
    values = qprompt.unpack(path)
    qprompt.load_packed_(target, path)
    qprompt.pack(target.compact(), path)
    again = qprompt.unpack(path)
    assert values.keys() == again.keys()
    assert all(torch.equal(again[name], value) for name, value in values.items())


def test_compact_prompt_of_another_depth_changes_nothing(build, tmp_path):
    trainer, other = (build("QMaPLe", "", opts=["TRAINER.MAPLE.PROMPT_DEPTH", n]) for n in (2, 3))
    trainer.save_model(0, str(tmp_path))
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    with pytest.raises(qprompt.PackedMismatchError, match="missing .*compound_prompts_text.1"):
        other.load_model(str(tmp_path / MODEL / "prompt-inference.safetensors"))
    after = other.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
