"""CLIP-Adapter and Tip-Adapter: against their equations, and on other classes."""

import pytest
import torch
from torch.nn import functional as F

import clip
from trainers.image_cache import ImageCache, encode_classes

NAMES = ["zero", "one", "two", "three", "four"]


@pytest.fixture(params=["tiny", pytest.param("vit_b32", marks=pytest.mark.slow)])
def pair(request):
    return request.getfixturevalue("tiny_pair" if request.param == "tiny" else request.param)


@pytest.fixture
def prepared(build, pair, monkeypatch):
    """A trainer on a backbone, a batch of it, and its plain text and image features."""
    backbone, plain = pair
    monkeypatch.setattr(clip, "load", lambda *_: backbone)
    tokens = clip.tokenize([f"a photo of the digit {name}." for name in NAMES])
    text = plain.text(plain.state["token_embedding.weight"][tokens], tokens.argmax(-1))

    def prepared(trainer, *opts):
        size = backbone.visual.image_size
        options = ["INPUT.SIZE", (*size,), "DATALOADER.TRAIN_X.BATCH_SIZE", 3]
        run = build(trainer, "", opts=[*options, "TEST.FEATURE_CACHE", "", *opts])
        batch = next(iter(run.train_loader_x))
        return run, batch, text, plain.state["logit_scale"].exp()

    return prepared


