"""The interface of a backend: memory, copies between host and device, prepared steps, lowered launch groups.

In: Steps and LaunchGroups. Out: launches, that is callables which enqueue a kernel with its arguments bound. Eager
calls use ``prepare`` and ``launch``; programs use ``describe_all`` and ``load`` once, and bind only what changed at
each replay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from tinyedge.backends.binding import Origin, Places
from tinyedge.backends.layout import ProgramLayout
from tinyedge.errors import BackendError, OutOfMemoryError
from tinyedge.ir.kernel import BufferId, Kernel
from tinyedge.ir.launch import LaunchGroup
from tinyedge.ir.program import ArgumentSpec, ProgramSpec, SourceSpec
from tinyedge.ir.spec import KernelSpec
from tinyedge.ir.step import Step
from tinyedge.ir.values import MemorySpace
from tinyedge.shapes import Shape

SMALLER = (
    "Compute parts again with te.checkpoint, let te.plan_for choose what to train in a budget, freeze more of the "
    "model, use smaller inputs, or run under te.no_grad()."
)
"""The remedy in an OutOfMemoryError."""

Launch = Callable[[], Any]
"""A kernel with its arguments bound. It returns the driver's error code, if not None or 0. Its attribute ``title``, if
it has one, describes it.
"""


def note_launched(error: BaseException, launches: Sequence[Launch], refused: Launch) -> None:
    """Set ``error.launched`` to the number of launches that came before the one that was refused or interrupted."""
    error.__dict__["launched"] = next(at for at, launch in enumerate(launches) if launch is refused)


class GroupsLimited(BackendError):
    """The device runs a program's kernel only in smaller work-groups than it has, which showed when it was built.

    The backend's ``device`` knows the limit from now on, so the same program, lowered again, gets work-groups that fit.
    """


class Described(NamedTuple):
    """A launch as plain data, without the memory that it touches."""

    source: SourceSpec
    title: str
    global_size: Shape
    local_size: Shape
    arguments: tuple[ArgumentSpec, ...]
    reports: tuple[str, ...]


class DescribedGroup(NamedTuple):
    """The launches of a launch group: one, or one for each kernel where the device cannot run them in one.

    ``specs``: its kernels' specs.
    """

    title: str
    launches: Sequence[Described]
    specs: Sequence[KernelSpec]


class Lowered:
    """A launch of a program: bound once, launched often. ``specs`` are its kernels' specs, of one
    or of a launch group.
    """

    title: str
    specs: Sequence[KernelSpec] = ()

    def bind(self, places: Places) -> None:
        """Bind all arguments as they are now."""
        raise NotImplementedError

    def origins(self) -> Iterable[Origin]:
        """What its arguments depend on."""
        return ()

    def rebind(self, origin: Origin, places: Places) -> None:
        """Bind again the arguments that depend on ``origin``, because that has changed."""

    def release(self) -> None:
        """Hold no memory of the arena, which is let go."""

    def launcher(self) -> Launch:
        """The callable that enqueues it with the arguments that are bound."""
        raise NotImplementedError

    def timed(self) -> Callable[[], int]:
        """Enqueue it once, and return a function that waits for it and returns the nanoseconds that it took."""
        raise NotImplementedError


class Sequential(Lowered):
    """Launches one after the other, in the place of one."""

    def __init__(self, each: Sequence[Lowered], title: str) -> None:
        self.each = each
        self.title = title

    def bind(self, places: Places) -> None:
        for lowered in self.each:
            lowered.bind(places)

    def origins(self) -> Iterable[Origin]:
        return {origin for lowered in self.each for origin in lowered.origins()}

    def rebind(self, origin: Origin, places: Places) -> None:
        for lowered in self.each:
            lowered.rebind(origin, places)

    def release(self) -> None:
        for lowered in self.each:
            lowered.release()

    def launcher(self) -> Launch:
        launches = [lowered.launcher() for lowered in self.each]

        def launch() -> Any:
            for each in launches:
                if status := each():
                    return status
            return None

        launch.title = self.title  # type: ignore[attr-defined]
        return launch

    def timed(self) -> Callable[[], int]:
        times = [lowered.timed() for lowered in self.each]
        return lambda: sum(elapsed_ns() for elapsed_ns in times)


class Backend(MemorySpace):
    """Base of the backends: memory, and the execution of steps and programs."""

    by_name: ClassVar[Callable[[str], Any]]  # a pickle finds the backend by its name through this

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
        """The launches that compute ``step``. ``allocate`` gives scratch memory; by default the backend does."""
        raise NotImplementedError

    def launch(self, launches: Sequence[Launch]) -> None:
        """Enqueue the launches in order.

        Errors: OutOfMemoryError from a device that allocates when memory is first used. The exception's attribute
                ``launched`` says how many launches were enqueued, or done, before.
        """
        try:
            for launch in launches:
                launch()
        except Exception as error:
            note_launched(error, launches, launch)
            raise

    def describe_all(self, groups: Sequence[LaunchGroup], layout: ProgramLayout) -> list[DescribedGroup]:
        """The launches of each launch group, rendered and built.

        Errors: GroupsLimited.
        """
        raise NotImplementedError

    def lower_steps(self, groups: Sequence[LaunchGroup], layout: ProgramLayout) -> list[Lowered]:
        """The launches of each launch group, on a backend that has no kernels: each is a step."""
        raise NotImplementedError

    def load(self, spec: ProgramSpec) -> list[Lowered]:
        """The launches of ``spec``, with no arguments bound."""
        raise NotImplementedError

    def fuses_horizontally(self, kernels: Sequence[Kernel], temporary: Collection[BufferId]) -> bool:
        """Whether these kernels, which are independent, should share a launch (horizontal fusion)."""
        return False

    def launch_groups(
        self, kernels: Sequence[Kernel], temporary: Collection[BufferId], later: bool = False, is_split: bool = False
    ) -> list[Sequence[Kernel]]:
        """The kernels, in order, divided into launch groups: those of a persistent kernel may depend on each other.

        When they are launched ``later``, the device is at work on what was launched before. ``is_split``: their arena
        has several chunks.
        """
        return [[kernel] for kernel in kernels]
