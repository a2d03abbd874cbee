"""Names of Dassl that public prompt-learning code imports, and who needs them."""

import pytest
import torch
from PIL import Image
from torch import nn

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.data.samplers import build_sampler
from dassl.data.transforms import build_transform
from dassl.data.transforms.transforms import CHOICES
from dassl.engine import TrainerXU
from dassl.utils import UserError, read_image

# Base: CoOp, MaPLe, PromptSRC, KgCoOp and ProGrad.
NAMES = """
from dassl.config import get_cfg_default  # Base
from dassl.config import clean_cfg, cfg_default  # Dassl's own scripts
from dassl.data import DataManager, DatasetWrapper  # Base, MVLPT
from dassl.data.data_manager import DataManager, DatasetWrapper, build_data_loader  # UPL, MVLPT
from dassl.data.data_manager import build_transform  # active learning of prompts
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset  # Base
from dassl.data.datasets.base_dataset import DatasetBase, Datum  # UPL
from dassl.data.datasets.build import DATASET_REGISTRY, build_dataset  # UPL
from dassl.data.samplers import build_sampler, RandomSampler  # MVLPT
from dassl.data.transforms import INTERPOLATION_MODES, build_transform  # ProGrad, MVLPT
from dassl.data.transforms.transforms import build_transform  # UPL
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer  # Base
from dassl.engine import TrainerXU  # DAPrompt
from dassl.engine import SimpleNet, SimpleTrainer, TrainerBase  # domain generalization by prompts
from dassl.engine.build import TRAINER_REGISTRY, build_trainer  # forks with trainers elsewhere
from dassl.engine.trainer import TrainerX, MetricMeter, AverageMeter, SummaryWriter  # DePT
from dassl.engine.trainer import SimpleNet, SimpleTrainer, TrainerXU  # domain generalization
from dassl.evaluation import EVALUATOR_REGISTRY, Classification, EvaluatorBase  # MVLPT
from dassl.evaluation import build_evaluator  # UPL
from dassl.evaluation.build import EVALUATOR_REGISTRY, build_evaluator  # UPL
from dassl.evaluation.evaluator import Classification  # UPL
from dassl.metrics import compute_accuracy  # Base
from dassl.metrics.accuracy import compute_accuracy  # federated and unlearning forks
from dassl.metrics import compute_distance_matrix  # active learning of prompts
from dassl.modeling import build_backbone, build_head, build_network  # forks of the engine
from dassl.modeling.ops.utils import create_onehot, sharpen_prob  # pseudo-labels for CLIP
from dassl.modeling.ops.utils import ema_model_update, linear_rampup, sigmoid_rampup  # teachers
from dassl.optim import build_lr_scheduler, build_optimizer  # Base
from dassl.optim.lr_scheduler import build_lr_scheduler  # UPL
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler  # multi-label
from dassl.optim.optimizer import build_optimizer  # DePT
from dassl.optim.radam import RAdam  # forks with an optimizer file of their own
from dassl.utils import Registry, check_availability  # PromptFL
from dassl.utils import collect_env_info, set_random_seed, setup_logger  # Base
from dassl.utils import check_isfile, listdir_nohidden, read_image  # Base
from dassl.utils import count_num_param, tolist_if_not, MetricMeter, AverageMeter  # UPL
from dassl.utils import load_checkpoint, load_pretrained_weights, save_checkpoint  # DAPrompt
from dassl.utils import mkdir_if_missing, read_json, write_json, resume_from_checkpoint  # Base
from dassl.utils import open_all_layers, open_specified_layers  # Dassl's own trainers
from dassl.utils.meters import AverageMeter, MetricMeter  # domain generalization by prompts
from dassl.utils.tools import mkdir_if_missing, read_image, check_isfile  # forks of parse_test_res
from dassl.utils.torchtools import count_num_param, load_pretrained_weights  # learned styles
from dassl.utils.torchtools import resume_from_checkpoint, save_checkpoint  # medical forks
"""
# Domain adaptation and generalization, and semi-supervised learning.
OUT_OF_SCOPE = """
from dassl.data.datasets import OfficeHome  # DAPrompt
from dassl.data.datasets.dg import PACS
from dassl.engine.dg import Vanilla
from dassl.engine.ssl import FixMatch
from dassl.modeling.ops import MixStyle
import dassl.modeling.backbone.resnet
"""


