"""How tensors are shown: ``set_printoptions``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError

USUAL = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 75, "sci_mode": None}
PROFILES: dict[str, dict[str, Any]] = {
    "default": USUAL,
    "short": {**USUAL, "precision": 2, "edgeitems": 2},
    "full": {**USUAL, "threshold": np.iinfo(np.int64).max},
}

_options: dict[str, Any] = dict(USUAL)


def set_printoptions(
    precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
    linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None,
) -> None:  # fmt: skip
    """Say how ``repr`` shows tensors; what is left out stays as it is.

    ``precision`` digits behind the point; of more than ``threshold`` elements only ``edgeitems`` at each end of a dim;
    lines of ``linewidth`` characters. ``profile`` "default", "short" or "full" sets all. ``sci_mode=False`` never shows
    powers of ten.

    Errors: ArgumentError for another profile.
    """
    if profile is not None:
        if profile not in PROFILES:
            raise ArgumentError("set_printoptions", f"profile must be one of {', '.join(PROFILES)}", f"got {profile!r}")
        _options.update(PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    _options.update({name: value for name, value in {**given, "sci_mode": sci_mode}.items() if value is not None})


def text_of(values: npt.NDArray[Any]) -> str:
    """The elements, as ``repr`` shows them."""
    return np.array2string(
        values, separator=", ", prefix="tensor(", precision=_options["precision"], threshold=_options["threshold"],
        edgeitems=_options["edgeitems"], max_line_width=_options["linewidth"],
        suppress_small=_options["sci_mode"] is False,
    )  # fmt: skip
