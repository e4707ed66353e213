"""What every backend gives: memory, copies in and out, and prepared steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tinyedge.errors import BackendError, OutOfMemoryError
from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.spec import KernelSpec
from tinyedge.ir.step import Step
from tinyedge.ir.values import MemorySpace

SMALLER = (
    "Compute parts again with te.checkpoint, let te.plan_for choose what to train in a budget, freeze more of the "
    "model, use smaller inputs, or run under te.no_grad()."
)
"""What to do where memory does not suffice."""

Launch = Callable[[], Any]
"""A kernel with its arguments bound. What it returns, if not None or 0, is the driver's error; ``title``, if it has
one, says what it does."""


def note_launched(error: Exception, launches: Sequence[Launch], refused: Launch) -> None:
    """Let ``error.launched`` say how many launches came before the one that was refused."""
    error.__dict__["launched"] = next(at for at, launch in enumerate(launches) if launch is refused)


class GroupsLimited(BackendError):
    """A kernel of a program has larger work-groups than the device runs it with, which only building it showed. What
    the backend's ``device`` lowers from now on has groups that fit, so a program that is made anew will do.
    """


class Placement(NamedTuple):
    """Where a program's memory lies.

    ``temporary`` are the storages in its arena, ``where`` the chunk there of each place and its first byte in that,
    scratch memory too; ``is_split``: there is more than one chunk. ``moving`` are the storages in which slots do not
    stay where they are from call to call.
    """

    temporary: Collection[BufferId]
    where: Mapping[BufferId, tuple[int, int]]
    is_split: bool
    moving: Collection[BufferId]


Origin = tuple[str, int]
"""On what an argument of a launch depends: the number of a "storage", or of a "step"."""


class Lowered:
    """A launch of a program: bound once, launched often. ``specs`` are its kernel, or all those in one."""

    specs: Sequence[KernelSpec]

    def bind(self, scratch: Mapping[BufferId, tuple[Any, int]]) -> None:
        """Bind the slots and numbers as they are now, and scratch: a buffer and an offset in bytes for each place."""
        raise NotImplementedError

    def origins(self) -> Iterable[Origin]:
        """That on which its arguments depend."""
        return ()

    def rebind(self, origin: Origin) -> None:
        """Bind again the arguments that depend on ``origin``, which changed."""

    def launcher(self) -> Launch:
        """What carries it out, with what was bound last."""
        raise NotImplementedError

    def timed(self) -> Callable[[], int]:
        """Launch what was bound last; a call that waits for it and gives the nanoseconds that it took."""
        raise NotImplementedError


class Backend(MemorySpace):
    """Base of the backends: memory, and what is done to it."""

    by_name: ClassVar[Callable[[str], Any]]  # how a pickle finds the backend of its name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).by_name, (self.name,)

    def __copy__(self) -> Backend:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self

    def check_size(self, nbytes: int) -> None:
        """Raise OutOfMemoryError if the device gives no piece of memory so large."""
        if self.largest_bytes is not None and nbytes > self.largest_bytes:
            raise OutOfMemoryError(
                f"{self.name}, an allocation of {nbytes} bytes",
                f"at most {self.largest_bytes} bytes for one tensor, which is what the device gives in one piece",
                f"one takes {nbytes}",
                f"Compute it in parts: for fewer samples at a time, or in several smaller tensors. {SMALLER}",
            )

    def prepare(self, step: Step, allocate: Callable[[int], Any] | None = None) -> Sequence[Launch]:
        """The launches that carry out ``step``; ``allocate`` gives scratch memory, instead of the backend itself."""
        raise NotImplementedError

    def launch(self, launches: Sequence[Launch]) -> None:
        """Carry them out in order.

        Errors: OutOfMemoryError from a device that allocates when memory is first used. What is raised says in its
                attribute ``launched`` how many were carried out, or enqueued, before.
        """
        try:
            for launch in launches:
                launch()
        except Exception as error:
            note_launched(error, launches, launch)
            raise

    def lower_all(self, launches: Sequence[LaunchGroup], placement: Placement) -> list[Lowered]:
        """The launches of a program, whose temporary slots have their places already."""
        raise NotImplementedError

    def fuses_horizontally(self, kernels: Sequence[Kernel], temporary: Collection[BufferId]) -> bool:
        """Whether one launch should do all these kernels, which do not depend on each other."""
        return False

    def launch_groups(
        self, kernels: Sequence[Kernel], temporary: Collection[BufferId], later: bool = False, is_split: bool = False
    ) -> list[Sequence[Kernel]]:
        """The kernels, in order, in runs that should share a launch although some depend on others.

        When they are launched ``later``, the device is at work on what was launched before. ``is_split``: their arena
        has several chunks.
        """
        return [[kernel] for kernel in kernels]
