"""Trainers: models by name, a loop with hooks, checkpoints, evaluation."""

import os.path as osp
from collections import OrderedDict

import torch

from dassl.evaluation import build_evaluator
from dassl.utils import Registry, load_checkpoint, resume_from_checkpoint, save_checkpoint

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg):
    """Return the trainer that the configuration names."""
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)


class TrainerBase:
    """Registered models with their optimizers and schedulers."""

    def __init__(self):
        self._models, self._optims, self._scheds = OrderedDict(), OrderedDict(), OrderedDict()

    def register_model(self, name="model", model=None, optim=None, sched=None):
        assert name not in self._models
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def get_model_names(self, names=None):
        return list(self._models) if names is None else [names] if isinstance(names, str) else names

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        for name in self.get_model_names():
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": self._optims[name].state_dict(),
                "scheduler": self._scheds[name].state_dict(),
                "val_result": val_result,
            }
            folder = osp.join(directory, name)
            save_checkpoint(state, folder, is_best=is_best, model_name=model_name)

    def resume_model_if_exist(self, directory):
        names = self.get_model_names()
        if not all(osp.exists(osp.join(directory, name)) for name in names):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        for name in names:
            start = resume_from_checkpoint(
                osp.join(directory, name),
                self._models[name],
                self._optims[name],
                self._scheds[name],
            )
        return start

    def load_model(self, directory, epoch=None):
        if not directory:
            return
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            checkpoint = load_checkpoint(osp.join(directory, name, file))
            self._models[name].load_state_dict(checkpoint["state_dict"])

    def set_model_mode(self, mode="train", names=None):
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names=None):
        for name in self.get_model_names(names):
            self._scheds[name].step()

    def detect_anomaly(self, loss):
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def model_zero_grad(self, names=None):
        for name in self.get_model_names(names):
            self._optims[name].zero_grad()

    def model_backward(self, loss):
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names=None):
        for name in self.get_model_names(names):
            self._optims[name].step()

    def model_backward_and_update(self, loss, names=None):
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def before_epoch(self):
        pass


class SimpleTrainer(TrainerBase):
    """A trainer from a configuration."""

    def __init__(self, cfg):
        super().__init__()
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg):
        pass

    def build_data_loader(self):
        from dassl.data import DataManager

        self.dm = DataManager(self.cfg)
        for name in ("train_loader_x", "train_loader_u", "val_loader", "test_loader"):
            setattr(self, name, getattr(self.dm, name))
        self.num_classes, self.lab2cname = self.dm.num_classes, self.dm.lab2cname

    def train(self):
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self):
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.cfg.OUTPUT_DIR)

    def after_epoch(self):
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(
                    self.epoch,
                    self.output_dir,
                    val_result=result,
                    model_name="model-best.pth.tar",
                )
        freq = self.cfg.TRAIN.CHECKPOINT_FREQ
        if self.epoch + 1 == self.max_epoch or (freq > 0 and (self.epoch + 1) % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    def after_train(self):
        print("Finish training")
        if self.cfg.TEST.FINAL_MODEL == "best_val":
            self.load_model(self.output_dir)
        self.test()

    @torch.no_grad()
    def test(self, split=None):
        self.set_model_mode("eval")
        self.evaluator.reset()
        loader = self.val_loader if split == "val" else self.test_loader
        for batch in loader:
            images, labels = batch["img"].to(self.device), batch["label"].to(self.device)
            self.evaluator.process(self.model_inference(images), labels)
        return next(iter(self.evaluator.evaluate().values()))

    def model_inference(self, input):
        return self.model(input)


class TrainerX(SimpleTrainer):
    """A trainer on labelled data."""

    def run_epoch(self):
        self.set_model_mode("train")
        self.num_batches = len(self.train_loader_x)
        for self.batch_idx, batch in enumerate(self.train_loader_x):  # noqa: B020
            summary = self.forward_backward(batch)
            assert summary is None or all(type(value) is float for value in summary.values())
