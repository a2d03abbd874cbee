# ruff: noqa: F401
"""Registries, files, logging, checkpoints and other helpers."""

from dassl.utils.cache import Cache, construct, get_or_make
from dassl.utils.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from dassl.utils.errors import UserError, message, short_repr
from dassl.utils.files import (
    OutputDirError,
    atomic_write,
    check_isfile,
    copy_file,
    is_utf8,
    listdir_nohidden,
    mkdir_if_missing,
    parse_yaml,
    read_json,
    write_json,
    writing,
)
from dassl.utils.folder import FolderInUseError, NoLocksError, hold
from dassl.utils.images import ImageReadError, check_images, read_image
from dassl.utils.interrupts import check_signals, defer_signals, exit_on_signals
from dassl.utils.logger import Logger, ProgressBar, log_to, print_anything, setup_logger
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import (
    Registry,
    UnknownNameError,
    check_availability,
    check_choice,
    nearest,
)
from dassl.utils.restore import load_pretrained_weights, load_weights, resume_from_checkpoint
from dassl.utils.tools import (
    choose_device,
    collect_env_info,
    numerics,
    package_versions,
    set_numerics,
    set_random_seed,
    tolist_if_not,
)
from dassl.utils.torchtools import count_num_param, open_all_layers, open_specified_layers
