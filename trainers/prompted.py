"""A frozen CLIP with a prompt learner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from open_clip.model import CLIP
from torch import Tensor, nn

import clip
import qprompt
from dassl.utils import UserError, check_choice
from qprompt.use.checkpoint import is_frozen

TEXT_ENCODINGS = ("shared", "full")


class PromptedCLIP(nn.Module):
    """Image-text logits of CLIP for the prompts of a learner.

    Its state is what was learned: the frozen CLIP, which is the same for everyone, is neither
    saved nor loaded.

    Args:
        backbone: a frozen open_clip CLIP.
        prompt_learner: what is trained; called without arguments, it returns a
            :class:`clip.Prompts` with one prefix. A subclass calls a learner that needs more.
        text_encoding: "shared" or, for comparison, "full"; see :func:`clip.encode_prompts`.
        text_chunk: number of prompts that are in memory at once; 0: all.

    Attributes:
        frozen_image_tower: whether no prompt enters the image tower, so that image features stay
            what they are.

    Raises:
        UserError: unknown text encoding, or a negative chunk.
    """

    backbone: CLIP
    frozen_image_tower = True

    def __init__(
        self,
        backbone: nn.Module,
        prompt_learner: nn.Module,
        text_encoding: str = "shared",
        text_chunk: int = 0,
    ) -> None:
        super().__init__()
        check_choice("TEXT_ENCODING", text_encoding, TEXT_ENCODINGS)
        if text_chunk < 0:
            raise UserError(f"TEXT_CHUNK is {text_chunk}: it is a number of prompts, or 0 for all")
        self.prompt_learner = prompt_learner
        self.backbone = backbone
        self._text_options: dict[str, Any] = {"full": text_encoding == "full", "chunk": text_chunk}
        self._fixed: tuple[clip.Prompts | None, Tensor] | None = None

    def forward(self, image: Tensor) -> Tensor:
        """Map images to logits.

        Args:
            image: (n, 3, height, width), or what :meth:`encode_image` made of them.

        Returns:
            (n, classes) in float32.
        """
        prompts, text = self._fixed or self.encode_classes()
        return self.logits(self.image_features(image, prompts), text)

    def prompts(self, image: Tensor) -> clip.Prompts:
        """Return the prompts for a batch; they may depend on it where the image tower is frozen.

        Args:
            image: features (n, embed_dim), not normalised, where the tower is frozen; else images.
        """
        return self.learned_prompts()

    def learned_prompts(self, *arguments: Tensor) -> clip.Prompts:
        """Call the learner."""
        with qprompt.quantized_at_once(self.prompt_learner):
            prompts: clip.Prompts = self.prompt_learner(*arguments)
        return prompts

    def encode_classes(self) -> tuple[clip.Prompts | None, Tensor]:
        """Return the prompts and their text features (classes, embed_dim)."""
        prompts = self.learned_prompts()
        return prompts, self.encode_prompts(prompts).squeeze(0)

    def image_features(self, image: Tensor, prompts: clip.Prompts | None = None) -> Tensor:
        """Return features (n, embed_dim) of images; features are returned as they are."""
        return self.encode_image(image, prompts) if image.ndim == 4 else image

    def encode_image(self, image: Tensor, prompts: clip.Prompts | None = None) -> Tensor:
        """Map images (n, 3, height, width) to features (n, embed_dim), not normalised."""
        return clip.encode_image(self.backbone, self.cast(image), prompts)

    def encode_prompts(self, prompts: clip.Prompts) -> Tensor:
        """Map prompts to features (m, classes, embed_dim), not normalised."""
        return clip.encode_prompts(self.backbone, prompts, **self._text_options)

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Call the learner and encode the texts once for all images within this context."""
        self._fixed = self.encode_classes()
        try:
            yield
        finally:
            self._fixed = None

    def cast(self, image: Tensor) -> Tensor:
        """Give images the dtype that the backbone computes in."""
        return image.to(clip.compute_dtype(self.backbone))

    def logits(self, image: Tensor, text: Tensor) -> Tensor:
        """Compare features, as :func:`clip.compare_features` does."""
        return clip.compare_features(self.backbone, image, text)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        backbone = kwargs.get("prefix", "") + "backbone."
        for name in [name for name in state if name.startswith(backbone)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        learned = {name: t for name, t in state_dict.items() if not is_frozen(name)}
        # its own, so that strict loading misses nothing
        frozen = {f"backbone.{name}": t for name, t in self.backbone.state_dict().items()}
        return super().load_state_dict({**learned, **frozen}, *args, **kwargs)


class FixedTextCLIP(PromptedCLIP):
    """CLIP with text features that stay what they are.

    Args:
        backbone: a frozen open_clip CLIP.
        text: (classes, embed_dim) features.
        learner: what is trained beside them, if anything.
    """

    def __init__(self, backbone: nn.Module, text: Tensor, learner: nn.Module | None = None) -> None:
        super().__init__(backbone, learner or nn.Module())
        self.text = text

    def encode_classes(self) -> tuple[None, Tensor]:
        return None, self.text
