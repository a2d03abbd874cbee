"""Sweep files: what they may say, and how a wrong one names itself."""

import json

import pytest
import yaml

from sweeps import SweepError
from sweeps.grid import Grid, read_grids, write_grids

GRID = {"protocol": "base2new", "trainers": ["CoOp", "QCoOp"], "datasets": ["digits"]}


def test_file_inline_yaml_and_json_are_the_same_sweep(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(GRID), encoding="utf-8-sig")
    expected = [Grid("base2new", ("CoOp", "QCoOp"), ("digits",))]
    inline = "{protocol: base2new, trainers: [CoOp, QCoOp], datasets: [digits]}"
    for sweep in (str(file), inline, json.dumps(GRID), json.dumps([GRID])):
        assert read_grids(sweep) == expected


def test_a_list_of_grids_may_share_keys(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "- &all {protocol: base2new, trainers: [CoOp], seeds: [4]}\n"
        "- {<<: *all, trainers: [QCoOp], bits: [1, 2]}\n"
    )
    first, second = read_grids(str(file))
    assert first.trainers == ("CoOp",) and first.bits == ()
    assert second.trainers == ("QCoOp",) and second.bits == (1, 2)
    assert first.seeds == second.seeds == (4,)


def test_written_grids_are_read_as_they_were():
    """Also small numbers, which JSON writes as YAML does not read them, and the order of opts."""
    opts = {"OPTIM.STEPSIZE": [1e-05, 2], "OPTIM.LR": "0.5", "INPUT.SIZE": [8, 8], "A": None}
    grids = [Grid("base2new", ["CoOp"], opts=opts), Grid("few_shot", ["QCoOp"], bits=[1, 8])]
    assert read_grids(write_grids(grids)) == grids
    assert list(read_grids(write_grids(grids))[0].opts) == list(opts)


def test_a_value_named_twice_counts_once():
    assert Grid("few_shot", ["CoOp"], seeds=[1, 2, 1]).seeds == (1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": ["CoOp"]}, 'Unknown key "trainer". Did you mean trainers'),
        ({"protocol": "base2New"}, 'Unknown protocol "base2New". Did you mean base2new'),
        ({"trainers": "CoOp"}, "trainers must be a list of names, got 'CoOp'"),
        ({"trainers": []}, "trainers is empty"),
        ({"seeds": [1, "2"]}, r"seeds must be a list of whole numbers, got \[1, '2'\]"),
        ({"seeds": [True]}, "seeds must be a list of whole numbers"),
        ({"seeds": [-1]}, "seeds must be 0 or more, got -1"),
        ({"bits": [0]}, "bits must be 1 or more, got 0"),
        ({"bits": [2, 9]}, "bits must be 8 or less, got 9"),
        ({"shots": [0]}, "shots must be 1 or more, got 0"),
        ({"config": ["tiny"]}, "config must be a name"),
        ({"opts": ["OPTIM.LR", 1]}, "opts must map"),
        ({"opts": {"SEED": 2}}, "opts sets SEED, which the grid itself sets"),
        ({"opts": {"RESUME": "out"}}, "opts sets RESUME, but each run resumes from its own"),
        ({"opts": {"TEST.NO_TEST": True}}, "opts sets TEST.NO_TEST, but a sweep needs the results"),
        ({"variants": ["fast"]}, "variants must map names"),
        ({"variants": {"a/b": {}}}, "the name of a variant becomes part of a folder's name"),
        ({"variants": {"fast": 0.1}}, "variant fast must map"),
        ({"variants": {"fast": {"SEED": 2}}}, "variant fast sets SEED, which the grid itself"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path, change, message):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(GRID | change))
    with pytest.raises(SweepError, match=message) as caught:
        read_grids(str(file))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("{protocol: base2new}", "the key trainers is missing"),
        ("{trainers: [CoOp]}", "the key protocol is missing"),
        ("[]", "the sweep names no grid"),
        ("[base2new]", "expected keys and values"),
        ("{protocol: [", "not valid YAML"),
    ],
)
def test_what_is_no_grid_is_refused(sweep, message):
    with pytest.raises(SweepError, match=message):
        read_grids(sweep)
