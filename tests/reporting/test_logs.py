"""Runs of upstream Dassl, of which there is a log and nothing else."""

import pytest

from reporting.report import make_report
from reporting.results import read_runs

LOG = """\
***************
** Arguments **
***************
backbone: {empty}
config_file: configs/trainers/{trainer}/{config}.yaml
dataset_config_file: configs/datasets/eurosat.yaml
eval_only: {eval_only}
head: {empty}
load_epoch: None
model_dir: {model_dir}
no_train: False
opts: ['DATASET.NUM_SHOTS', '16', 'DATASET.SUBSAMPLE_CLASSES', '{subset}']
output_dir: {output}
resume: {empty}
root: /data
seed: {seed}
source_domains: None
trainer: {trainer}
transforms: None
************
** Config **
************
DATALOADER:
  NUM_WORKERS: 8
  TRAIN_X:
    BATCH_SIZE: 32
    SAMPLER: RandomSampler
DATASET:
  NAME: {dataset}
  NUM_SHOTS: 16
  ROOT: /data
  SUBSAMPLE_CLASSES: {subset}
INPUT:
  SIZE: (224, 224)
  TRANSFORMS: ('random_resized_crop', 'random_flip', 'normalize')
MODEL:
  BACKBONE:
    NAME: ViT-B/16
    PRETRAINED: True
  INIT_WEIGHTS: {empty}
OPTIM:
  LR: 0.002
  MAX_EPOCH: 50
  WARMUP_CONS_LR: 1e-05
OUTPUT_DIR: {output}
SEED: {seed}
TEST:
  SPLIT: test
TRAINER:
  COOP:
    N_CTX: 4
  NAME: {trainer}
Collecting env info ...
** System info **
PyTorch version: 1.9.0
Is debug build: False

Loading trainer: {trainer}
"""
RESULT = """\
Evaluate on the *test* set
=> result
* total: 4,200
* correct: 3,871
* accuracy: {accuracy}%
* error: 7.8%
* macro_f1: 92.1%
"""
TRAINING = """\
epoch [1/50] batch [5/5] time 0.1 (0.2) data 0.0 (0.1) loss 1.2 (1.3) lr 1.0000e-05 eta 0:01:00
epoch [50/50] batch [5/5] time 0.1 (0.2) data 0.0 (0.1) loss 0.2 (0.3) lr 1.0000e-05 eta 0:00:00
Checkpoint saved to {output}/prompt_learner/model.pth.tar-50
"""


class Upstream:
    """Writes logs in the folders of upstream's scripts."""

    def __init__(self, root):
        self.root = root

    def write(self, folder, accuracy, *, body, name="log.txt", header=LOG, **fields):
        folder = self.root / folder
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "trainer": "CoOp",
            "config": "vit_b16_ctxv1",
            "dataset": "EuroSAT",
            "subset": "base",
            "seed": 1,
            "eval_only": False,
            "model_dir": "",
            "output": folder,
            "accuracy": accuracy,
            "empty": "",
            **fields,
        }
        (folder / name).write_text((header + body).format(**facts))
        return folder

    def trained(self, folder, accuracy, **fields):
        body = TRAINING + "Finish training\nDeploy the last-step model\n" + RESULT
        return self.write(folder, accuracy, body=body + "Elapsed: 0:01:00\n", **fields)

    def tested(self, folder, accuracy, model_dir, **fields):
        body = 'Loading weights to prompt_learner from "{model_dir}/x" (epoch = 50)\n' + RESULT
        fields = {"eval_only": True, "model_dir": model_dir, **fields}
        return self.write(folder, accuracy, body=body, **fields)


@pytest.fixture
def upstream(tmp_path):
    return Upstream(tmp_path)


BASE = "base2new/train_base/eurosat/shots_16/CoOp/vit_b16_ctxv1/seed{}"
NEW = "base2new/test_new/eurosat/shots_16/CoOp/vit_b16_ctxv1/seed{}"


def test_base_to_new_from_upstreams_logs(upstream):
    for seed, base, new in ((1, 92.19, 54.74), (2, 90.19, 58.74)):
        origin = upstream.trained(BASE.format(seed), base, seed=seed)
        upstream.tested(NEW.format(seed), new, origin, seed=seed, subset="new")
    (section,) = make_report(upstream.root).sections
    ((method, cells),) = section.tables[-1].measured.cells.iterrows()
    assert method.name == "CoOp (log)"
    assert cells["mean", "base"] == pytest.approx(91.19)
    assert cells["mean", "new"] == pytest.approx(56.74)
    assert cells["seeds", "H"] == 2
    assert section.stored_bytes.isna().all()


def test_the_config_in_the_log_is_read_with_its_types(upstream):
    upstream.trained("run", 92.19)
    runs, notes = read_runs(upstream.root)
    (run,) = runs.itertuples()
    assert not notes
    assert (run.trainer, run.dataset, run.backbone) == ("CoOp", "EuroSAT", "ViT-B/16")
    assert (run.shots, run.seed, run.subset) == (16, 1, "base")
    settings = run.settings
    assert settings["INPUT.SIZE"] == (224, 224)
    assert settings["OPTIM.WARMUP_CONS_LR"] == 1e-5
    assert settings["TRAINER.COOP.N_CTX"] == 4
    assert settings["MODEL.INIT_WEIGHTS"] == ""
    assert "PyTorch version" not in str(settings)


