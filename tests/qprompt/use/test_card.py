"""Model cards, read as the Hugging Face Hub reads them."""

import json

import pytest

import qprompt
from qprompt.packed_file import PackedFile
from qprompt.use.card import write_card

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def prompt(packed, tmp_path):
    """A prompt with what a run says of itself."""

    def prompt(**metadata):
        path = tmp_path / "prompt.safetensors"
        file = PackedFile.read(packed("CoOp"))
        file._replace(metadata={**file.metadata, **metadata}).write(path)
        return qprompt.load(path)

    return prompt


def test_hub_reads_base_model_data_set_and_results(prompt):
    about = {"backbone": "ViT-B/16", "dataset": "EuroSAT", "shots": "16", "seed": "1"}
    accuracies = json.dumps({"EuroSAT, base classes": 91.24, "EuroSAT, new classes": 66.1})
    card = hub.ModelCard.load(write_card(prompt(**about, accuracies=accuracies)))
    data = card.data
    assert data.to_dict()["library_name"] == "qprompt"
    assert data.base_model == "timm/vit_base_patch16_clip_224.openai"
    assert (data.datasets, data.metrics) == (["EuroSAT"], ["accuracy"])
    results = {result.dataset_name: result.metric_value for result in data.eval_results}
    assert results == json.loads(accuracies)
    assert "68 bytes for CLIP (ViT-B/16), learned from 16 images of each class" in card.text


@pytest.mark.parametrize("backbone", ["tiny", "weights/mine.pt"])
def test_what_is_not_known_is_left_out(prompt, backbone):
    data = hub.ModelCard.load(write_card(prompt(backbone=backbone))).data
    assert data.base_model is data.datasets is data.eval_results is None


def test_a_card_is_not_overwritten(prompt, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(qprompt.InvalidOptionError, match="README.md"):
        write_card(prompt())
    assert (tmp_path / "README.md").read_text() == "mine"