def assert_agree(ours, expected):
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_clip_adapter(prepared, pair):
    run, batch, text, scale = prepared("CLIPAdapter", "TRAINER.CLIPADAPTER.RATIO", 0.3)
    loss, logits = run.loss(*run.parse_batch_train(batch))
    run.backward(loss)
    adapter = run.model.prompt_learner
    weights = {k: t.clone().requires_grad_() for k, t in adapter.state_dict().items()}
    width = text.shape[1]
    assert {k: tuple(t.shape) for k, t in weights.items()} == {
        "fc.0.weight": (width // 4, width),
        "fc.2.weight": (width, width // 4),
    }
    feature = pair[1].image(batch["img"], normalise=False)
    hidden = (feature @ weights["fc.0.weight"].T).clamp(min=0)
    mixed = 0.3 * (hidden @ weights["fc.2.weight"].T).clamp(min=0) + 0.7 * feature
    expected = scale * mixed / mixed.norm(dim=-1, keepdim=True) @ text.T
    F.cross_entropy(expected, batch["label"]).backward()
    assert_agree(logits, expected)
    for name, parameter in adapter.named_parameters():
        assert_agree(parameter.grad, weights[name].grad)


def test_tip_adapter(prepared, pair):
    run, batch, text, scale = prepared("TipAdapterF", "TRAINER.TIPADAPTER.INIT_BETA", 5.5)
    cache = run.model.prompt_learner
    torch.manual_seed(0)
    keys = F.normalize(torch.randn(7, text.shape[1]), dim=-1)
    owners = [0, 1, 1, 2, 3, 3, 4]
    classes = encode_classes(NAMES, [1, 2, 1, 2, 1])
    cache.load_state_dict({"cache_keys": keys, "classes": classes}, strict=False)
    loss, logits = run.loss(*run.parse_batch_train(batch))
    run.backward(loss)

    keys.requires_grad_()
    expected = []
    for x in pair[1].image(batch["img"]):
        row = [scale * x @ w for w in text]
        for key, owner in zip(keys, owners, strict=True):
            row[owner] = row[owner] + 1.17 * (-5.5 * (1 - x @ key)).exp()
        expected.append(torch.stack(row))
    expected = torch.stack(expected)
    F.cross_entropy(expected, batch["label"]).backward()
    assert_agree(logits, expected)
    assert_agree(cache.cache_keys.grad, keys.grad)
    assert cache.alpha.grad is None and cache.beta.grad is None


# ---- the cache


def test_a_cache_knows_its_classes_by_name():
    text = F.normalize(torch.randn(3, 8), dim=-1)
    cache = ImageCache(text, ["crane", "dog", "crane"], 1.0, 1.0)
    assert torch.equal(cache.cache_values, torch.eye(3))
    other = ImageCache(text, ["été", "crane", "dog"], 1.0, 1.0)
    cache.load_state_dict(
        {
            "cache_keys": torch.randn(6, 8),
            "classes": encode_classes(["crane", "dog", "crane", "été"], [1, 2, 1, 2]),
        },
        strict=False,
    )
    owners = [0, 1, 1, 2, None, None]
    assert (
        cache.cache_values.argmax(-1)[:4].tolist() == owners[:4] and cache.cache_values.sum() == 4
    )
    other.load_state_dict(cache.state_dict())
    assert other.cache_values.nonzero().tolist() == [[0, 1], [1, 2], [2, 2], [4, 0], [5, 0]]


def test_the_cache_holds_the_mean_of_views(build, tmp_path):
    run = build("TipAdapter", tmp_path, opts=["TRAINER.TIPADAPTER.AUGMENT_EPOCH", 3])
    torch.manual_seed(5)
    run.fill()
    cache = run.model.prompt_learner
    data = run.dm.train_loader_x.dataset
    torch.manual_seed(5)
    seeds = torch.randint(2**63 - 1, (len(data), 3))
    order = sorted(range(len(data)), key=lambda i: data.data_source[i].label)
    for row in (0, 7):
        views = [data[order[row], int(seed)]["img"] for seed in seeds[order[row]]]
        mean = run.model.encode_image(torch.stack(views)).mean(0)
        expected = mean / mean.norm()
        torch.testing.assert_close(cache.cache_keys[row], expected, atol=1e-5, rtol=0)
    labels = cache.cache_values.argmax(-1)
    assert labels.tolist() == sorted(item.label for item in data.data_source)


def test_alpha_and_beta_fit_the_validation_images_best(build, tmp_path):
    run = build("TipAdapter", tmp_path, opts=["TRAINER.TIPADAPTER.SEARCH_STEP", (5, 3)])
    run.fill()
    cache = run.model.prompt_learner
    wrong = cache.cache_keys.roll(3, dims=0)  # most images under another class
    cache.load_state_dict({"cache_keys": wrong}, strict=False)
    run.search()
    found = cache.beta.item(), cache.alpha.item()
    label = torch.tensor([item.label for item in run.dm.dataset.val])

    @torch.no_grad()
    def rating(beta, alpha):
        """Number of correct images, then the mean probability of their classes."""
        cache.load_state_dict({"alpha": torch.tensor(alpha), "beta": torch.tensor(beta)}, False)
        p = torch.cat([run.model(batch["img"]) for batch in run.val_loader]).softmax(-1)
        return (p.argmax(-1) == label).sum().item(), p[torch.arange(len(p)), label].mean().item()

    grid = [(0.1 + 12.9 * i / 5, 0.1 + 12.9 * j / 3) for i in range(5) for j in range(3)]
    ratings = {pair: rating(*pair) for pair in grid}
    assert len({correct for correct, _ in ratings.values()}) > 1
    assert found == pytest.approx(max(ratings, key=ratings.get))


def test_noise_fits_the_cache_and_chooses_nothing(build, tmp_path):
    noise = ["TRAINER.QPROMPT.MODE", "noise", "TRAINER.QPROMPT.NOISE_STD", 0.5]
    run = build("QTipAdapterF", tmp_path, opts=[*noise, "TRAINER.TIPADAPTER.SEARCH_STEP", (20, 20)])
    run.train()
    chosen = run.run_summary()
    run.search()  # after the test, which has no noise
    again = run.run_summary()
    assert (again["alpha"], again["beta"]) == (chosen["alpha"], chosen["beta"])


@pytest.mark.parametrize("val", ["none", "test"])
def test_test_images_choose_nothing(build, tmp_path, capsys, val):
    run = build("TipAdapter", tmp_path)
    run.dm.dataset.val = [] if val == "none" else run.dm.dataset.test
    run.search()
    assert "alpha and beta stay as configured" in capsys.readouterr().out
    assert run.run_summary()["alpha"] == pytest.approx(1.17)


def test_classes_without_images_have_zero_shot_logits(build, tmp_path):
    build("TipAdapter", tmp_path).train()
    new = ["DATASET.SUBSAMPLE_CLASSES", "new"]
    run, zero_shot = build("TipAdapter", "", opts=new), build("ZeroshotCLIP", "", opts=new)
    run.load_model(str(tmp_path))
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run.model(images), zero_shot.model(images))


def test_features_of_another_width_are_refused(build, tmp_path):
    run = build("TipAdapter", "")
    (tmp_path / "tip_adapter").mkdir()
    state = {"cache_keys": torch.randn(20, 512)}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "tip_adapter/model.pth.tar-1")
    with pytest.raises(ValueError, match="does not fit this model"):
        run.load_model(str(tmp_path))


# ---- CLIP-Adapter's checkpoints


def test_upstreams_clip_adapter_loads(build, tmp_path, capsys):
    run = build("CLIPAdapter", "")
    state = {"fc.0.weight": torch.randn(32, 128), "fc.2.weight": torch.randn(128, 32)}
    (tmp_path / "clip_adapter").mkdir()
    torch.save({"state_dict": state, "epoch": 9}, tmp_path / "clip_adapter/model.pth.tar-9")
    run.load_model(str(tmp_path))
    out = capsys.readouterr().out
    assert "missing keys: none" in out and "unexpected keys: none" in out
