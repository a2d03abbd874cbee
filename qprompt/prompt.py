"""A packed prompt as something to use: what it says of itself, and CLIP with it.

prompt = qprompt.load("prompt.safetensors")
model = prompt.apply("ViT-B-16:openai")
model.classify(images, ["cat", "dog"])
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from torch import Tensor

from .errors import PackedFileError
from .hub import PREFIX as HUB_PREFIX
from .hub import hub_file
from .packed_file import PackedFile, Path
from .packed_text import decode_text, encode_text

if TYPE_CHECKING:
    from .use.model import AppliedPrompt


class Prompt:
    """A learned prompt, as a packed file holds it.

    Args:
        packed: contents of the file.
        path: where it lies, for messages.

    Attributes:
        tensors: its parameters by name, those that are quantized dequantized.
        metadata: what it says of itself; see docs/format.md.
    """

    def __init__(self, packed: PackedFile, path: Path = "prompt") -> None:
        self.packed = packed
        self.path = os.fspath(path)
        self.tensors: Dict[str, Tensor] = packed.values
        self.metadata: Dict[str, str] = packed.metadata

    def __repr__(self) -> str:
        return f"<Prompt of {self.trainer or 'an unnamed trainer'} in '{self.path}'>"

    @property
    def trainer(self) -> str:
        """Name of the trainer that learned it; empty if the file does not say."""
        return self.metadata.get("trainer", "")

    @property
    def backbone(self) -> str:
        """Name of the CLIP that it was learned on; empty if the file does not say."""
        return self.metadata.get("backbone", "")

    @property
    def classnames(self) -> Optional[List[str]]:
        """The classes that it was learned with; None if the file does not say."""
        names: Optional[List[str]] = self.read_json("classnames")
        return names

    def read_json(self, key: str) -> Any:
        """Value of a metadata key that holds JSON; None if there is no such key.

        Raises:
            PackedFileError: it is no JSON.
        """
        try:
            return json.loads(self.metadata.get(key, "null"))
        except ValueError as error:
            raise PackedFileError(
                f"'{self.path}' has a {key} that cannot be read ({error}); pack it again"
            ) from error

    def setting(self, key: str) -> Any:
        """Value of a key of the trainer's own configuration node; None if it is not recorded."""
        nodes = self.read_json("settings") or {}
        found = (node[key] for name, node in nodes.items() if name != "QPROMPT" and key in node)
        return next(found, None)

    def text(self) -> str:
        """The prompt as text, of about 400 characters for one bit, for a message or a QR code.

        It holds what using the prompt with given class names needs, and no other metadata.
        """
        return encode_text(self.packed)

    def apply(
        self, backbone: Any = None, device: Any = "cpu", precision: Optional[str] = None
    ) -> AppliedPrompt:
        """Put it into a CLIP; needs open_clip (`pip install "clip-qprompt[clip]"`).

        Args:
            backbone: name, as `qprompt.clip.load` takes it, or an open_clip model; None: the one
                that the file names.
            device: where a named backbone goes.
            precision: of a named backbone, "fp32", "fp16" or "bf16"; None: "fp32" on the CPU, else
                "fp16".

        Raises:
            InvalidOptionError: another backbone than the prompt was learned on, or a learner whose
                logits are not those of CLIP.
            ClipError: the backbone cannot be loaded.
        """
        from .use.backbone import load_backbone
        from .use.model import AppliedPrompt

        return AppliedPrompt(self, load_backbone(self, backbone, device, precision))


def load(path: Path) -> Prompt:
    """Reads a packed prompt.

    Args:
        path: of the file, or its address on the Hugging Face Hub: hf://user/repository, with
            @revision and /file where they are others than the newest and prompt.safetensors.

    Raises:
        PackedFileError: damaged, foreign, inconsistent or newer file.
        OSError: the file cannot be read, or had from the Hub.
    """
    if os.fspath(path).startswith(HUB_PREFIX):
        path = hub_file(os.fspath(path))
    return Prompt(PackedFile.read(path), path)


def from_text(text: str) -> Prompt:
    """Inverse of `Prompt.text`; spaces and line breaks do not matter.

    Raises:
        PackedFileError: text of something else or of a newer release, or cut or changed on its way.
    """
    return Prompt(decode_text(text), "text")
