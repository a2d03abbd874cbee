"""Packed prompts that lie on the Hugging Face Hub."""

from __future__ import annotations

import re

from .errors import HubError

PREFIX = "hf://"
ADDRESS = re.compile(PREFIX + r"([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")
DEFAULT_FILE = "prompt.safetensors"


def hub_file(address: str) -> str:
    """Returns the path of a file on the Hub, downloaded unless it is in the local cache.

    Args:
        address: hf://user/repository, with @revision and /file where they are others than the
            newest revision and prompt.safetensors.

    Raises:
        HubError: an address of another form, no huggingface_hub, or nothing to be had there.
    """
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise HubError(
            f"'{address}' is no address of a prompt: write hf://user/repository, or "
            "hf://user/repository@revision/file.safetensors"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise HubError(
            f"reading '{address}' takes huggingface_hub: pip install huggingface_hub"
        ) from None
    repository, revision, file = match.groups()
    try:
        return str(hf_hub_download(repository, file or DEFAULT_FILE, revision=revision))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise HubError(
            f"'{address}' cannot be had: {reason}; check the address, the network and, where the "
            "repository is private, your login"
        ) from error
