"""Train or evaluate one trainer on one data set: the command line of CoOp and MaPLe."""

from __future__ import annotations

import argparse
import os.path as osp
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

import clip
import datasets  # noqa: F401 (registers the data sets)
import qprompt
import trainers  # noqa: F401 (registers the trainers)
from dassl.config import CfgNode, get_cfg_default
from dassl.engine import build_trainer, results
from dassl.utils import (
    Cache,
    UserError,
    choose_device,
    collect_env_info,
    distributed,
    exit_on_signals,
    hold,
    log_to,
    message,
    print_anything,
    set_numerics,
    set_random_seed,
)
from dassl.utils.checkpoint import reason
from sweeps import SweepError
from trainers.features import FeatureCache
from trainers.settings import take_settings

# what a user can put right, files that the system refuses included; anything else is a mistake of
# ours and shows its traceback
USER_ERRORS = (OSError, UserError, clip.ClipError, qprompt.QPromptError, SweepError)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    home = osp.expanduser
    add("--root", type=home, help="folder that holds the data sets")
    add("--output-dir", type=home, help="folder for logs, checkpoints and results.json")
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
    add("--model-dir", type=home, default="", help="run to evaluate: its folder or a packed file")
    add("--load-epoch", type=int, help="epoch to evaluate; default: best, else the last")
    add("--use-given-settings", action="store_true", help="evaluate unlike the run was trained")
    add("--no-train", action="store_true", help="build everything, train nothing")
    add("--no-feature-cache", action="store_true", help="neither use nor keep image features")
    add("--clear-feature-cache", action="store_true", help="delete the kept features, and exit")
    add("--sweep", help="run a grid: a YAML file, see docs/sweeps.md")
    add("--sweep-job", type=int, help="run one job of the grid, counted from 0")
    add("--together", metavar="N", default="auto", help="runs of the grid that train together")
    add("--jobs", metavar="N", default="1", help="processes for the grid; auto: as many as pay")
    add("opts", nargs=argparse.REMAINDER, help="configuration keys and values: KEY VALUE ...")
    return parser.parse_args(argv)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """Merge, in this order: defaults, data-set file, trainer file, flags, ``opts``; then freeze.

    An evaluation takes the settings that shape the prompt from the run that trained it.
    """
    cfg = get_cfg_default()
    default = cfg.clone()
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
        "TEST.FEATURE_CACHE": "" if args.no_feature_cache else None,
    }
    cfg.merge_from_flags({key: value for key, value in flags.items() if value is not None})
    cfg.merge_from_list(args.opts)
    if args.eval_only and not args.use_given_settings:
        given = [key for key, value in flags.items() if value is not None] + args.opts[::2]
        weights = args.model_dir or cfg.MODEL.INIT_WEIGHTS
        take_settings(cfg, default, given, weights, args.load_epoch)
    cfg.freeze()
    return cfg


def run(args: argparse.Namespace, cfg: CfgNode, cache: Cache | None = None) -> None:
    """Train or evaluate; ``cache``, shared with other runs, makes no difference to the results."""
    folder = cfg.OUTPUT_DIR
    with (
        distributed.process_group(cfg.USE_CUDA),
        hold(folder, required=False),
        log_to(folder),
        machine_too_small(cfg),
    ):
        set_random_seed(cfg.SEED)
        use_cuda = choose_device(cfg).type == "cuda"
        torch.backends.cudnn.benchmark = use_cuda
        set_numerics()
        if use_cuda:
            torch.cuda.reset_peak_memory_stats()
        print(f"** Config **\n{cfg}\n** System info **\n{collect_env_info()}")
        trainer = build_trainer(cfg, cache)
        if args.eval_only:
            if trainer.get_model_names() and not (args.model_dir or cfg.MODEL.INIT_WEIGHTS):
                raise UserError(
                    f"--eval-only of {cfg.TRAINER.NAME} needs trained weights: give --model-dir, "
                    "the folder of a run or a packed .safetensors file"
                )
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
            trainer.test()
        elif not args.no_train:
            trainer.train()


