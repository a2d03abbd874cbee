"""Different settings are different methods."""

import pytest

from reporting.methods import Method
from reporting.report import make_report


def methods(runs):
    return [method.name for method in make_report(runs.root).sections[0].tables[-1].cells.index]


def test_runs_that_differ_in_a_setting_are_never_averaged(runs):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0, name="a")
    runs.base_to_new("CoOp", "Digits", 90.0, 60.0, seed=2, name="b", OPTIM__LR=0.1)
    (section,) = make_report(runs.root).sections
    found = {
        method.name: (mean["base"], mean["new"])
        for method, mean in section.tables[0].cells["mean"].iterrows()
    }
    assert found == {"CoOp (OPTIM.LR=0.002)": (80.0, 60.0), "CoOp (OPTIM.LR=0.1)": (90.0, 60.0)}


def test_bits_are_methods_of_their_own(runs):
    for bits in (1, 2):
        runs.base_to_new("QCoOp", "Digits", 80.0, 60.0, bits=bits)
    assert [m.bits for m in make_report(runs.root).sections[0].tables[0].cells.index] == [1, 2]


@pytest.mark.parametrize(
    "key",
    [
        "DATALOADER__NUM_WORKERS",
        "DATALOADER__PIXEL_CACHE_MB",
        "DATASET__ROOT",
        "MODEL__TEXT_CHUNK",
        "OUTPUT_DIR",
        "TEST__FEATURE_CACHE",
        "TRAIN__PRINT_FREQ",
    ],
)
def test_what_cannot_change_a_result_makes_no_method(runs, key):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0, **{key: "a"})
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0, seed=2, **{key: "b"})
    assert methods(runs) == ["CoOp"]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_choice_of_the_final_model_makes_methods(runs, seed):
    for run_seed, name in ((1, "last_step"), (seed, "best_val")):
        options = {"seed": run_seed, "name": name, "TEST__FINAL_MODEL": name}
        runs.base_to_new("CoOp", "Digits", 80.0 + len(name), 60.0, **options)
    names = ["CoOp (TEST.FINAL_MODEL=best_val)", "CoOp (TEST.FINAL_MODEL=last_step)"]
    assert methods(runs) == names


def test_templates_make_methods(runs):
    for seed, template in ((1, None), (2, ["{}.", "a {}."])):
        runs.base_to_new("CoOp", "Digits", 80.0, 60.0, seed=seed, DATASET__TEMPLATE=template)
    names = ["CoOp (DATASET.TEMPLATE=('{}.', 'a {}.'))", "CoOp (DATASET.TEMPLATE=None)"]
    assert methods(runs) == names


def test_a_record_says_what_cannot_change_its_result(runs):
    for seed, amount in ((1, 1), (2, 2)):
        options = {"seed": seed, "irrelevant_settings": ["LATER.CACHE"]}
        options |= {"LATER__CACHE": amount, "DATALOADER__NUM_WORKERS": amount}
        runs.base_to_new("CoOp", "Digits", 80.0, 60.0, name=f"run{seed}", **options)
    assert methods(runs) == [
        "CoOp (DATALOADER.NUM_WORKERS=1)",
        "CoOp (DATALOADER.NUM_WORKERS=2)",
    ]


def test_a_key_that_only_one_run_knows_makes_no_method(runs):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0)
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0, seed=2, LATER__ADDED=1)
    assert methods(runs) == ["CoOp"]


def test_a_variant_is_a_method_under_its_name(runs):
    for variant, rate in (("", 0.002), ("fast", 0.1)):
        options = {"name": f"CoOp_{variant}", "VARIANT": variant, "OPTIM__LR": rate}
        runs.base_to_new("CoOp", "Digits", 80.0, 60.0, **options)
    other = {"name": "CoOp_other", "VARIANT": "fast", "OPTIM__LR": 0.1, "OPTIM__MAX_EPOCH": 9}
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0, seed=2, **other)
    assert methods(runs) == ["CoOp", "CoOp (fast)"]


def test_keys_of_the_quantizer_do_not_split_plain_trainers(runs):
    for seed, threshold in ((1, 0.1), (2, 0.2)):
        options = {"seed": seed, "TRAINER__QPROMPT__KL_THRESHOLD": threshold}
        runs.base_to_new("CoOp", "Digits", 80.0, 60.0, **options)
        runs.base_to_new("QCoOp", "Digits", 80.0, 60.0, bits=1, **options)
    assert methods(runs) == [
        "CoOp",
        "QCoOp (TRAINER.QPROMPT.KL_THRESHOLD=0.1)",
        "QCoOp (TRAINER.QPROMPT.KL_THRESHOLD=0.2)",
    ]


def test_weights_of_each_seed_are_one_setting(runs):
    for seed in (1, 2):
        weights = f"output/plain/seed{seed}/model.pth.tar"
        runs.base_to_new("CoOp", "Digits", 80.0, 60.0, seed=seed, MODEL__INIT_WEIGHTS=weights)
    assert methods(runs) == ["CoOp"]


def test_settings_that_go_with_the_data_set_are_one_method_and_told(runs):
    runs.base_to_new("CoOp", "ImageNet", 76.0, 68.0, OPTIM__MAX_EPOCH=50)
    runs.base_to_new("CoOp", "EuroSAT", 90.0, 60.0, OPTIM__MAX_EPOCH=200)
    (section,) = make_report(runs.root).sections
    assert [m.name for m in section.tables[0].measured.cells.index] == ["CoOp"]
    (note,) = section.notes
    assert "OPTIM.MAX_EPOCH (200, 50)" in note


def test_order_zero_shot_plain_quantized_and_published_last():
    methods = [
        Method("QMaPLe", 4),
        Method("CoOp", source="a paper"),
        Method("Another"),
        Method("QCoOp", 2),
        Method("QCoOp", 1),
        Method("MaPLe"),
        Method("CoOp", variant="e100"),
        Method("CoOp", variant="e20"),
        Method("CoOp"),
        Method("ZeroshotCLIP", zero_shot=True),
    ]
    assert [m.label for m in sorted(methods)] == [
        "ZeroshotCLIP",
        "CoOp",
        "CoOp (e20)",
        "CoOp (e100)",
        "QCoOp, 1 bit",
        "QCoOp, 2 bits",
        "MaPLe",
        "QMaPLe, 4 bits",
        "Another",
        "CoOp (published)",
    ]


def test_a_quantized_method_meets_the_plain_trainer_that_it_quantizes():
    quantized = Method("QCoOp", 1)
    assert quantized.quantizes(Method("CoOp", settings="OPTIM.LR=0.1"))
    others = Method("MaPLe"), Method("CoOp", from_log=True), Method("CoOp", variant="short")
    for other in (quantized, *others):
        assert not quantized.quantizes(other)
    assert Method("QCoOp", 1, "short").quantizes(Method("CoOp", variant="short"))
    assert Method("QCoOp", 1, "uniform").quantizes(Method("CoOp"))
    assert not Method("CoOp").quantizes(Method("CoOp"))
