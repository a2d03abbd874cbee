"""Features that are kept: the same numbers, made once, and never trusted blindly."""

import contextlib
import errno
import json
import os
import shutil
import threading

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import clip
from clip import tiny
from trainers import features
from trainers.features import BatchFeatures, FeatureCache

FROZEN = ["ZeroshotCLIP", "CoOp", "QCoOp", "CoCoOp"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def scores(build, folder):
    """Logits of a trainer on its test images, and how many image batches were encoded for it."""

    def run(trainer, *opts, kept=folder, cache=None):
        opts = ["TEST.FEATURE_CACHE", str(kept), *opts]
        built = build(trainer, "", opts=opts, cache=cache)
        built.set_model_mode("eval")
        encoded = []
        encode = built.model.encode_image
        built.model.encode_image = lambda *given: encoded.append(1) or encode(*given)
        with torch.no_grad():
            logits, labels = zip(*built.scores(built.test_loader), strict=True)
        assert torch.equal(
            torch.cat(labels), torch.tensor([item.label for item in built.dm.dataset.test])
        )
        return torch.cat(logits), len(encoded)

    return run


@pytest.mark.parametrize("trainer", FROZEN)
def test_kept_features_give_the_same_logits_bit_for_bit(scores, trainer):
    plain, encoded = scores(trainer, kept="")
    first, encoded_first = scores(trainer)
    second, encoded_second = scores(trainer)
    assert encoded > 0 and (encoded_first, encoded_second) == (encoded, 0)
    assert torch.equal(first, plain) and torch.equal(second, plain)


def test_trainers_seeds_and_bits_share_features(scores, folder):
    scores("CoOp")
    for trainer, *opts in [("QCoOp", "TRAINER.QPROMPT.BITS", 4), ("CoCoOp",), ("CoOp", "SEED", 2)]:
        assert scores(trainer, *opts)[1] == 0
    assert len(list(folder.iterdir())) == 1


def test_a_tower_that_sees_prompts_keeps_nothing(scores, folder):
    logits, encoded = scores("MaPLe")
    assert encoded > 0 and scores("MaPLe")[1] == encoded
    assert not folder.exists()


@pytest.mark.parametrize(
    "opts",
    [
        ["DATASET.SUBSAMPLE_CLASSES", "new"],
        ["INPUT.INTERPOLATION", "nearest"],
        ["DATALOADER.TEST.BATCH_SIZE", 7],
        ["TRAINER.COOP.PREC", "bf16"],
    ],
)
def test_other_features_are_made_for_other_inputs(scores, opts):
    scores("CoOp")
    assert scores("CoOp", *opts)[1] > 0
    assert torch.equal(scores("CoOp", *opts)[0], scores("CoOp", *opts, kept="")[0])


@pytest.mark.parametrize("fact", ["threads", "code"])
def test_other_features_are_made_by_other_means(scores, monkeypatch, fact):
    scores("CoOp")
    if fact == "code":
        monkeypatch.setattr(features, "encoder_versions", lambda: {"clip": "another version"})
        assert scores("CoOp")[1] > 0
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert scores("CoOp")[1] > 0
    finally:
        torch.set_num_threads(threads)


def image_features(trainer):
    return trainer.features.of_images(trainer.test_loader, trainer.model.encode_image)


def test_images_by_a_transform_of_ones_own_are_not_kept(build, folder):
    built = build("CoOp", "", opts=["TEST.FEATURE_CACHE", str(folder)])
    transform = built.test_loader.dataset.transform
    built.test_loader.dataset.transform = lambda image: transform(image).flip(-1)
    image_features(built)
    assert not folder.exists()


def test_a_changed_image_is_encoded_again(scores, build):
    scores("CoOp")
    image = build("CoOp", "").dm.dataset.test[3].impath
    before = os.stat(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert scores("CoOp")[1] > 0
    finally:
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scores("CoOp")[1] == 0


def test_other_weights_have_features_of_their_own(build, folder):
    built = build("CoOp", "", opts=["TEST.FEATURE_CACHE", str(folder)])
    first = image_features(built)
    other = build("CoOp", "", opts=["TEST.FEATURE_CACHE", str(folder)])
    with torch.no_grad():
        other.model.backbone.visual.proj[0, 0] += 1
    assert not torch.equal(image_features(other), first)
    assert len(list(folder.iterdir())) == 2


def test_another_architecture_with_the_same_weights_has_features_of_its_own(scores, tmp_path):
    save_file(tiny.state_dict(), tmp_path / "weights.safetensors")
    for name in ("tiny-quick", "tiny-slow"):
        architecture = {
            "embed_dim": 128,
            "quick_gelu": name == "tiny-quick",
            "vision_cfg": {"layers": 4, "width": 128, "patch_size": 8, "image_size": 32},
            "text_cfg": {"layers": 4, "width": 128, "heads": 2},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(architecture))
    open_clip.add_model_config(tmp_path)
    for name in ("tiny-quick", "tiny-slow"):
        backbone = f"{name}:{tmp_path / 'weights.safetensors'}"
        assert scores("CoOp", "MODEL.BACKBONE.NAME", backbone)[1] > 0
        assert scores("CoOp", "MODEL.BACKBONE.NAME", backbone)[1] == 0


def damage_end(path):
    path.write_bytes(path.read_bytes()[:-100])


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def damage_all(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_end, damage_bit, damage_all])
def test_a_damaged_file_is_reported_and_made_again(scores, folder, damage):
    expected, _ = scores("CoOp")
    (path,) = folder.iterdir()
    damage(path)
    with pytest.warns(UserWarning, match=f"{path} cannot be used"):
        again, encoded = scores("CoOp")
    assert encoded > 0 and torch.equal(again, expected)
    assert scores("CoOp")[1] == 0


def test_a_folder_that_cannot_be_written_only_warns(scores, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="TEST.FEATURE_CACHE"):
        logits, _ = scores("CoOp", kept=tmp_path / "file")
    assert torch.equal(logits, scores("CoOp", kept="")[0])


def test_a_full_disk_only_warns(folder, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(features, "atomic_write", full)
    with pytest.warns(UserWarning, match="No space left"):
        kept = FeatureCache(str(folder)).get({"a": 1}, lambda: torch.zeros(3))
    assert torch.equal(kept, torch.zeros(3))


def test_writers_at_the_same_time_leave_one_whole_file(folder):
    barrier, results = threading.Barrier(8), []

    def work():
        cache = FeatureCache(str(folder))
        barrier.wait()
        results.append(cache.get({"a": 1}, lambda: torch.arange(100_000.0)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(torch.equal(r, results[0]) for r in results)
    assert len(list(folder.iterdir())) == 1


def test_an_interrupted_computation_leaves_nothing(folder):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureCache(str(folder)).get({"a": 1}, interrupted)
    assert not folder.exists()


def test_clear_deletes_what_was_kept(folder):
    cache = FeatureCache(str(folder))
    for a in range(3):
        cache.get({"a": a}, lambda: torch.zeros(1))
    (folder / "prompt.safetensors").write_text("mine")
    assert cache.clear() == 3 and cache.clear() == 0
    assert [path.name for path in folder.iterdir()] == ["prompt.safetensors"]


def test_without_a_folder_nothing_is_cleared(command, tmp_path):
    done = command("CoOp", tmp_path, "--no-feature-cache", "--clear-feature-cache")
    assert done.returncode == 1 and "TEST.FEATURE_CACHE is empty" in done.stderr


def test_runs_of_one_process_share_backbone_and_features(scores, build, folder):
    cache = {}
    first, second = build("CoOp", "", cache=cache), build("QCoOp", "", cache=cache)
    assert first.model.backbone is second.model.backbone
    assert scores("CoOp", cache=cache)[1] > 0
    shutil.rmtree(folder)
    assert scores("QCoOp", cache=cache)[1] == 0
    assert build("CoOp", "").model.backbone is not first.model.backbone


def test_loading_a_backbone_draws_no_random_numbers(build):
    cache = {}

    def next_number():
        build("ZeroshotCLIP", "", cache=cache)
        return torch.rand(1)

    assert torch.equal(next_number(), next_number())


@pytest.mark.parametrize(
    ("trainer", "times"), [("MaPLe", 1), ("CoOp", 1), ("CoCoOp", 6), ("VPT", 0)]
)
def test_texts_are_encoded_once_for_all_batches(build, tmp_path, monkeypatch, trainer, times):
    built = build(trainer, tmp_path, opts=["DATALOADER.TEST.BATCH_SIZE", 50])
    encode, calls = clip.encode_prompts, []
    monkeypatch.setattr(
        clip, "encode_prompts", lambda *a, **options: calls.append(1) or encode(*a, **options)
    )
    built.test()
    assert len(calls) == times


def test_batches_are_encoded_once_within_the_limit():
    encoded = []

    def encode(images):
        encoded.append(images)
        return images.sum(dim=1)

    known = BatchFeatures(limit=3 * 4 * 4)
    batches = [torch.full((4, 2), float(i)) for i in range(4)]
    for batch in [batches[0], batches[1], batches[0].clone(), batches[2], batches[1]]:
        assert torch.equal(known.get(batch, encode), batch.sum(dim=1))
    assert len(encoded) == 3
    known.get(batches[3], encode)  # batches[0] was used longest ago
    assert known.used == 3 * 4 * 4
    known.get(batches[1], encode)
    assert len(encoded) == 4
    known.get(batches[0], encode)
    assert len(encoded) == 5


def test_runs_with_one_seed_share_their_training_features(build, tmp_path):
    cache, encoded = {}, []
    for name, bits in [("a", 1), ("b", 2)]:
        opts = ["TRAINER.QPROMPT.BITS", bits]
        run = build("QCoOp", tmp_path / name, opts=opts, cache=cache)
        encode = run.model.encode_image
        run.model.encode_image = lambda x, encode=encode: encoded.append(len(x)) or encode(x)
        run.train()
    test = len(run.dm.dataset.test)
    assert sum(encoded) in (2 * len(run.dm.dataset.train_x), 2 * len(run.dm.dataset.train_x) + test)


def test_mixed_and_full_precision_do_not_share_training_features(build):
    cache = {}
    runs = [build("CoOp", "", cache=cache) for _ in range(2)]
    runs[1].precision, runs[1].scaler = "amp", torch.amp.GradScaler("cpu")  # as with a GPU
    batch = next(iter(runs[0].train_loader_x))
    dtypes = [run.parse_batch_train(batch)[0].dtype for run in runs]
    assert dtypes == [torch.float32, torch.bfloat16]
