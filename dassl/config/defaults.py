"""The configuration keys of the engine and their defaults; trainers add nodes of their own."""

from __future__ import annotations

from collections.abc import Callable

from dassl.config.node import CfgNode as CN

_extensions: list[Callable[[CN], None]] = []


def extends_defaults(extend: Callable[[CN], None]) -> Callable[[CN], None]:
    """Let each default configuration have what a function adds to it; a decorator."""
    _extensions.append(extend)
    return extend


def get_cfg_default() -> CN:
    """Return a new configuration tree with all defaults."""
    cfg = CN()
    cfg.VERSION = 1
    cfg.OUTPUT_DIR = "./output"
    cfg.RESUME = ""  # a folder with checkpoints, instead of OUTPUT_DIR
    cfg.SEED = -1  # negative: unseeded
    cfg.USE_CUDA = True
    cfg.VERBOSE = True

    cfg.INPUT = CN()
    cfg.INPUT.SIZE = (224, 224)
    cfg.INPUT.INTERPOLATION = "bilinear"
    cfg.INPUT.TRANSFORMS = ()
    cfg.INPUT.NO_TRANSFORM = False
    cfg.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]
    cfg.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]
    cfg.INPUT.RRCROP_SCALE = (0.08, 1.0)
    cfg.INPUT.CROP_PADDING = 4  # pixels, of random_crop
    cfg.INPUT.RANDAUGMENT_N = 2  # operations
    cfg.INPUT.RANDAUGMENT_M = 10  # their magnitude
    cfg.INPUT.COLORJITTER_B = 0.4  # brightness, contrast, saturation, hue
    cfg.INPUT.COLORJITTER_C = 0.4
    cfg.INPUT.COLORJITTER_S = 0.4
    cfg.INPUT.COLORJITTER_H = 0.1
    cfg.INPUT.RGS_P = 0.2  # probability of randomgrayscale
    cfg.INPUT.GB_P = 0.5  # probability and kernel size of gaussian_blur
    cfg.INPUT.GB_K = 21

    cfg.DATASET = CN()
    cfg.DATASET.ROOT = ""
    cfg.DATASET.NAME = ""
    cfg.DATASET.SOURCE_DOMAINS = ()
    cfg.DATASET.TARGET_DOMAINS = ()
    cfg.DATASET.NUM_SHOTS = -1  # images of each class; less than 1: all
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base or new
    cfg.DATASET.TEMPLATE = None  # prompts with {} for the class name; None: the data set's own

    cfg.DATALOADER = CN()
    cfg.DATALOADER.NUM_WORKERS = 4
    cfg.DATALOADER.PIXEL_CACHE_MB = 2048  # decoded training images that are kept in memory
    cfg.DATALOADER.K_TRANSFORMS = 1  # augmentations of each training image: img, img2, ...
    cfg.DATALOADER.RETURN_IMG0 = False  # also the training image as it is: img0
    cfg.DATALOADER.TRAIN_X = CN()
    cfg.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 32
    cfg.DATALOADER.TRAIN_X.N_DOMAIN = 0  # domains in a batch, of RandomDomainSampler; 0: all
    cfg.DATALOADER.TRAIN_X.N_INS = 16  # images of a class in a batch, of RandomClassSampler
    cfg.DATALOADER.TRAIN_U = CN()  # unlabelled images, of TrainerXU
    cfg.DATALOADER.TRAIN_U.SAME_AS_X = True  # take TRAIN_X in place of what follows
    cfg.DATALOADER.TRAIN_U.SAMPLER = "RandomSampler"
    cfg.DATALOADER.TRAIN_U.BATCH_SIZE = 32
    cfg.DATALOADER.TRAIN_U.N_DOMAIN = 0
    cfg.DATALOADER.TRAIN_U.N_INS = 16
    cfg.DATALOADER.TEST = CN()
    cfg.DATALOADER.TEST.SAMPLER = "SequentialSampler"
    cfg.DATALOADER.TEST.BATCH_SIZE = 32

    cfg.MODEL = CN()
    cfg.MODEL.INIT_WEIGHTS = ""
    cfg.MODEL.BACKBONE = CN()
    cfg.MODEL.BACKBONE.NAME = ""
    cfg.MODEL.BACKBONE.PRETRAINED = True
    cfg.MODEL.HEAD = CN()
    cfg.MODEL.HEAD.NAME = ""
    cfg.MODEL.HEAD.HIDDEN_LAYERS = ()
    cfg.MODEL.HEAD.ACTIVATION = "relu"
    cfg.MODEL.HEAD.BN = True
    cfg.MODEL.HEAD.DROPOUT = 0.0

    cfg.OPTIM = CN()
    cfg.OPTIM.NAME = "adam"
    cfg.OPTIM.LR = 0.0003
    cfg.OPTIM.WEIGHT_DECAY = 5e-4
    cfg.OPTIM.MOMENTUM = 0.9
    cfg.OPTIM.SGD_DAMPNING = 0.0
    cfg.OPTIM.SGD_NESTEROV = False
    cfg.OPTIM.RMSPROP_ALPHA = 0.99
    cfg.OPTIM.ADAM_BETA1 = 0.9
    cfg.OPTIM.ADAM_BETA2 = 0.999
    cfg.OPTIM.STAGED_LR = False  # BASE_LR_MULT times LR for all but the children NEW_LAYERS
    cfg.OPTIM.NEW_LAYERS = ()
    cfg.OPTIM.BASE_LR_MULT = 0.1
    cfg.OPTIM.LR_SCHEDULER = "single_step"  # single_step, multi_step or cosine
    cfg.OPTIM.STEPSIZE = (-1,)  # less than 1: never
    cfg.OPTIM.GAMMA = 0.1
    cfg.OPTIM.MAX_EPOCH = 10
    cfg.OPTIM.WARMUP_EPOCH = -1  # less than 1: no warm-up
    cfg.OPTIM.WARMUP_TYPE = "linear"  # linear or constant
    cfg.OPTIM.WARMUP_CONS_LR = 1e-5
    cfg.OPTIM.WARMUP_MIN_LR = 1e-5
    cfg.OPTIM.WARMUP_RECOUNT = True  # count the scheduler's epochs from the end of the warm-up

    cfg.TRAIN = CN()
    cfg.TRAIN.CHECKPOINT_FREQ = 0  # epochs; less than 1: after the last one only
    cfg.TRAIN.PRINT_FREQ = 10  # batches
    cfg.TRAIN.COMPILE = "none"  # none, default or reduce-overhead (CUDA graphs): torch.compile
    cfg.TRAIN.COUNT_ITER = "train_x"  # length of TrainerXU's epoch: train_x, train_u, smaller_one

    cfg.TEST = CN()
    cfg.TEST.EVALUATOR = "Classification"
    cfg.TEST.PER_CLASS_RESULT = False
    cfg.TEST.COMPUTE_CMAT = False  # saved to OUTPUT_DIR/cmat.pt
    cfg.TEST.NO_TEST = False
    cfg.TEST.SPLIT = "test"  # test or val
    cfg.TEST.FINAL_MODEL = "last_step"  # last_step or best_val

    cfg.TRAINER = CN()
    cfg.TRAINER.NAME = ""
    for extend in _extensions:
        extend(cfg)
    return cfg


def clean_cfg(cfg: CN, trainer: str) -> None:
    """Remove the nodes of all trainers but ``trainer`` from ``cfg.TRAINER``, in place."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
