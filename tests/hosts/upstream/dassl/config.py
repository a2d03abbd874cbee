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
            "DATASET": {"ROOT": "", "NAME": "", "NUM_SHOTS": -1},
            "MODEL": {"INIT_WEIGHTS": "", "BACKBONE": {"NAME": ""}},
            "OPTIM": {"NAME": "adam", "LR": 0.0003, "MAX_EPOCH": 10, "WARMUP_EPOCH": -1},
            "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10},
            "TEST": {"NO_TEST": False, "SPLIT": "test", "FINAL_MODEL": "last_step"},
            "TRAINER": {"NAME": ""},
        }
    )
