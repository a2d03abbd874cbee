"""Loaders of batches of dicts."""

import torch
from PIL import Image

from dassl.data.datasets import build_dataset


class Images(torch.utils.data.Dataset):
    """Items as dicts."""

    def __init__(self, items, transform):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        image = self.transform(Image.open(item.impath).convert("RGB"))
        return {"img": image, "label": item.label, "domain": item.domain, "impath": item.impath}


class DataManager:
    """The data set of a configuration and its loaders."""

    def __init__(self, cfg):
        from torchvision import transforms  # the tests of the library alone do without

        self.dataset = build_dataset(cfg)
        self.num_classes, self.lab2cname = self.dataset.num_classes, self.dataset.lab2cname
        bicubic = transforms.InterpolationMode.BICUBIC
        transform = transforms.Compose(
            [
                transforms.Resize(max(cfg.INPUT.SIZE), bicubic),
                transforms.CenterCrop(cfg.INPUT.SIZE),
                transforms.ToTensor(),
                transforms.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD),
            ]
        )

        def loader(items, node, **options):
            images = Images(items, transform)
            return torch.utils.data.DataLoader(images, batch_size=node.BATCH_SIZE, **options)

        node = cfg.DATALOADER
        self.train_loader_x = loader(
            self.dataset.train_x, node.TRAIN_X, shuffle=True, drop_last=True
        )
        self.train_loader_u = None
        self.val_loader = loader(self.dataset.val, node.TEST)
        self.test_loader = loader(self.dataset.test, node.TEST)
