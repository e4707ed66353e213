"""The random numbers of a program: which are drawn, in the order of the recorded call, and the tensors of them.

In: a Recording. Out: at each replay new numbers, those that an eager call would draw. A kernel that computes its random
numbers itself (dropout) gets them as scalars; tensors that are filled from the host (``te.rand``) are made anew, and
bound like arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from tinyedge.compiler.record import Recording
from tinyedge.ops.random import Draw, Generator, TensorDraw
from tinyedge.tensor import Tensor

States = list[tuple[Generator, tuple[int, int]]]


class Draws:
    """Each draw of a recorded call, with a twin that the program renews."""

    def __init__(self, recording: Recording) -> None:
        self._recorded = list(recording.draws)  # held, since they are known by their ids
        self._twins = {id(draw): draw.twin() for draw in self._recorded}
        self._filled = [cast("TensorDraw", self.twin(drawn.draw)) for drawn in recording.drawn_tensors]

    def __bool__(self) -> bool:
        return bool(self._twins)

    def twin(self, draw: Draw) -> Draw:
        """The program's own of a recorded draw, whose graph keeps the recorded one."""
        if id(draw) not in self._twins:  # it was drawn before the call
            self._recorded.append(draw)
            self._twins[id(draw)] = draw.twin()
        return self._twins[id(draw)]

    @property
    def generators(self) -> list[Generator]:
        """The generators from which a call draws."""
        return list({id(draw.generator): draw.generator for draw in self._twins.values()}.values())

    def states(self) -> States:
        """What ``restore`` goes back to."""
        return [(generator, generator.get_state()) for generator in self.generators]

    @staticmethod
    def restore(states: States) -> None:
        for generator, state in states:
            generator.set_state(state)

    def now(self) -> list[tuple[Draw, dict[str, float]]]:
        """The draws with their present numbers, for the backward of a call."""
        return [(draw, dict(draw)) for draw in self._twins.values()]

    def renew(self, numbers: Sequence[Mapping[str, float]] | None) -> None:
        """Draw anew, or take ``numbers``, those of an earlier call."""
        for position, draw in enumerate(self._twins.values()):
            if numbers is None:
                draw.renew()
            else:
                draw.update(numbers[position])

    def tensors(self) -> list[Tensor]:
        """New tensors that are filled with the present numbers."""
        return [draw.tensor() for draw in self._filled]
