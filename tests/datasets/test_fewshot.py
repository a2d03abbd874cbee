from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dassl.data.datasets import Datum
from datasets.fewshot import FewerImagesThanShots, few_shot, subsample_classes

PUBLISHED = [
    "Caltech101",
    "DescribableTextures",
    "EuroSAT",
    "OxfordFlowers",
    "OxfordPets",
    "StanfordCars",
    "UCF101",
]


def items_of(entries):
    return [Datum(path, label=label, classname=name) for path, label, name in entries]


def paths_of(items):
    return [item.impath for item in items]


def interleaved(counts):
    """Items of several classes in mixed order: class i has counts[i] of them."""
    entries = [(i / n, label) for label, n in enumerate(counts) for i in range(n)]
    return [Datum(f"{lab}/{at}", label=lab, classname=f"c{lab}") for at, lab in sorted(entries)]


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_eurosat_seed_1_gives_the_published_images(published_split, shots):
    train = items_of(published_split("EuroSAT")["train"])
    sampled, _ = few_shot(train, [], shots, seed=1)
    assert len(sampled) == 10 * shots
    if shots == 16:
        first = [f"AnnualCrop/AnnualCrop_{i}.jpg" for i in (2365, 93, 2552)]
        assert paths_of(sampled)[:3] == first


def test_textures_seed_1_gives_the_images_that_others_have_published(published_split):
    """The first of indices/dtd/shot_1-seed_1.json of linzhiqiu/cross_modal_adaptation."""
    split = published_split("DescribableTextures")
    train, val = few_shot(items_of(split["train"]), items_of(split["val"]), 1, seed=1)
    names = ("banded", "blotchy", "braided", "bubbly", "bumpy", "chequered")
    for sampled, numbers in ((train, (117, 136, 172, 128, 142, 118)), (val, (132, 139, 61, 79))):
        first = [f"{name}/{name}_{i:04d}.jpg" for name, i in zip(names, numbers, strict=False)]
        assert paths_of(sampled)[: len(numbers)] == first


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_splits_have_enough_images_of_every_class(published_split, name):
    split = published_split(name)
    train, val = items_of(split["train"]), items_of(split["val"])
    sampled_train, sampled_val = few_shot(train, val, 16, seed=1)  # a warning would be an error
    assert set(Counter(item.label for item in sampled_train).values()) == {16}
    assert set(Counter(item.label for item in sampled_val).values()) == {4}


def test_one_stream_runs_over_train_and_then_val(published_split):
    split = published_split("EuroSAT")
    train, val = items_of(split["train"]), items_of(split["val"])
    after_train = few_shot(train, val, 4, seed=1)[1]
    alone = few_shot([], val, 4, seed=1)[1]
    assert paths_of(after_train) != paths_of(alone)


@given(
    counts=st.lists(st.integers(16, 40), min_size=1, max_size=6),
    shots=st.sampled_from([1, 2, 4, 8, 16]),
    seed=st.integers(0, 2**31),
)
def test_sampling_is_a_pure_function_without_repetition(counts, shots, seed):
    items = interleaved(counts)
    train, val = few_shot(items, items, shots, seed)
    again = few_shot(items, items, shots, seed)
    assert (paths_of(train), paths_of(val)) == tuple(map(paths_of, again))
    for sampled, per_class in ((train, shots), (val, min(shots, 4))):
        assert Counter(item.label for item in sampled) == dict.fromkeys(
            range(len(counts)), per_class
        )
        assert len(set(paths_of(sampled))) == len(sampled)
        assert set(paths_of(sampled)) <= set(paths_of(items))


def test_seeds_differ_zero_is_a_seed_and_a_negative_one_is_none():
    items = interleaved([100, 100])
    subsets = [tuple(paths_of(few_shot(items, [], 16, seed)[0])) for seed in range(4)]
    assert len(set(subsets)) == 4
    assert subsets[0] == tuple(paths_of(few_shot(items, [], 16, 0)[0]))
    unseeded = {tuple(paths_of(few_shot(items, [], 16, -1)[0])) for _ in range(3)}
    assert len(unseeded) > 1


def test_the_global_random_state_plays_no_part():
    items = interleaved([50])
    random.seed(3)
    first = paths_of(few_shot(items, [], 16, 1)[0])
    state = random.getstate()
    assert paths_of(few_shot(items, [], 16, 1)[0]) == first
    assert random.getstate() == state


@pytest.mark.parametrize("shots", [-1, 0])
def test_below_one_shot_keeps_everything(shots):
    items = interleaved([3, 5])
    train, val = few_shot(items, items, shots, 1)
    assert paths_of(train) == paths_of(val) == paths_of(items)


def test_a_class_with_fewer_images_than_shots_is_used_whole_with_a_warning():
    items = interleaved([20, 5, 16])
    with pytest.warns(FewerImagesThanShots, match="training images than 16 shots: 'c1' has 5"):
        train, _ = few_shot(items, [], 16, 1)
    assert Counter(item.label for item in train) == {0: 16, 1: 5, 2: 16}
    with pytest.warns(FewerImagesThanShots, match="validation .* 4 shots: 'c0' has 3"):
        few_shot([], interleaved([3, 4, 4]), 16, 1)


@given(n_classes=st.integers(2, 30), gap=st.integers(1, 3))
def test_base_and_new_are_the_halves_of_the_sorted_labels(n_classes, gap):
    train = [Datum(str(i), label=gap * i, classname=f"c{i:02}") for i in reversed(range(n_classes))]
    test = train[::2]
    half = math.ceil(n_classes / 2)
    base_train, base_test = subsample_classes((train, test), "base")
    new_train, new_test = subsample_classes((train, test), "new")
    assert {item.label: item.classname for item in base_train} == {
        i: f"c{i:02}" for i in range(half)
    }
    assert {item.label: item.classname for item in new_train} == {
        i: f"c{half + i:02}" for i in range(n_classes - half)
    }
    kept = paths_of(base_test) + paths_of(new_test)
    assert sorted(kept) == sorted(paths_of(test))
    names = {(item.label, item.classname) for item in base_train}
    assert {(item.label, item.classname) for item in base_test} <= names


def test_subsampling_does_not_change_its_input():
    train = interleaved([2, 2, 2, 2])
    labels = [item.label for item in train]
    subsample_classes((train,), "new")
    assert [item.label for item in train] == labels
    assert paths_of(subsample_classes((train,), "all")[0]) == paths_of(train)


@pytest.mark.parametrize(
    "which, n_classes, message",
    [("novel", 4, '"novel".* Known: all, base, new'), ("new", 1, "no new class among 1")],
)
def test_bad_subsampling_is_named(which, n_classes, message):
    with pytest.raises(ValueError, match=message):
        subsample_classes((interleaved([1] * n_classes),), which)
