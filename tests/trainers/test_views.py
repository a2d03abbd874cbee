"""Training on the features of a few views of each image."""

import pytest
import torch

from trainers.views import ViewLoader


def test_views_are_those_of_the_images(build, tmp_path):
    run = build("CoOp", tmp_path, opts=["DATALOADER.CACHED_VIEWS", 3])
    loader = run.train_loader_x
    torch.manual_seed(5)
    run.before_train()
    torch.manual_seed(5)
    seeds = torch.randint(2**63 - 1, (len(loader.dataset), 3))
    image = loader.dataset[4, int(seeds[4, 2])]["img"]
    expected = run.model.encode_image(image[None])[0]
    torch.testing.assert_close(run.train_loader_x.features[4, 2], expected, rtol=1e-4, atol=1e-5)
    run.close_writer()


def test_order_and_count_of_images_stay_and_all_views_are_drawn(build):
    loader = build("CoOp", "").train_loader_x
    n, views = len(loader.dataset), 3
    features = torch.arange(n * views, dtype=torch.float).view(n, views, 1)
    torch.manual_seed(0)
    plain = [batch["index"].tolist() for batch in loader]
    torch.manual_seed(0)
    epoch = list(ViewLoader(loader, features))
    assert [batch["index"].tolist() for batch in epoch] == plain
    assert len(ViewLoader(loader, features)) == len(loader)
    drawn = set()
    for _ in range(30):
        for batch in ViewLoader(loader, features):
            image, view = batch["img"][:, 0].long() // views, batch["img"][:, 0].long() % views
            assert torch.equal(image, batch["index"])
            drawn |= set(zip(image.tolist(), view.tolist(), strict=True))
    assert len(drawn) == n * views


@pytest.mark.parametrize("trainer", ["CoOp", "QCoCoOp"])
def test_a_run_encodes_each_view_once_and_learns(build, tmp_path, trainer):
    run = build(trainer, tmp_path, opts=["DATALOADER.CACHED_VIEWS", 2, "TEST.FEATURE_CACHE", ""])
    encode, encoded = run.model.encode_image, []
    run.model.encode_image = lambda image: encoded.append(len(image)) or encode(image)
    before = {name: p.clone() for name, p in run.model.prompt_learner.named_parameters()}
    run.train()
    test = len(run.dm.dataset.test)
    assert sum(encoded) == 2 * len(run.dm.dataset.train_x) + test
    assert any(
        not torch.equal(p, before[name]) for name, p in run.model.prompt_learner.named_parameters()
    )


def test_a_negative_number_is_refused(build, tmp_path):
    run = build("CoOp", tmp_path, opts=["DATALOADER.CACHED_VIEWS", -1])
    with pytest.raises(ValueError, match="CACHED_VIEWS is -1"):
        run.before_train()


def test_a_tower_that_sees_prompts_is_refused(build, tmp_path):
    run = build("MaPLe", tmp_path, opts=["DATALOADER.CACHED_VIEWS", 2])
    with pytest.raises(ValueError, match="CACHED_VIEWS is 2, but the image tower of MaPLe"):
        run.before_train()
