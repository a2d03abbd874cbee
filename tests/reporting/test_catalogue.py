"""The data sets of reports are those of the configuration files and of sweeps."""

from pathlib import Path

import pytest
import yaml

from reporting.catalogue import BENCHMARK, DOMAINS, FILE_NAMES, in_order

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sweeps():
    """The data sets of sweeps that name none, by protocol."""
    return yaml.safe_load((REPOSITORY / "sweeps" / "defaults.yaml").read_text())["datasets"]


def test_each_data_set_has_the_name_of_its_configuration_file():
    names = {
        yaml.safe_load(path.read_text())["DATASET"]["NAME"]: path.stem
        for path in (REPOSITORY / "configs" / "datasets").glob("*.yaml")
    }
    del names["Folder"]  # a user's own images
    assert names == FILE_NAMES


@pytest.mark.parametrize("protocol", ["base2new", "few_shot"])
def test_sweeps_run_on_the_benchmark_in_its_order(sweeps, protocol):
    assert sweeps[protocol] == list(BENCHMARK.values())


def test_sweeps_transfer_from_imagenet_to_the_rest_of_the_benchmark(sweeps):
    assert ["imagenet", *sweeps["cross_dataset"]["imagenet"]] == list(BENCHMARK.values())


def test_sweeps_generalize_to_the_targets_of_each_source(sweeps):
    assert sweeps["domain_generalization"] == {
        FILE_NAMES[source]: [FILE_NAMES[target] for target in targets]
        for source, targets in DOMAINS.items()
    }


def test_known_data_sets_go_before_unknown_ones():
    assert in_order({"b", "a", "UCF101", "ImageNet"}) == ["ImageNet", "UCF101", "a", "b"]
