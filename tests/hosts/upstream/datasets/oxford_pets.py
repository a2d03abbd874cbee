"""What data sets call on OxfordPets, in a host that has its own."""

import math
import os.path as osp

from dassl.data.datasets import Datum
from dassl.utils import read_json


class OxfordPets:
    @staticmethod
    def read_split(filepath, path_prefix):
        split = read_json(filepath)
        return tuple(
            [
                Datum(osp.join(path_prefix, impath), int(label), classname=classname)
                for impath, label, classname in split[part]
            ]
            for part in ("train", "val", "test")
        )

    @staticmethod
    def subsample_classes(*args, subsample="all"):
        if subsample == "all":
            return args
        labels = sorted({item.label for item in args[0]})
        half = math.ceil(len(labels) / 2)
        kept = labels[:half] if subsample == "base" else labels[half:]
        return [
            [
                Datum(item.impath, kept.index(item.label), item.domain, item.classname)
                for item in items
                if item.label in kept
            ]
            for items in args
        ]
