"""What every backend gives: memory, copies in and out, and prepared steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyedge.chain import Shared
from tinyedge.dtypes import DType
from tinyedge.errors import BackendError, OutOfMemoryError
from tinyedge.fusion import Kernel, Place
from tinyedge.kernels.spec import KernelSpec
from tinyedge.tape import Slot, Step, Storage

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


class Memory:
    """Bytes on a device, and the most there ever were since the last reset.

    ``allocated_bytes`` are those of tensors and arenas that are alive. ``reserved_bytes`` are those that the driver
    holds for them: also what is kept for reuse, the rest of slabs, and small tables for kernels; not programs.
    """

    def __init__(self) -> None:
        self.allocated_bytes = 0
        self.peak_bytes = 0
        self.reserved_bytes = 0
        self.peak_reserved_bytes = 0

    def add(self, nbytes: int) -> None:
        self.allocated_bytes += nbytes
        if self.allocated_bytes > self.peak_bytes:
            self.peak_bytes = self.allocated_bytes

    def remove(self, nbytes: int) -> None:
        self.allocated_bytes -= nbytes

    def reserve(self, nbytes: int) -> None:
        """The driver gave so many bytes more."""
        self.reserved_bytes += nbytes
        if self.reserved_bytes > self.peak_reserved_bytes:
            self.peak_reserved_bytes = self.reserved_bytes

    def unreserve(self, nbytes: int) -> None:
        """So many bytes went back to the driver."""
        self.reserved_bytes -= nbytes

    def reset_peak(self) -> None:
        self.peak_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes


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

    temporary: Collection[Place]
    where: Mapping[Place, tuple[int, int]]
    is_split: bool
    moving: Collection[Place]


Origin = tuple[str, int]
"""On what an argument of a launch depends: the number of a "storage", or of a "step"."""


class Lowered:
    """A launch of a program: bound once, launched often. ``specs`` are its kernel, or all those of a chain."""

    specs: Sequence[KernelSpec]

    def bind(self, scratch: Mapping[Place, tuple[Any, int]]) -> None:
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


class Backend:
    """Base of the backends."""

    name: str = ""
    description: str = ""
    device: Any = None  # a Device: what kernels are written for; None where a step is run as a whole
    largest_bytes: int | None = None  # the most that it gives in one piece; None: whatever there is
    counts_to: int | None = None  # elements of one piece that its kernels can tell apart; None: any number

    def __init__(self) -> None:
        self.memory = Memory()

    def __repr__(self) -> str:
        return f"<Backend {self.name}: {self.description}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from tinyedge.backends import get_backend

        return get_backend, (self.name,)

    def __copy__(self) -> Backend:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self

    def check_dtype(self, dtype: DType) -> None:
        """Raise DtypeError if values of ``dtype`` cannot be kept here."""

    def check_size(self, nbytes: int) -> None:
        """Raise OutOfMemoryError if the device gives no piece of memory so large."""
        if self.largest_bytes is not None and nbytes > self.largest_bytes:
            raise OutOfMemoryError(
                f"{self.name}, an allocation of {nbytes} bytes",
                f"at most {self.largest_bytes} bytes for one tensor, which is what the device gives in one piece",
                f"one takes {nbytes}",
                f"Compute it in parts: for fewer samples at a time, or in several smaller tensors. {SMALLER}",
            )

    def allocate(self, nbytes: int) -> Any:
        """A buffer of at least ``nbytes`` bytes, its contents undefined."""
        raise NotImplementedError

    def reserve(self, nbytes: int) -> Any:
        """The same for a value, which may be a part of a buffer that it shares with others."""
        return self.allocate(nbytes)

    def release(self, buffer: Any, nbytes: int) -> None:
        """Called when the last view of ``buffer`` is gone; a program may use it again for its next result."""

    def trim(self) -> None:
        """Give back to the device what was released and is kept for reuse."""

    def write(self, storage: Storage, array: np.ndarray[Any, Any]) -> None:
        """Fill ``storage`` with the bytes of a contiguous array."""
        raise NotImplementedError

    def read(self, slot: Slot) -> np.ndarray[Any, Any]:
        """The values of a contiguous slot, after all that was launched before."""
        raise NotImplementedError

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

    def lower_all(self, launches: Sequence[Shared], placement: Placement) -> list[Lowered]:
        """The launches of a program, whose temporary slots have their places already."""
        raise NotImplementedError

    def shares_launch(self, kernels: Sequence[Kernel], temporary: Collection[Place]) -> bool:
        """Whether one launch should do all these kernels, which do not depend on each other."""
        return False

    def chains(
        self, kernels: Sequence[Kernel], temporary: Collection[Place], later: bool = False, is_split: bool = False
    ) -> list[Sequence[Kernel]]:
        """The kernels, in order, in runs that should share a launch although some depend on others.

        When they are launched ``later``, the device is at work on what was launched before. ``is_split``: their arena
        has several chunks.
        """
        return [[kernel] for kernel in kernels]

    def finish(self) -> None:
        """Wait until everything launched so far is done."""
