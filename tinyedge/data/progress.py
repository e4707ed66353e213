"""The progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

LOG_INTERVAL_S = 10.0
"""Between two lines where stderr is a file: a log should show that training goes on, and stay readable."""


def progress(iterable: Iterable[T], total: int | None = None, desc: str | None = None) -> Iterator[T]:
    """``iterable``, with a progress bar on stderr. ``total`` is only needed where ``iterable`` has no length."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    bar = tqdm(
        iterable, total=total, desc=desc, dynamic_ncols=terminal, mininterval=0.1 if terminal else LOG_INTERVAL_S
    )
    return iter(bar)