@contextmanager
def machine_too_small(cfg: CfgNode) -> Iterator[None]:
    """Say so in one line where memory ends, or a trainer's own ``.cuda()`` finds no GPU."""
    try:
        yield
    except (AssertionError, MemoryError, RuntimeError) as error:
        kinds = (MemoryError, torch.cuda.OutOfMemoryError)
        if isinstance(error, kinds) or "can't allocate memory" in str(error):
            raise UserError(
                f"{cfg.TRAINER.NAME} needs more memory than there is "
                f"({reason(error)}): lower DATALOADER.TRAIN_X.BATCH_SIZE, "
                "DATALOADER.TEST.BATCH_SIZE or MODEL.TEXT_CHUNK"
            ) from error
        if torch.cuda.is_available() or not re.search("CUDA|NVIDIA", str(error)):
            raise
        raise UserError(
            f"{cfg.TRAINER.NAME} puts tensors on a GPU by itself (.cuda()), and there is none: run "
            "it on a machine that has one"
        ) from error


def run_unless_finished(argv: Sequence[str], cache: Cache) -> None:
    """Run some arguments, unless their OUTPUT_DIR holds the results of this very run.

    Raises:
        RunMismatchError: it holds those of another one.
    """
    args = parse_args(argv)
    cfg = setup_cfg(args)
    record = osp.join(cfg.OUTPUT_DIR, "results.json")
    # an evaluation can leave a record of the same configuration, of a run that was never finished
    fields = {} if args.eval_only else {"weights": None}
    results.check_same_run(record, cfg, **fields)
    if not osp.exists(record):
        run(args, cfg, cache)


def run_sweep(args: argparse.Namespace) -> None:
    """Run a grid, and exit with 1 unless all its runs are finished then.

    Raises:
        UserError: the grid cannot be expanded, a run has no valid configuration, or flags are
            given that belong into it.
        UnknownConfigKeyError: opts, or a configuration file, has a key that there is not.
    """
    from qprompt.dassl import Options
    from sweeps.work import sweep

    if not args.sweep:
        raise UserError("--sweep-job is the number of a job of a sweep: give --sweep, too")
    allowed = {"sweep", "sweep_job", "together", "jobs", "root", "output_dir"}
    given = {key for key, value in vars(args).items() if value != vars(parse_args([]))[key]}
    if given - allowed:
        raise UserError(
            f"--sweep takes --root, --output-dir, --together and --jobs; what else is given "
            f"({', '.join(sorted(given - allowed))}) belongs into its file"
        )
    if not args.root:
        raise UserError("--sweep needs --root, the folder that holds the data sets")
    if torch.distributed.is_torchelastic_launched():
        raise UserError("--sweep does one run at a time: start it without torchrun")

    def check(argv: Sequence[str]) -> None:
        Options.from_cfg(setup_cfg(parse_args(argv)))

    output = "output" if args.output_dir is None else args.output_dir
    together, processes = _limit("--together", args.together), _limit("--jobs", args.jobs)
    if not sweep(
        *(args.sweep, args.root, output, run_unless_finished, check, args.sweep_job),
        together=together,
        processes=processes,
    ):
        sys.exit(1)


def _limit(flag: str, number: str) -> int | None:
    if number == "auto":
        return None
    if not re.fullmatch("[1-9][0-9]*", number):
        raise UserError(f"{flag} is auto or a number, at least 1, got {number}")
    return int(number)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print_anything()
    try:
        with exit_on_signals():
            if args.clear_feature_cache:
                cache = FeatureCache(setup_cfg(args).TEST.FEATURE_CACHE)
                print(f"{cache.clear()} files deleted from {cache.folder}")
            elif args.sweep or args.sweep_job is not None:
                run_sweep(args)
            else:
                run(args, setup_cfg(args))
    except USER_ERRORS as error:
        sys.exit(f"error: {message(error)}")


if __name__ == "__main__":
    main()