def lines(table):
    return [line.partition("#")[0].strip() for line in table.strip().splitlines()]


@pytest.mark.parametrize("line", lines(NAMES))
def test_name(line):
    exec(line, {})


@pytest.mark.parametrize("line", lines(OUT_OF_SCOPE))
def test_out_of_scope(line):
    with pytest.raises(ImportError, match=r"^dassl\.\S+ is not here: .*Dassl.pytorch$"):
        exec(line, {})


def test_a_forks_file(tmp_path):
    """The keys of a fork's YAML that prompt learning has a use for."""
    file = tmp_path / "fork.yaml"
    file.write_text(
        "DATALOADER: {K_TRANSFORMS: 2, RETURN_IMG0: True, NUM_WORKERS: 8,\n"
        "  TRAIN_X: {BATCH_SIZE: 32, SAMPLER: RandomClassSampler, N_INS: 4, N_DOMAIN: 0},\n"
        "  TRAIN_U: {SAME_AS_X: False, BATCH_SIZE: 64, SAMPLER: RandomSampler}}\n"
        "INPUT: {TRANSFORMS: [random_resized_crop, colorjitter, randomgrayscale, normalize],\n"
        "  CROP_PADDING: 4, COLORJITTER_B: 0.2, COLORJITTER_C: 0.2, COLORJITTER_S: 0.2,\n"
        "  COLORJITTER_H: 0.05, RGS_P: 0.1, GB_P: 0.3, GB_K: 9, RANDAUGMENT_N: 1}\n"
        "OPTIM: {STAGED_LR: True, NEW_LAYERS: [head], BASE_LR_MULT: 0.1}\n"
        "TRAIN: {COUNT_ITER: smaller_one}\n"
    )
    cfg = get_cfg_default()
    cfg.merge_from_file(file)
    assert cfg.DATALOADER.TRAIN_U.BATCH_SIZE == 64 and cfg.INPUT.COLORJITTER_H == 0.05


def test_staged_learning_rates(make_cfg):
    from dassl.optim import build_optimizer

    model = nn.Sequential()
    model.base, model.head = nn.Linear(2, 3), nn.Linear(3, 1)
    model.own = nn.Parameter(torch.zeros(2))
    stages = ("OPTIM.STAGED_LR", True, "OPTIM.LR", 0.5, "OPTIM.BASE_LR_MULT", 0.1)
    groups = build_optimizer(model, make_cfg(*stages, "OPTIM.NEW_LAYERS", ("head",)).OPTIM)
    rates = {id(p): group["lr"] for group in groups.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == [0.05, 0.05, 0.05, 0.5, 0.5]
    with pytest.raises(UserError, match=r"NEW_LAYERS.*\['neck'\].*base, head"):
        build_optimizer(model, make_cfg(*stages, "OPTIM.NEW_LAYERS", ("neck",)).OPTIM)


def test_distances():
    from dassl.metrics import compute_distance_matrix

    one, other = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [4.0, 3.0]])
    assert compute_distance_matrix(one, other).tolist() == [[25.0, 2.0]]
    assert compute_distance_matrix(one, other[1:], "cosine").item() == pytest.approx(1 - 24 / 25)


def test_simple_net():
    from dassl.engine import SimpleNet
    from dassl.modeling import BACKBONE_REGISTRY, Backbone

    class Flat(Backbone):
        out_features = 12

        def __init__(self, pretrained):
            super().__init__()

        def forward(self, x):
            return x.flatten(1)

    BACKBONE_REGISTRY.register(Flat, force=True)
    cfg = get_cfg_default()
    cfg.VERBOSE, cfg.MODEL.BACKBONE.NAME = False, "Flat"
    cfg.MODEL.HEAD.NAME, cfg.MODEL.HEAD.HIDDEN_LAYERS = "mlp", (5, 4)
    net, images = SimpleNet(cfg, cfg.MODEL, 3), torch.rand(2, 3, 2, 2)
    scores, features = net(images, return_feature=True)
    assert scores.shape == (2, 3) and features.shape == (2, net.fdim) == (2, 4)
    assert SimpleNet(cfg, cfg.MODEL, 0)(images).shape == (2, 4)


