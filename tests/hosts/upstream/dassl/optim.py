"""SGD with a cosine schedule after a constant warm-up."""

import math

import torch


def build_optimizer(model, optim_cfg):
    """Return an optimizer over all parameters, frozen ones included."""
    assert optim_cfg.NAME == "sgd"
    return torch.optim.SGD(model.parameters(), lr=optim_cfg.LR, momentum=0.9, weight_decay=5e-4)


def build_lr_scheduler(optimizer, optim_cfg):
    """Return a scheduler that is stepped once an epoch."""

    def factor(epoch):
        if epoch < optim_cfg.WARMUP_EPOCH:
            return 1e-5 / optim_cfg.LR
        return 0.5 * (1 + math.cos(math.pi * epoch / optim_cfg.MAX_EPOCH))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
