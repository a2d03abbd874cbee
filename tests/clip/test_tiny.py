"""The embedded tiny CLIP, its images and its captions."""

import random
import subprocess
import sys

import pytest
import torch

import clip
from clip.tiny import WEIGHTS_PATH, evaluate, save, state_dict
from clip.tiny.captions import DIGIT_NAMES, caption, captions, vocabulary
from clip.tiny.render import (
    CHARACTERS,
    HELD_OUT_FONTS,
    TRAINING_FONTS,
    TRAITS,
    distort,
    glyph_bank,
)
from clip.tiny.train import train


@pytest.fixture(scope="module")
def photos():
    glyphs = glyph_bank(("DejaVuSans", "cmr10"))
    generator = torch.Generator().manual_seed(0)
    return distort(glyphs[:, :2].flatten(0, 1), 32, generator)


def test_file_is_small_and_in_half_precision():
    assert WEIGHTS_PATH.stat().st_size <= 4_000_000
    assert {value.dtype for value in state_dict().values()} == {torch.float16}


def test_zero_shot_accuracy_on_digits_it_never_saw():
    images, labels = evaluate.digits()
    prompts = [f"a photo of the digit {name}." for name in DIGIT_NAMES]
    assert evaluate.accuracy(clip.load("tiny"), images, labels, prompts) > 78


def test_words_around_the_class_name_matter():
    model = clip.load("tiny")
    with torch.no_grad():
        texts = ["a photo of a seven.", "a photo of a bold white seven.", "a black thin seven."]
        features = torch.nn.functional.normalize(
            clip.encode_text(model, clip.tokenize(texts)), dim=-1
        )
    similarity = features @ features.t()
    assert similarity[0, 1] < 0.99
    assert similarity[1, 2] < similarity[0, 1]


def test_training_and_held_out_fonts_are_disjoint():
    assert not set(TRAINING_FONTS) & set(HELD_OUT_FONTS)


def test_training_knows_no_data_set():
    code = "import sys, clip.tiny.train; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_character_leaves_ink():
    glyphs = glyph_bank(("DejaVuSans",))
    assert glyphs.shape == (len(CHARACTERS), 9, 64, 64)
    assert glyphs.amin() == 0 and glyphs.amax() == 1
    assert glyphs.mean(dim=(-1, -2)).gt(0.03).all()


def test_photos_are_images_with_traits(photos):
    images, traits = photos
    assert images.shape == (72, 3, 32, 32) and traits.shape == (72, len(TRAITS))
    assert images.amin() >= 0 and images.amax() <= 1
    for column, words in zip(traits.t(), TRAITS, strict=True):
        assert set(column.tolist()) <= set(range(len(words)))
        assert len(column.unique()) >= 2


def test_ink_is_what_its_word_says(photos):
    images, traits = photos
    border = images[:, 0, [0, -1]].mean(dim=(1, 2))
    white = traits[:, 0] == TRAITS[0].index("white")
    assert border[white].mean() < 0.4 < 0.6 < border[~white].mean()


def test_captions_are_true_of_exactly_the_images_they_describe():
    labels = torch.tensor([7, 7, 7, 10])
    traits = torch.tensor([[1, 2, 0, 1], [1, 1, 0, 1], [1, 2, 2, 1], [1, 2, 0, 1]])
    chance = random.Random(3)
    for _ in range(50):
        state = chance.getstate()
        tokens, true = captions(labels, traits, chance)
        chance.setstate(state)
        described = [
            caption(int(a), b.tolist(), chance) for a, b in zip(labels, traits, strict=True)
        ]
        assert torch.equal(tokens, clip.tokenize([text for text, _ in described]))
        for i in range(4):
            for j, (text, _) in enumerate(described):
                words = text.strip(".").split()
                named = [k for k, t in enumerate(TRAITS) if t[traits[j, k]] in words]
                fits = all(traits[i, k] == traits[j, k] for k in named)
                assert bool(true[i, j]) == (labels[i].item() == labels[j].item() and fits)


def test_vocabulary_covers_every_caption():
    known = set(vocabulary().tolist())
    chance = random.Random(0)
    for label in range(len(CHARACTERS)):
        traits = [chance.randrange(len(trait)) for trait in TRAITS]
        text, _ = caption(label, traits, chance)
        assert set(clip.tokenize(text).unique().tolist()) <= known


def test_saved_rows_come_back_and_the_others_are_the_same_noise_every_time(tmp_path):
    shipped = state_dict()
    path = tmp_path / "again.safetensors"
    save(shipped, vocabulary(), path)
    again = state_dict(path)
    assert all(torch.equal(shipped[name], again[name]) for name in shipped)


def test_training_repeats_itself():
    states = [train(steps=2, batch=8, learning_rate=1e-3, seed=5).state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = train(steps=2, batch=8, learning_rate=1e-3, seed=6).state_dict()
    assert not torch.equal(states[0]["visual.proj"], other["visual.proj"])