def test_ramps_and_averages():
    from dassl.modeling.ops import utils

    assert utils.create_onehot(torch.tensor([1]), 3).tolist() == [[0.0, 1.0, 0.0]]
    sharp = utils.sharpen_prob(torch.tensor([[0.25, 0.75]]), 2)
    torch.testing.assert_close(sharp, torch.tensor([[0.1, 0.9]]))
    assert [utils.linear_rampup(t, 4) for t in (0, 1, 9)] == [0.0, 0.25, 1.0]
    assert utils.sigmoid_rampup(9, 4) == utils.sigmoid_rampup(0, 0) == 1.0
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(average.weight), nn.init.ones_(model.weight)
    utils.ema_model_update(model, average, 0.9)
    assert average.weight.item() == pytest.approx(0.1)


def test_views_of_training_images(make_trainer):
    views = ("DATALOADER.K_TRANSFORMS", 3, "DATALOADER.RETURN_IMG0", True)
    trainer = make_trainer(*views)
    batch = next(iter(trainer.train_loader_x))
    assert {"img", "img2", "img3", "img0"} <= batch.keys()
    assert not torch.equal(batch["img"], batch["img2"])
    item = trainer.dm.dataset.train_x[int(batch["index"][0])]
    plain = build_transform(trainer.cfg, is_train=False)(read_image(item.impath))
    assert torch.equal(batch["img0"][0], plain)
    assert "img2" not in next(iter(trainer.test_loader))


def test_unlabelled_images(make_cfg, monkeypatch):
    class Both(TrainerXU):
        def build_model(self):
            self.model, self.seen = nn.Linear(1, 1), []
            self.register_model("model", self.model)

        def forward_backward(self, batch_x, batch_u):
            image, label, unlabelled = self.parse_batch_train(batch_x, batch_u)
            self.seen.append((len(label), len(unlabelled)))
            assert self.num_batches == 10 and image.shape[1:] == unlabelled.shape[1:]
            return {"loss": 0.0}

    opts = ["TRAIN.COUNT_ITER", "train_u", "TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 1]
    opts += ["DATALOADER.TRAIN_U.SAME_AS_X", False, "DATALOADER.TRAIN_U.BATCH_SIZE", 2]
    cfg = make_cfg(*opts)
    with pytest.raises(UserError, match=r"Toy has none \(train_u\)"):
        Both(cfg).run_epoch()
    toy = DATASET_REGISTRY.get("Toy")
    plain_init = toy.__init__

    def init(self, cfg):
        plain_init(self, cfg)
        self.train_u = self.train_x[:20]

    monkeypatch.setattr(toy, "__init__", init)
    run = Both(cfg)
    run.train()
    assert run.seen == [(4, 2)] * 10


@pytest.mark.parametrize(
    ("sampler", "attribute", "options"),
    [("RandomClassSampler", "label", (6, 0, 3)), ("RandomDomainSampler", "domain", (4, 2, 16))],
)
def test_samplers_of_groups(sampler, attribute, options):
    items = [Datum("", label, label % 2) for label in (0, 1, 2, 3) for _ in range(7)]
    chosen = build_sampler(sampler, items, *options)
    order = [index for index, _ in chosen]
    size = options[0]
    assert len(order) == len(chosen) == len(set(order)) and len(order) % size == 0
    for start in range(0, len(order), size):
        groups = [getattr(items[i], attribute) for i in order[start : start + size]]
        assert {groups.count(group) for group in groups} == {size // 2}
    with pytest.raises(UserError, match=f"{attribute}s with"):
        build_sampler(sampler, items, 100, 2, 50)


def test_each_transform(make_cfg):
    image = Image.new("RGB", (20, 20), "teal")
    for choice in CHOICES:
        cfg = make_cfg("INPUT.TRANSFORMS", (choice,), "VERBOSE", False, "INPUT.GB_K", 3)
        assert build_transform(cfg)(image).shape == (3, 8, 8), choice
