"""Packed prompts as text: a 1-bit prompt in about 400 characters, for a message or a QR code.

    text = "qp1." + base64url(digest | header, deflated | payload)

Header and payload are those of a packed file, with no more metadata than using the prompt needs.
The digest is the first eight bytes of the SHA-256 of what follows it. Headers have most of their
words in common, so they are deflated with a dictionary of these.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

from safetensors import SafetensorError

from .errors import PackedFileError
from .packed_file import DIGEST, LIMIT, PackedFile, split

PREFIX = "qp1."  # another dictionary or layout gets another number
KEPT = ("backbone", "ctx_init", "input", "settings", "trainer")
DIGEST_BYTES = 8
# Other words cost their letters. The last ones are the header of a prompt of QCoOp.
DICTIONARY = (
    rb"prompt_learner.compound_prompts_text.meta_net.linear1.weight.bias.VPT_shallow"
    rb"MAPLE PROMPT_DEPTH COCOOP a photo of a QMaPLe QCoCoOp QKgCoOp QProGrad middle front"
    rb"RN50 ViT-L/14 ViT-B/32 laion2b_s34b_b79k tiny [32,32] [16] [4] \"bits\":4, \"bits\":2,"
    rb'{"__metadata__":{"backbone":"ViT-B/16","ctx_init":"","format":"qprompt","format_version":"1",'
    rb'"input":"{\"interpolation\":\"bicubic\",\"mean\":[0.48145466,0.4578275,0.40821073],'
    rb'\"size\":[224,224],\"std\":[0.26862954,0.26130258,0.27577711]}",'
    rb'"quantized":"{\"ctx\":{\"bits\":1,\"shape\":[4,512],\"dtype\":\"float16\"}}",'
    rb'"settings":"{\"COOP\":{\"CLASS_TOKEN_POSITION\":\"end\",\"CSC\":false,\"CTX_INIT\":\"\",'
    rb"\"N_CTX\":4,\"W\":8.0},\"QPROMPT\":{\"BITS\":1,\"CODEBOOK\":\"kmeans\",\"MODE\":\"qat\","
    rb'\"NORMALIZE\":true,\"PARAMS\":\"\"}}","trainer":"QCoOp"},'
    rb'"ctx.codebook":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},'
    rb'"ctx.indices":{"dtype":"U8","shape":[256],"data_offsets":[4,260]}}'
)


def encode_text(packed: PackedFile) -> str:
    """Turns a packed file into text, without metadata that using the prompt does not need."""
    kept = {name: packed.metadata[name] for name in KEPT if name in packed.metadata}
    text, payload = split(packed._replace(metadata=kept).encode())
    header = json.loads(text)
    del header["__metadata__"][DIGEST]
    header["__metadata__"]["format_version"] = "1"  # the one without a digest
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=DICTIONARY)
    content = deflate.compress(text) + deflate.flush() + payload
    return PREFIX + base64.urlsafe_b64encode(_digest(content) + content).rstrip(b"=").decode()


def decode_text(text: str) -> PackedFile:
    """Inverse of `encode_text`; spaces and line breaks do not matter.

    Raises:
        PackedFileError: text of something else or of a newer release, or cut or changed on its way.
    """
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise PackedFileError(
            f"{text[:20]!r}... is no packed prompt: this release reads texts that start with "
            f"{PREFIX!r}"
        )
    try:
        encoded = text[len(PREFIX) :] + "=" * (-(len(text) - len(PREFIX)) % 4)
        content = base64.b64decode(encoded, altchars=b"-_", validate=True)
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if digest != _digest(content):
            raise ValueError("its digest is another")
        inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=DICTIONARY)
        header = inflate.decompress(content, LIMIT)
        return PackedFile.decode(len(header).to_bytes(8, "little") + header + inflate.unused_data)
    except (RecursionError, SafetensorError, ValueError, zlib.error) as error:
        raise PackedFileError(
            f"this text of {len(text)} characters was cut or changed on its way ({error}); "
            "copy the whole of it again"
        ) from error


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]
