"""The prompt learner against prompts written out as text."""

import pytest
import torch

import clip
from dassl.utils import UserError
from trainers.coop import PromptLearner

NAMES = ["dog", "Annual Crop Land", "forget-me-not", "golden_retriever"]


@pytest.fixture(scope="module")
def backbone():
    return clip.load("tiny").requires_grad_(False)


def features(backbone, learner):
    return clip.encode_prompts(backbone, learner())[0]


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize(
    ("position", "template"),
    [
        ("end", "a photo of a {}."),
        ("middle", "a photo {} of a."),
        ("front", "{} a photo of a."),
    ],
)
def test_initial_context_equals_the_written_prompt(backbone, position, template, class_specific):
    learner = PromptLearner(
        backbone,
        NAMES,
        ctx_init="a_photo_of_a",
        class_specific=class_specific,
        position=position,
    )
    texts = [template.format(name.replace("_", " ")) for name in NAMES]
    expected = clip.encode_text(backbone, clip.tokenize(texts))
    torch.testing.assert_close(features(backbone, learner), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("n_ctx", [1, 3, 16])
def test_shapes_and_gradients(backbone, position, class_specific, n_ctx):
    learner = PromptLearner(
        backbone, NAMES, n_ctx=n_ctx, class_specific=class_specific, position=position
    )
    assert learner.ctx.shape == ((len(NAMES), n_ctx, 128) if class_specific else (n_ctx, 128))
    prompts = learner()
    assert prompts.prefix.shape == (1, learner.prefix_length, 128)
    assert prompts.suffix.shape == (len(NAMES), max(learner.lengths), 128)
    assert prompts.lengths == learner.lengths
    assert (prompts.deep_text, prompts.image, prompts.deep_image) == ((), None, ())
    features(backbone, learner).square().sum().backward()
    assert learner.ctx.grad.abs().sum(dim=-1).gt(0).all()


@pytest.mark.parametrize("class_specific", [False, True])
def test_random_context_has_the_papers_deviation(backbone, class_specific):
    torch.manual_seed(0)
    learner = PromptLearner(backbone, NAMES * 4, n_ctx=16, class_specific=class_specific)
    assert learner.ctx.std().item() == pytest.approx(0.02, rel=0.05)


def test_checkpoint_holds_only_what_was_learned(backbone):
    assert list(PromptLearner(backbone, NAMES).state_dict()) == ["ctx"]


def test_context_init_may_have_words_of_several_tokens(backbone):
    learner = PromptLearner(backbone, NAMES, ctx_init="an aerial orthophotograph of")
    words = clip.tokenize("an aerial orthophotograph of").argmax().item() - 1
    assert words > 4
    assert learner.ctx.shape == (words, 128)


def test_one_class(backbone):
    learner = PromptLearner(backbone, ["dog"], n_ctx=2)
    assert features(backbone, learner).shape == (1, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": "start"}, "CLASS_TOKEN_POSITION is 'start': choose one of end"),
        ({"n_ctx": 0}, "N_CTX is 0"),
        ({"n_ctx": 80}, "takes 77"),
    ],
)
def test_bad_options_are_named(backbone, options, message):
    with pytest.raises(ValueError, match=message):
        PromptLearner(backbone, NAMES, **options)


def test_random_context_is_drawn_first(build):
    run = build("CoOp", "", opts=["TRAINER.COOP.CTX_INIT", ""])
    torch.manual_seed(1)
    expected = torch.empty_like(run.model.prompt_learner.ctx).normal_(std=0.02)
    assert torch.equal(run.model.prompt_learner.ctx, expected)


def test_a_run_that_ran_out_of_memory_goes_on_in_smaller_chunks(build, tmp_path):
    opts = ["TRAIN.CHECKPOINT_FREQ", 1]
    run = build("CoOp", tmp_path, opts=opts)
    after_epoch = run.after_epoch

    def run_out_of_memory():
        after_epoch()
        raise MemoryError

    run.after_epoch = run_out_of_memory
    with pytest.raises(MemoryError):
        run.train()
    run.close_writer()
    again = build("CoOp", tmp_path, opts=[*opts, "MODEL.TEXT_CHUNK", 2])
    again.train()
    assert again.start_epoch == 1 and (tmp_path / "results.json").exists()


@pytest.mark.parametrize("weights", [".", "prompt_learner/prompt.safetensors"])
def test_contexts_of_single_classes_stay_with_them(build, tmp_path, weights):
    opts = ["TRAINER.COOP.CSC", True, "OPTIM.MAX_EPOCH", 1]
    build("QCoOp", tmp_path, opts=opts).train()
    new = build("QCoOp", "", opts=[*opts, "DATASET.SUBSAMPLE_CLASSES", "new"])  # as many classes
    with pytest.raises(UserError, match="trained on other classes"):
        new.load_model(str(tmp_path / weights))
    shifted = build("QCoOp", "", opts=[*opts, "DATASET.NAME", "DigitsNoise"])
    shifted.load_model(str(tmp_path / weights))
