"""The line search for the strong Wolfe conditions: a step that lowers the loss, to where its slope is small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

DECREASE = 1e-4
"""The part of what the slope promises that the loss must fall by."""
CURVATURE = 0.9
"""The part of the first slope that may be left at the end."""


class Point(NamedTuple):
    """A step along the line, with the loss, its slope along the line, and its gradient there."""

    step: float
    loss: float
    slope: float
    gradient: Any


def strong_wolfe(
    evaluate: Callable[[float], Point], start: Point, step: float, length: float, tolerance: float, evaluations: int
) -> tuple[Point, int]:
    """The point found from ``start``, trying ``step`` first, and how often ``evaluate`` was called.

    ``length`` is the largest element of the direction: a bracket is done when it times that is below ``tolerance``.
    ``evaluations`` is how many there may be after the first.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6.
    """

    def is_flat(point: Point) -> bool:
        return abs(point.slope) <= -CURVATURE * start.slope

    def is_above(point: Point) -> bool:
        return point.loss > start.loss + DECREASE * point.step * start.slope

    before, now, used = start, evaluate(step), 0
    bracket = None
    while used < evaluations:
        if is_above(now) or (used > 1 and now.loss >= before.loss):
            bracket = [before, now]
        elif is_flat(now):
            return now, used + 1
        elif now.slope >= 0:
            bracket = [before, now]
        if bracket is not None:
            break
        least, most = now.step + 0.01 * (now.step - before.step), now.step * 10
        following = lowest_between(before, now, least, most)
        before, now, used = now, evaluate(following), used + 1
    if bracket is None:
        bracket = [start, now]
    stalled = False
    low = 0 if bracket[0].loss <= bracket[1].loss else 1
    while used < evaluations:
        left, right = sorted(point.step for point in bracket)
        if (right - left) * length < tolerance:
            break
        step = lowest_between(bracket[0], bracket[1], left, right)
        margin = 0.1 * (right - left)
        near = min(right - step, step - left) < margin
        if near and (stalled or not left < step < right):
            # Twice near an end: a tenth of the bracket away from it, so that the bracket shrinks.
            step = right - margin if abs(step - right) < abs(step - left) else left + margin
            near = False
        stalled = near
        now, used = evaluate(step), used + 1
        if is_above(now) or now.loss >= bracket[low].loss:
            bracket[1 - low] = now
            low = 0 if bracket[0].loss <= bracket[1].loss else 1
            continue
        done = is_flat(now)
        if not done and now.slope * (bracket[1 - low].step - bracket[low].step) >= 0:
            bracket[1 - low] = bracket[low]
        bracket[low] = now
        if done:
            break
    return bracket[low], used + 1


def lowest_between(a: Point, b: Point, least: float, most: float) -> float:
    """Where in [least, most] the cubic through two points with their slopes is lowest; the middle if it has no such."""
    first, second = (a, b) if a.step <= b.step else (b, a)
    width = second.step - first.step
    if width > 0:
        bend = first.slope + second.slope - 3 * (first.loss - second.loss) / (first.step - second.step)
        square = bend**2 - first.slope * second.slope
        if square >= 0:
            root = math.sqrt(square)
            divisor = second.slope - first.slope + 2 * root
            if divisor:
                place = second.step - width * ((second.slope + root - bend) / divisor)
                if math.isfinite(place):
                    return min(max(place, least), most)
    return (least + most) / 2
