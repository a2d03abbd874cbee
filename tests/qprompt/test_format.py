"""docs/format.md: its reader reads what the writer writes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qprompt

PAGE = Path(__file__).parents[2] / "docs" / "format.md"


@pytest.fixture(scope="module")
def read_prompt():
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    names = {}
    exec(code, names)
    assert len(code[code.index("def ") :].splitlines()) <= 30
    return names["read_prompt"]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_page_reads_what_the_library_writes(read_prompt, tmp_path, bits, dtype):
    torch.manual_seed(bits)
    learner = nn.Module()
    learner.ctx = nn.Parameter(torch.randn(3, 5, 7).to(dtype))
    learner.proj = nn.Linear(7, 3)
    qprompt.quantize_(learner, bits)
    path = tmp_path / "prompt.safetensors"
    strings = {"classnames": '["chien","猫"]', "epoch": "3"}
    qprompt.pack(learner, path, **strings)
    metadata, tensors = read_prompt(path)
    expected = qprompt.unpack(path)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert np.array_equal(tensors[name].astype(np.float32), tensor.float().numpy()), name
    ours = qprompt.read_metadata(path)
    assert (
        {key: metadata[key] for key in ours}
        == ours
        == {"classnames": '["chien","猫"]', "epoch": "3"}
    )
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(ValueError, match="is damaged"):
        read_prompt(path)
