"""Checkpoints, seeds and the registry."""

import json
import os
import random
import shutil

import numpy as np
import torch


def mkdir_if_missing(dirname):
    """Make a folder."""
    os.makedirs(dirname, exist_ok=True)


def read_json(fpath):
    """Read a JSON file."""
    with open(fpath) as file:
        return json.load(file)


class Registry:
    """Classes by name; a name can be taken once."""

    def __init__(self, name):
        self._name, self._objects = name, {}

    def register(self, obj=None, force=False):
        if obj is None:
            return lambda obj: self.register(obj, force) or obj
        if obj.__name__ in self._objects and not force:
            raise KeyError(f'"{obj.__name__}" is taken in the registry "{self._name}"')
        self._objects[obj.__name__] = obj

    def get(self, name):
        return self._objects[name]

    def registered_names(self):
        return list(self._objects)


def set_random_seed(seed):
    """Seed the three generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def save_checkpoint(state, save_dir, is_best=False, remove_module_from_keys=True, model_name=""):
    """Pickle a checkpoint and name it in the file ``checkpoint``."""
    os.makedirs(save_dir, exist_ok=True)
    if remove_module_from_keys:
        stripped = {
            key.replace("module.", "", 1) if key.startswith("module.") else key: value
            for key, value in state["state_dict"].items()
        }
        state = {**state, "state_dict": stripped}
    name = model_name or f"model.pth.tar-{state['epoch']}"
    torch.save(state, os.path.join(save_dir, name))
    with open(os.path.join(save_dir, "checkpoint"), "w") as file:
        file.write(f"{name}\n")
    if is_best:
        best = os.path.join(save_dir, "model-best.pth.tar")
        shutil.copy(os.path.join(save_dir, name), best)


def load_checkpoint(fpath):
    """Unpickle a checkpoint."""
    if not os.path.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    return torch.load(fpath, map_location="cpu", weights_only=False)


def resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None):
    """Restore all strictly and return the number of epochs done."""
    with open(os.path.join(fdir, "checkpoint")) as file:
        checkpoint = load_checkpoint(os.path.join(fdir, file.readline().strip()))
    model.load_state_dict(checkpoint["state_dict"])
    if optimizer is not None and checkpoint["optimizer"] is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
    if scheduler is not None and checkpoint["scheduler"] is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
    return checkpoint["epoch"]


def load_pretrained_weights(model, weight_path):
    """Load what fits by name and size, and leave the rest."""
    checkpoint = load_checkpoint(weight_path)
    own = model.state_dict()
    for key, value in checkpoint.get("state_dict", checkpoint).items():
        if key in own and own[key].size() == value.size():
            own[key] = value
    model.load_state_dict(own)
