"""PyTorch's switches for the whole program that change nothing here."""

from __future__ import annotations

from tinyedge.errors import ArgumentError

PRECISIONS = ("highest", "high", "medium")

_precision = "highest"


def set_float32_matmul_precision(precision: str) -> None:
    """Remember ``precision``, "highest", "high" or "medium". Products of float32 are computed in float32 with each.

    Errors: ArgumentError for another.
    """
    global _precision
    if precision not in PRECISIONS:
        raise ArgumentError(
            "set_float32_matmul_precision", f"one of {', '.join(PRECISIONS)}", f"got {precision!r}"
        )  # fmt: skip
    _precision = precision


def get_float32_matmul_precision() -> str:
    """What ``set_float32_matmul_precision`` was given; "highest" at first."""
    return _precision


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing: every sum has one order, so results repeat always."""


def are_deterministic_algorithms_enabled() -> bool:
    """True."""
    return True
