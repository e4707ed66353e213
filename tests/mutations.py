"""Model files that were damaged at random: each is refused by name, or loads."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import tinyedge as te
from tinyedge.errors import ModelFormatError, UnsupportedOpError


def mutated(content: bytes, random: Random) -> bytes:
    """A file that was cut, or of which some bytes were changed, lost, or doubled."""
    data = bytearray(content)
    choice = random.randrange(4)
    if choice == 0:
        return bytes(data[: random.randrange(len(data))])
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        if choice == 1:
            data[at] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        elif choice == 2:
            del data[at : at + random.randint(1, 8)]
        else:
            data[at:at] = data[at : at + random.randint(1, 64)]
    return bytes(data)


def check_mutations(content: bytes, path: Path, count: int, seed: int, most: int | None = None, **options: Any) -> None:
    """Errors: whatever is no refusal by name. Only the first ``most`` bytes are changed, all if it is None."""
    random = Random(seed)
    for _ in range(count):
        path.write_bytes(mutated(content[:most], random) + (b"" if most is None else content[most:]))
        with suppress(ModelFormatError, UnsupportedOpError):
            te.load_model(path, **options)
