"""When a kernel adds up blocks of terms, in place of one term after the other (sums.cl.jinja).

In: how many terms a work-item adds up. Out: the constant ``cascades`` of its template.
"""

from __future__ import annotations


def cascades(terms: int) -> bool:
    """Whether so many terms are too many for one sum: 2048 equal terms in a row are off by 3e-5 at most. Fewer go
    without, because short rows took 1.1 to 1.5 times as long with the blocks.
    """
    return terms > 2048


__all__ = ["cascades"]