def test_evaluations_are_traced_to_the_log_of_their_training(upstream):
    origin = upstream.trained("imagenet", 71.5, dataset="ImageNet", subset="all")
    upstream.tested("xd", 46.0, origin, subset="all")
    sections = {section.protocol: section for section in make_report(upstream.root).sections}
    means = sections["Cross-dataset"].tables[0].cells["mean"].iloc[0]
    assert means.dropna().to_dict() == {
        "ImageNet": 71.5,
        "EuroSAT": 46.0,
        "average": 46.0,
    }


def test_bits_of_a_quantized_trainer_stand_in_its_config(upstream):
    node = "  QPROMPT:\n    BITS: 2\n    MODE: qat\nCollecting"
    upstream.trained("run", 90.0, trainer="QCoOp", header=LOG.replace("Collecting", node, 1))
    (run,) = read_runs(upstream.root)[0].itertuples()
    assert (run.trainer, run.bits) == ("QCoOp", 2)


def test_an_unfinished_run_is_no_result_whatever_it_validated(upstream):
    upstream.trained("done", 90.0)
    upstream.write("killed", 99.0, body=TRAINING + RESULT)  # FINAL_MODEL best_val
    runs, (note,) = read_runs(upstream.root)
    assert list(runs.path) == ["done/log.txt"]
    assert note.startswith("killed/log.txt has no result")


def test_the_last_finished_start_counts(upstream):
    upstream.write("run", 50.0, body=TRAINING)
    upstream.trained("run", 90.0, name="log.txt-2024-01-01-10-00-00")
    upstream.write("run", 99.0, body=TRAINING, name="log.txt-2024-01-02-10-00-00")
    (run,) = read_runs(upstream.root)[0].itertuples()
    assert run.accuracy == 90.0


def test_a_result_file_goes_before_the_log_beside_it(upstream, runs):
    folder = runs.trained("CoOp", "EuroSAT", 80.0)
    upstream.trained(folder, 70.0)
    (run,) = read_runs(upstream.root)[0].itertuples()
    assert (run.accuracy, run.from_log) == (80.0, False)


def test_evaluations_of_chosen_epochs_are_no_main_results(runs):
    origin = runs.trained("CoOp", "EuroSAT", 81)
    folder = runs.tested(origin, "EuroSAT", 70, epoch=20)
    (folder / "results.json").rename(folder / "results-epoch20.json")
    (folder / "log.txt").touch()
    table, notes = read_runs(runs.root)
    assert sorted(table.accuracy) == [70, 81] and not notes  # it is the only one there
    (folder / "results-epoch5.json").write_bytes((folder / "results-epoch20.json").read_bytes())
    table, (note,) = read_runs(runs.root)
    assert list(table.accuracy) == [81]
    assert note.endswith(
        "has results-epoch20.json, results-epoch5.json, and no results.json: "
        "evaluate it without --load-epoch, too"
    )
    runs.tested(origin, "EuroSAT", 82)
    table, notes = read_runs(runs.root)
    assert sorted(table.accuracy) == [81, 82] and not notes


def test_logs_and_results_are_never_averaged(upstream, runs):
    runs.base_to_new("CoOp", "EuroSAT", 80.0, 60.0, seed=1)
    upstream.trained(BASE.format(1), 92.19)
    (section,) = make_report(upstream.root).sections
    found = {m.name: base for m, base in section.tables[-1].cells["mean", "base"].items()}
    assert (found["CoOp"], found["CoOp (log)"]) == (80.0, 92.19)


@pytest.mark.parametrize(
    ("folder", "dataset", "subset", "shots"),
    [
        (BASE.format(3), "EuroSAT", "base", 16),
        ("screenshots/sun397/CoOp/vit_b16/seed3", "SUN397", "all", -1),
        ("oxford_pets/CoOp/vit_b16_ctxv1_4shots/seed3", "OxfordPets", "all", 4),
        (
            "evaluation/CoOp/vit_b16_8shots/nctx16_cscFalse_ctpend/dtd/seed3",
            "DescribableTextures",
            "all",
            8,
        ),
        ("dtd/CoOp/vit_b16_8shots/nctx16_cscFalse_ctpend/seed3", "DescribableTextures", "all", 8),
    ],
)
def test_a_log_without_config_is_told_by_its_folder(upstream, folder, dataset, subset, shots):
    upstream.trained(folder, 77.0, header="")
    runs, notes = read_runs(upstream.root)
    (run,) = runs.itertuples()
    assert not notes
    assert (run.trainer, run.dataset, run.backbone) == ("CoOp", dataset, "ViT-B/16")
    assert (run.subset, run.shots, run.seed) == (subset, shots, 3)


def test_an_evaluation_is_told_by_the_folder_of_weights_that_are_gone(upstream):
    folder = "evaluation/CoOp/vit_b16_16shots/food101/seed2"
    origin = "output/imagenet/CoOp/vit_b16_16shots/seed2"
    upstream.tested(folder, 85.0, origin, header="")
    (run,) = read_runs(upstream.root)[0].itertuples()
    assert (run.dataset, run.source, run.seed) == ("Food101", "ImageNet", 2)


def test_a_log_that_tells_nothing_is_named(upstream):
    upstream.trained("done", 90.0)
    upstream.trained("somewhere", 77.0, header="")
    _, (note,) = read_runs(upstream.root)
    assert note == "somewhere/log.txt tells nothing of TRAINER.NAME, nor does its folder's name"
