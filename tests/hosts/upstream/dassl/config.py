"""The configuration keys that prompt learners read."""

from yacs.config import CfgNode


def get_cfg_default():
    """Return a fresh configuration."""
    return CfgNode(
        {
            "VERBOSE": True,
            "SEED": -1,
            "USE_CUDA": True,
            "OUTPUT_DIR": "./output",
            "RESUME": "",
            "INPUT": {
                "SIZE": (224, 224),
                "INTERPOLATION": "bilinear",
                "TRANSFORMS": (),
                "PIXEL_MEAN": [0.485, 0.456, 0.406],
                "PIXEL_STD": [0.229, 0.224, 0.225],
                "RRCROP_SCALE": (0.08, 1.0),
            },
            "DATASET": {"ROOT": "", "NAME": "", "NUM_SHOTS": -1},
            "DATALOADER": {
                "NUM_WORKERS": 4,
                "TRAIN_X": {"BATCH_SIZE": 32},
                "TEST": {"BATCH_SIZE": 32},
            },
            "MODEL": {"INIT_WEIGHTS": "", "BACKBONE": {"NAME": ""}},
            "OPTIM": {"NAME": "adam", "LR": 0.0003, "MAX_EPOCH": 10, "WARMUP_EPOCH": -1},
            "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10},
            "TEST": {"NO_TEST": False, "SPLIT": "test", "FINAL_MODEL": "last_step"},
            "TRAINER": {"NAME": ""},
        }
    )
