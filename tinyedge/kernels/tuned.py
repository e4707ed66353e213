"""The tuning cache: the tiles that were measured to be fastest, in one file for each device and driver version.

In: choices of ``te.tune``. Out: ``Device.tuned``, which ``tile.choose`` asks first.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from tinyedge import config
from tinyedge.errors import BackendError
from tinyedge.kernels.tile import Product, Tile

VERSION = 1
LIMIT_BYTES = 16 << 20


class Required(dict[Product, Tile]):
    """A tuning cache in which every product must be present (TINYEDGE_TUNE=must)."""

    def get(self, product: Product, default: Any = None) -> Tile:
        if product not in self:
            raise BackendError(
                "TINYEDGE_TUNE=must", "every product must have been tuned on this device", f"{product} was not",
                "Run `tinyedge tune MODEL`, or te.tune with a step of yours.",
            )  # fmt: skip
        return self[product]


def remembered(device: tuple[str, ...]) -> dict[Product, Tile]:
    """The tuning cache of a device. A file that is damaged, or was measured with other kernels, is not used."""
    path = _path(device)
    choices = _read(path)
    return Required(choices) if config.tune_mode() == "must" else choices


def remember(device: tuple[str, ...], choices: Mapping[Product, Tile]) -> Path:
    """Add ``choices`` to the device's tuning cache; return its file."""
    path = _path(device)
    merged = {**_read(path), **choices}
    data = {
        "version": VERSION,
        "kernels": _kernels(),
        "device": device,
        "choices": [[astuple(product), astuple(tile)] for product, tile in merged.items()],
    }
    try:
        config.remember(path, json.dumps(data).encode())
    except OSError as error:
        warnings.warn(f"the tuning cache is not kept for later runs: {path}: {error}", stacklevel=3)
    return path


def _path(device: tuple[str, ...]) -> Path:
    digest = hashlib.sha256("\n".join(device).encode()).hexdigest()[:16]
    return config.cache_path() / "tune" / f"{digest}.json"


def _kernels() -> str:
    """A digest of the kernels' source: measurements of other kernels do not apply."""
    return hashlib.sha256(Path(__file__).with_name("templates").joinpath("tile.cl.jinja").read_bytes()).hexdigest()[:16]


def _read(path: Path) -> dict[Product, Tile]:
    try:
        data = json.loads(config.read_remembered(path, LIMIT_BYTES))
        if (data["version"], data["kernels"]) != (VERSION, _kernels()):
            warnings.warn(f"{path} was measured with other kernels and is not used; tune again", stacklevel=2)
            return {}
        # A tile is used only if it is among those that its product may have, so its numbers need no check here.
        return {Product(*product): Tile(*tile) for product, tile in data["choices"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        warnings.warn(f"{path} is damaged and is not used ({error!r}); tune again", stacklevel=2)
        return {}


__all__ = ["Required", "remember", "remembered"]
