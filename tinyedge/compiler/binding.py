"""What a program is bound to: its launches, and what moves from call to call."""

from __future__ import annotations

from collections import defaultdict

from tinyedge.backends.base import Launch, Lowered
from tinyedge.backends.binding import Origin, Places


class Part:
    """Launches that are enqueued together: of a call, or if it is differentiable of its forward or backward."""

    def __init__(self, lowered: list[Lowered]) -> None:
        self.lowered = lowered
        self.launches: list[Launch] = []
        self.is_bound = False
        self.stale: set[Origin] = set()  # what changed since the launches were bound
        self.has_run = False
        self.takers: dict[Origin, list[Lowered]] = defaultdict(list)  # the launches that depend on each
        for each in lowered:
            for origin in each.origins():
                self.takers[origin].append(each)

    def bind(self, places: Places) -> None:
        if not self.is_bound:
            for lowered in self.lowered:
                lowered.bind(places)
            self.launches = self.launches or [lowered.launcher() for lowered in self.lowered]
            self.is_bound = True
        else:
            for origin in self.stale:
                for lowered in self.takers.get(origin, ()):
                    lowered.rebind(origin, places)
        self.stale.clear()
