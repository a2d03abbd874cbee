"""UCF101: human actions of 101 kinds, the middle frame of each video (Soomro et al., 2012)."""

from __future__ import annotations

import re

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .annotations import matching_lines
from .base import SplitDataset
from .items import hold_out_val, items_of_list
from .splits import Splits


@DATASET_REGISTRY.register()
class UCF101(SplitDataset):
    """``ROOT/ucf101/UCF-101-midframes/<class>/*.jpg`` with its split file or the official lists."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    published_sizes = (7639, 1898, 3783)
    template = "a photo of a person doing {}."

    def read(self) -> Splits:
        actions = matching_lines(self.path("ucfTrainTestlist", "classInd.txt"), r"\d+ (\w+)")
        classnames = {action: words(action) for (action,) in actions}

        def items(name: str) -> list[Datum]:
            path = self.path("ucfTrainTestlist", name)
            videos = matching_lines(path, r"(\w+)/(\w+)\.avi(?: \d+)?")
            entries = [(f"{words(action)}/{video}.jpg", action) for action, video in videos]
            return items_of_list(self.image_dir, entries, classnames, path)

        return Splits(*hold_out_val(items("trainlist01.txt")), items("testlist01.txt"))


def words(action: str) -> str:
    """Turn "ApplyEyeMakeup" into "Apply_Eye_Makeup"."""
    return "_".join(re.findall("[A-Z][a-z]*", action))
