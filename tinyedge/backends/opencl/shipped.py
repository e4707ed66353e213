"""The cache of built programs as one file, which can be shipped to machines with the same device and driver.

In: a folder of binaries. Out: a file, and back. Its head says for which device, driver and version of this package it
is, and the size and name of each binary; a digest of all tells whether it is whole. The digest does not say who made
the file, and a driver trusts a binary: a file is worth as much trust as the place that it came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tinyedge.backends.opencl.binaries import DIGEST_BYTES, Binaries
from tinyedge.errors import ArgumentError

MAGIC = b"tinyedge cache 1\n"
HEAD_BYTES = 8 << 20
"""The most that a head takes: a hundred bytes for each binary."""

_KEY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{64}")


def exported(binaries: Binaries, version: str) -> tuple[bytes, int]:
    """All binaries of one device as the contents of a file, and how many they are."""
    found = [(key, binary) for key in binaries.files() if (binary := binaries.load(key)) is not None]
    head = {
        "device": list(binaries.identity),
        "tinyedge": version,
        "binaries": [[key, len(binary)] for key, binary in found],
    }
    text = json.dumps(head).encode()
    content = b"".join([len(text).to_bytes(8, "little"), text, *[binary for _, binary in found]])
    return MAGIC + hashlib.sha256(content).digest() + content, len(found)


def imported(binaries: Binaries, content: bytes, version: str) -> int:
    """Keep the binaries that such a file holds; return how many they are. All are checked before the first is kept.

    A folder that takes no more is warned about, as when kernels are built.

    Errors: ArgumentError if the file is none of these, is damaged, or is another device's, driver's or version's.
    """
    head, body = _parts(content)
    for what, expected, got in (
        ("made on the same device with the same driver", list(binaries.identity), head.get("device")),
        ("made by the same version of tinyedge", version, head.get("tinyedge")),
    ):
        if got != expected:
            raise ArgumentError(
                "tinyedge cache import", f"a file {what}: {_text(expected)}", f"it is of {_text(got)}",
                "Export one on such a machine; without it, kernels are built at their first use.",
            )  # fmt: skip
    kept: list[tuple[str, bytes]] = []
    first = 0
    for entry in head.get("binaries", ()):
        key, nbytes = entry if isinstance(entry, list) and len(entry) == 2 else ("", -1)
        is_own = isinstance(key, str) and _KEY.fullmatch(key) is not None and binaries.is_own(key)
        if not is_own or type(nbytes) is not int or not 0 <= nbytes <= len(body) - first:
            raise _damaged("its head names what is no binary of this device, or more bytes than there are")
        kept.append((key, body[first : first + nbytes]))
        first += nbytes
    if first != len(body):
        raise _damaged(f"{len(body) - first} bytes belong to no binary")
    for number, (key, binary) in enumerate(kept):
        binaries.store(key, binary)
        if not binaries.enabled:
            return number
    return len(kept)


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The head of a file, and what follows it."""
    if not content.startswith(MAGIC):
        raise _damaged("it does not begin as such a file does")
    start = len(MAGIC) + DIGEST_BYTES
    if hashlib.sha256(content[start:]).digest() != content[len(MAGIC) : start]:
        raise _damaged("it is cut short or was changed")
    nbytes = int.from_bytes(content[start : start + 8], "little")
    text = content[start + 8 : start + 8 + nbytes]
    if not 0 < nbytes <= HEAD_BYTES or len(text) != nbytes:
        raise _damaged("its head has no proper length")
    try:
        head = json.loads(text)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or not isinstance(head.get("binaries"), list):
        raise _damaged("its head cannot be read")
    return head, content[start + 8 + nbytes :]


def _text(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return ", ".join(str(part)[:200] for part in parts if part)


def _damaged(problem: str) -> ArgumentError:
    return ArgumentError(
        "tinyedge cache import", "a whole file that `tinyedge cache export` wrote", problem, "Export it again."
    )
