"""The data sets that protocols know by name."""

from __future__ import annotations

# in the papers' order, each with the name that its configuration file and folders have
BENCHMARK = {
    "ImageNet": "imagenet",
    "Caltech101": "caltech101",
    "OxfordPets": "oxford_pets",
    "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers",
    "Food101": "food101",
    "FGVCAircraft": "fgvc_aircraft",
    "SUN397": "sun397",
    "DescribableTextures": "dtd",
    "EuroSAT": "eurosat",
    "UCF101": "ucf101",
}
SHIFTED = {
    "ImageNetV2": "imagenetv2",
    "ImageNetSketch": "imagenet_sketch",
    "ImageNetA": "imagenet_a",
    "ImageNetR": "imagenet_r",
}
EMBEDDED = {
    "Digits": "digits",
    "Characters": "characters",
    "DigitsNoise": "digits_noise",
    "DigitsBlur": "digits_blur",
    "DigitsInverted": "digits_inverted",
    "DigitsRotated": "digits_rotated",
}
FILE_NAMES = BENCHMARK | SHIFTED | EMBEDDED

# source of domain generalization -> its targets: the same classes under a shift
DOMAINS = {
    "ImageNet": tuple(SHIFTED),
    "Digits": tuple(name for name in EMBEDDED if name.startswith("Digits") and name != "Digits"),
}

REAL, STAND_IN, OTHER = "benchmark data sets", "embedded stand-ins", "other data sets"


def family(dataset: str) -> str:
    """Which data sets this one may share a table and an average with."""
    if dataset in BENCHMARK or dataset in SHIFTED:
        return REAL
    return STAND_IN if dataset in EMBEDDED else OTHER


def is_shifted(dataset: str) -> bool:
    """Whether the data set is a target of domain generalization, so that averages leave it out."""
    return any(dataset in targets for targets in DOMAINS.values())


def in_order(datasets: set[str]) -> list[str]:
    """The papers' order; unknown names last, by name."""
    known = list(FILE_NAMES)
    return sorted(datasets, key=lambda d: (known.index(d) if d in known else len(known), d))
