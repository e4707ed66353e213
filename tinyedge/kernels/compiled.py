"""Templates as Python code, kept between runs: to parse them takes a fifth of a first step that builds no kernel.

As with a kernel's binary, a file counts only if it belongs to this user, nobody else may write to it, and the digest at
its head is that of its contents, of the template's text, and of the versions that compiled it.
"""

from __future__ import annotations

import hashlib
import marshal
import sys
from contextlib import suppress
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket

from tinyedge import config

MOST_BYTES = 4 << 20
DIGEST_BYTES = 32


class CompiledTemplates(jinja2.BytecodeCache):
    """A folder with a file for each template. What cannot be read is compiled; what cannot be written is not kept."""

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        return f"{name}.{sys.implementation.cache_tag}"  # the same file for every copy of the package

    def load_bytecode(self, bucket: Bucket) -> None:
        if config.keeps_binaries():
            with suppress(OSError):
                content = config.read_remembered(_path(bucket), MOST_BYTES)
                code = content[DIGEST_BYTES:]
                if content[:DIGEST_BYTES] == _digest(bucket, code):
                    bucket.code = marshal.loads(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        if config.keeps_binaries():
            code = marshal.dumps(bucket.code)
            with suppress(OSError):
                config.remember(_path(bucket), _digest(bucket, code) + code)


def _path(bucket: Bucket) -> Path:
    return config.cache_path() / "templates" / bucket.key


def _digest(bucket: Bucket, code: bytes) -> bytes:
    compiled_by = f"{bucket.key} {bucket.checksum} {jinja2.__version__}".encode()
    return hashlib.sha256(compiled_by + MAGIC_NUMBER + code).digest()
