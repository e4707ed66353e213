"""Tables and quantities as text."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Aligned columns: those numbered in ``left`` to the left, the others, which are numbers, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def memory_unit(nbytes: float) -> tuple[str, int]:
    """The unit in which to state so many bytes, and its size in bytes."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return unit, size
    return "B", 1


def memory_text(nbytes: int) -> str:
    """Bytes with a unit.

    >>> memory_text(10), memory_text(1536), memory_text(300 * 2**20), memory_text(1020 * 2**10)
    ('10 B', '1.50 KiB', '300 MiB', '1020 KiB')
    """
    unit, size = memory_unit(nbytes)
    if size > 1 and nbytes / size >= 999.5:  # else three digits would need an exponent
        return f"{nbytes / size:.0f} {unit}"
    return f"{nbytes} B" if size == 1 else f"{nbytes / size:#.3g} {unit}".replace(". ", " ")


def rate_text(count: int, elapsed_ns: float) -> str:
    """Thousand millions per second."""
    return f"{count / elapsed_ns:.3g}" if count and elapsed_ns else ""


def millions_text(flops: int) -> str:
    """Millions, to three digits."""
    millions = flops / 1e6
    return "" if not flops else f"{millions:.0f}" if millions >= 100 else f"{millions:#.3g}"
