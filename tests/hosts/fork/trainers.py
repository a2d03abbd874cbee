"""The trainers, with what upstream's do in build_model, forward_backward and load_model."""

import copy
import os.path as osp
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from dassl.data.datasets import DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights
from fork import learners
from fork.backbone import LAYERS, load_clip

CLASSNAMES = ["apple", "pear", "plum"]
N_CTX = 4


def extend_cfg(cfg):
    """Add the trainers' nodes."""
    for node in ("COOP", "COCOOP", "MAPLE", "PROMPTSRC"):
        cfg.TRAINER[node] = CfgNode({"N_CTX": N_CTX, "CTX_INIT": "a photo of a", "PREC": "fp32"})


def batches(number, seed):
    """Batches of dicts: noisy images of 4 x 4 pixels in which one channel is brighter."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        label = torch.randint(len(CLASSNAMES), (6,), generator=generator)
        img = torch.randn(6, 3, 4, 4, generator=generator)
        img[torch.arange(6), label] += 1
        zeros = torch.zeros_like(label)
        yield {"img": img, "label": label, "domain": zeros, "impath": [""] * 6, "index": zeros}


class PromptTrainer(TrainerX):
    """What is the same in all of them; upstream copies it."""

    node, name, devices = "COOP", "prompt_learner", 1
    fixed = ("token_prefix", "token_suffix")

    def check_cfg(self, cfg):
        assert cfg.TRAINER[self.node].PREC in ["fp16", "fp32", "amp"]

    def build_data_loader(self):
        self.train_loader_x = list(batches(4, seed=1))
        self.val_loader, self.test_loader = list(batches(2, seed=2)), list(batches(5, seed=3))
        items = [
            Datum(classname, label, 0, classname) for label, classname in enumerate(CLASSNAMES)
        ]
        dataset = DatasetBase(train_x=items, val=items, test=items)
        self.dm = SimpleNamespace(dataset=dataset)
        self.train_loader_u, self.num_classes = None, dataset.num_classes
        self.lab2cname = dataset.lab2cname

    def trains(self, name):
        """Whether a parameter of the model is trained."""
        return "prompt_learner" in name

    def build_model(self):
        cfg = self.cfg
        self.prec = cfg.TRAINER[self.node].PREC
        self.model = self.build_custom_clip(self.dm.dataset.classnames)
        for name, param in self.model.named_parameters():
            if not self.trains(name):
                param.requires_grad_(False)
        trained = self.model.prompt_learner if self.name == "prompt_learner" else self.model
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(trained, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(trained, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.name, trained, self.optim, self.sched)
        self.scaler = torch.amp.GradScaler(self.device.type) if self.prec == "amp" else None
        if self.devices > 1:
            self.model = nn.DataParallel(self.model)

    def clip(self, **design):
        return load_clip(self.prec, n_ctx=N_CTX, **design)

    def loss(self, image, label):
        return self.model(image, label)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        if self.prec == "amp":
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                loss = self.loss(image, label)
            self.optim.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            loss = self.loss(image, label)
            self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = osp.join(directory, name, file)
            if not osp.exists(path):
                raise FileNotFoundError(f'Model not found at "{path}"')
            checkpoint = load_checkpoint(path)
            state_dict = checkpoint["state_dict"]
            for fixed in self.fixed:
                if fixed in state_dict:
                    del state_dict[fixed]
            print(f'Loading weights to {name} from "{path}" (epoch = {checkpoint["epoch"]})')
            self._models[name].load_state_dict(state_dict, strict=False)


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Registers the prompt learner alone."""

    def build_custom_clip(self, classnames):
        clip = self.clip()
        return learners.CustomCLIP(learners.PromptLearner(classnames, clip, N_CTX), clip)

    def loss(self, image, label):
        return F.cross_entropy(self.model(image), label)


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Its prompts depend on the image."""

    node = "COCOOP"

    def build_custom_clip(self, classnames):
        clip = self.clip()
        learner = learners.ConditionalPromptLearner(classnames, clip, N_CTX)
        return learners.ConditionalCLIP(learner, clip)


class WholeModel(PromptTrainer):
    """Registers the whole model, frozen towers included."""

    fixed = ("prompt_learner.token_prefix", "prompt_learner.token_suffix")


@TRAINER_REGISTRY.register()
class MaPLe(WholeModel):
    """Reads its list of prompts twice in a pass."""

    node, name = "MAPLE", "MultiModalPromptLearner"

    def build_custom_clip(self, classnames):
        clip = self.clip()
        learner = learners.MultiModalPromptLearner(classnames, clip, N_CTX)
        return learners.MultiModalCLIP(learner, clip)


@TRAINER_REGISTRY.register()
class ProGrad(CoOp):
    """Takes from the gradient what would undo what the frozen model knows."""

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        logits = self.model(image)
        loss, knowledge = F.cross_entropy(logits, label), logits.logsumexp(dim=1).mean()
        parameters = list(self._models[self.name].parameters())
        self.model_zero_grad()
        knowledge.backward(retain_graph=True)
        directions = [F.normalize(p.grad.flatten(), dim=0).view_as(p) for p in parameters]
        self.model_zero_grad()
        loss.backward()
        self.conflicts = []
        for parameter, direction in zip(parameters, directions, strict=True):
            along = (parameter.grad * direction).sum()
            self.conflicts.append(along.item())
            if along < 0:
                parameter.grad = parameter.grad - along * direction
        self.model_update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()


@TRAINER_REGISTRY.register()
class PromptSRC(WholeModel):
    """Has prompts inside the image tower; ends with the weighted sum of all epochs' weights."""

    node, name, strict = "PROMPTSRC", "VLPromptLearner", True

    def trains(self, name):
        if "prompt_learner" in name:
            return "ZS_image_encoder" not in name
        return "VPT" in name

    def build_custom_clip(self, classnames):
        clip = self.clip(vision_ctx=2, depth=LAYERS)
        learner = learners.VLPromptLearner(classnames, clip, N_CTX, self.clip())
        return learners.RegularizedCLIP(learner, clip)

    def build_model(self):
        super().build_model()
        epochs = np.arange(1, self.cfg.OPTIM.MAX_EPOCH + 1)
        gauss = np.exp(-0.5 * (epochs - len(epochs)) ** 2)
        self.gauss, self.gpa = gauss / sum(gauss), None

    def loss(self, image, label):
        loss, features, frozen = self.model(image, label)
        return loss + F.l1_loss(features, frozen)

    def forward_backward(self, batch):
        summary = super().forward_backward(batch)
        if self.batch_idx + 1 == self.num_batches:
            state, weight = copy.deepcopy(self.model.state_dict()), self.gauss[self.epoch]
            for key in state:
                state[key] = state[key] * weight
                if self.gpa is not None:
                    state[key] = self.gpa[key] + state[key]
            self.gpa = state
            if self.epoch + 1 == self.max_epoch:
                self.model.load_state_dict(self.gpa, strict=self.strict)
        return summary
