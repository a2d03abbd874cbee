"""Train or evaluate one trainer on one data set: the command line of CoOp and MaPLe."""

from __future__ import annotations

import argparse
import functools
import operator

import torch

import datasets  # noqa: F401 (registers the data sets)
import trainers  # noqa: F401 (registers the trainers)
from dassl.config import CfgNode, get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger
from trainers.config import extend_cfg


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--root", help="folder that holds the data sets")
    add("--output-dir", help="folder for logs, checkpoints and results.json")
    add("--resume", help="folder of the run to resume")
    add("--seed", type=int, help="seed of all randomness; negative: none")
    add("--source-domains", nargs="+")
    add("--target-domains", nargs="+")
    add("--transforms", nargs="+", help="training transforms, in order")
    add("--config-file", help="trainer file, e.g. configs/trainers/QCoOp/vit_b16_ctxv1.yaml")
    add("--dataset-config-file", help="data-set file, e.g. configs/datasets/eurosat.yaml")
    add("--trainer", help="registered trainer, e.g. QCoOp")
    add("--backbone", help="ViT-B/16, architecture:pretrained, a file, or tiny")
    add("--head", help="name of the head (kept for Dassl's command lines)")
    add("--eval-only", action="store_true", help="test a trained model")
    add("--model-dir", default="", help="run to evaluate: its folder or a packed .safetensors file")
    add("--load-epoch", type=int, help="epoch to evaluate; default: best, else the last")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("opts", nargs=argparse.REMAINDER, help="configuration keys and values: KEY VALUE ...")
    return parser.parse_args(argv)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """Merge, in this order: defaults, data-set file, trainer file, flags, ``opts``; then freeze."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            cfg.merge_from_file(path)
    flags = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "SEED": args.seed,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
    }
    for key, value in flags.items():
        if value is not None:  # taken literally: a folder may be called 7
            *parents, name = key.split(".")
            node = functools.reduce(operator.getitem, parents, cfg)
            node[name] = tuple(value) if isinstance(value, list) else value
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = setup_cfg(args)
    set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    torch.backends.cudnn.benchmark = torch.cuda.is_available() and cfg.USE_CUDA
    print(f"** Config **\n{cfg}\n** System info **\n{collect_env_info()}")
    trainer = build_trainer(cfg)
    if args.eval_only:
        if trainer.get_model_names() and not (args.model_dir or cfg.MODEL.INIT_WEIGHTS):
            raise ValueError(
                f"--eval-only of {cfg.TRAINER.NAME} needs trained weights: give --model-dir, the "
                "folder of a run or a packed .safetensors file"
            )
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    elif not args.no_train:
        trainer.train()


if __name__ == "__main__":
    main()
