"""Building kernels: OpenCL C in, kernel objects out.

Those that are not built yet are built many at a time. What was built is kept in memory, and as a binary for later runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tinyedge import config
from tinyedge.backends.opencl.binaries import Binaries, kept_source
from tinyedge.backends.opencl.build_processes import build_together, processes_for
from tinyedge.backends.opencl.context import OpenCLContext
from tinyedge.backends.opencl.devices import BUILD_OPTIONS, DeviceEntry
from tinyedge.backends.opencl.driver import OUT_OF_MEMORY, code_of
from tinyedge.backends.opencl.launches import (
    Built,
    Rendered,
    ToBuild,
)  # fmt: skip
from tinyedge.backends.opencl.plain_kernels import plain_kernels
from tinyedge.backends.opencl.recent import Recent
from tinyedge.errors import KernelBuildError
from tinyedge.ir.program import SourceSpec
from tinyedge.kernels.render import Source

BUILD_OPTIONS_FP64 = ("-cl-std=CL1.2",)
PROGRAM_KERNELS = 24
"""The most kernels in one OpenCL program: few enough to find one that does not build by building each alone."""
PROGRAM_CHARACTERS = 64_000
"""The longest text of a program with several kernels, so that processes can share a long build."""
PERSISTENT_OPTIONS = {
    "ptx": (*BUILD_OPTIONS, "-cl-nv-maxrregcount=64"),
    "c11": ("-cl-std=CL3.0", "-cl-single-precision-constant"),
}
"""Build options of a persistent kernel. On NVIDIA's GPUs all its kernels get as many registers as the largest needs,
which must not be so many that only few work-groups run at a time."""

BUILT = 1024
"""Entries of the cache for sources: the most recently used, and as many older ones."""


def sourced(source: Source, order: str = "") -> SourceSpec:
    """``source``, with the options that it is built with. ``order``: that of the device, for a persistent kernel."""
    if source.has_double:
        return SourceSpec(source.function, source.text, BUILD_OPTIONS_FP64, False)
    options = PERSISTENT_OPTIONS[order] if order else BUILD_OPTIONS
    return SourceSpec(source.function, source.text, options, bool(order))


Sources = Sequence[Rendered | ToBuild]
"""What makes one OpenCL program: sources with the same build options."""


def _text_of(part: Sources) -> str:
    return "\n".join(draft.source.text for draft in part)


def _characters(part: Sources) -> int:
    return sum(len(draft.source.text) for draft in part)


def _divided(drafts: Sources) -> list[Sources]:
    """``drafts`` divided into OpenCL programs, the same way on every machine, since binaries are kept by program."""
    found: list[Sources] = [[draft] for draft in drafts if draft.source.is_persistent]
    last: dict[tuple[str, ...], list[Rendered | ToBuild]] = {}
    for draft in drafts:
        if draft.source.is_persistent:
            continue
        part = last.get(draft.source.options)
        room = PROGRAM_CHARACTERS - len(draft.source.text)
        if part is None or len(part) == PROGRAM_KERNELS or _characters(part) > room:
            part = last[draft.source.options] = []
            found.append(part)
        part.append(draft)
    return found


class OpenCLBuilder(OpenCLContext):
    """A device that builds kernels."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__(entry)
        self.binaries = Binaries(config.cache_path() / "binaries", entry.identity, config.keeps_binaries())
        self._kernels: Recent[SourceSpec, Built] = Recent(BUILT)

    def _build(self, drafts: Sequence[Rendered | ToBuild]) -> dict[SourceSpec, Built]:
        """The built kernel of each source. Those that are not built yet are built many to an OpenCL program, since each
        program has a fixed cost; a persistent kernel alone.
        """
        result: dict[SourceSpec, Built] = {}
        missing: dict[SourceSpec, Rendered | ToBuild] = {}
        for draft in drafts:
            found = self._kernels.get(draft.source)
            if found is None:
                missing[draft.source] = draft
            else:
                result[draft.source] = found
        if not missing:
            return result
        parts = _divided(list(missing.values()))
        programs = self._built_in_processes(parts)
        for part in parts:
            if part[0].source not in programs:
                programs |= self._build_together(part)
        for source, program in programs.items():
            kernel = self.kernel_of(program, source.function, missing[source].title)
            result[source] = self._kernels[source] = Built(program, kernel, self._limit_of(kernel))
        return result

    def _built_in_processes(self, parts: Sequence[Sources]) -> dict[SourceSpec, Any]:
        """The programs of ``parts`` that several processes build at the same time, if they are worth that.

        The driver builds one at a time in each process: on an H100 the programs of MobileNet v2's first step take 31 s
        one after the other, 21 s in 16 threads, and 9 s in 16 processes.
        """
        new = [part for part in parts if not self.binaries.has(self._key(part))]
        count = 0
        if len(new) > 1:
            memory = None if self.entry.is_cpu else int(self.entry.asked("global_mem_size", 0))
            count = processes_for(sum(map(_characters, new)), memory)
        if not count:
            return {}
        new.sort(key=_characters, reverse=True)
        built: dict[SourceSpec, Any] = {}

        def build(number: int) -> None:
            built.update(self._build_together(new[number]))

        wanted = [(_text_of(part), part[0].source.options) for part in new]
        for number, binary in build_together(self.entry.known_as, wanted, count, build).items():
            self.binaries.store(self._key(new[number]), binary)
            built.update(self._build_together(new[number], binary))
        return built

    def _key(self, part: Sources) -> str:
        return self.binaries.key(_text_of(part), part[0].source.options)

    def kernel_of(self, program: Any, function: str, title: str) -> Any:
        """A kernel object, which keeps the arguments that it was given last."""
        with self._asked(f"the kernel of {title}"), plain_kernels():
            return self.cl.Kernel(program, function)

    def _limit_of(self, kernel: Any) -> int:
        """The largest work-group that the device runs ``kernel`` with."""
        most: int = self.device.max_work_group
        try:
            said = kernel.get_work_group_info(self.cl.kernel_work_group_info.WORK_GROUP_SIZE, self.entry.device)
        except self.cl.Error:  # then only the device's general limit is known
            return most
        return min(int(said) or most, most)

    def _build_together(self, drafts: Sources, binary: bytes | None = None) -> dict[SourceSpec, Any]:
        """The OpenCL program of each source: one for all of them. ``binary``: it, built."""
        text, options = _text_of(drafts), drafts[0].source.options
        try:
            program = self.program(text, options, binary)
        except (self.cl.Error, MemoryError) as error:
            if len(drafts) > 1:  # build each alone, so that the message names the one that does not build
                return {source: p for draft in drafts for source, p in self._build_together([draft]).items()}
            if code_of(error) in OUT_OF_MEMORY or isinstance(error, MemoryError):
                raise self._refusal(f"building {drafts[0].title}", error) from error
            source = drafts[0].source
            raise KernelBuildError(
                drafts[0].title,
                f"kernel {drafts[0].kernel} must build on {self.description}",
                f"the compiler said:\n{error}\n({kept_source(source.function, text)})",
                "Please report this with the source and the device's name."
                + (" TINYEDGE_PERSISTENT=0 does without such kernels." if source.is_persistent else ""),
            ) from error
        return {draft.source: program for draft in drafts}

    def program(self, text: str, options: tuple[str, ...], binary: bytes | None = None) -> Any:
        """``text``, built, or loaded from ``binary``, or from the one that an earlier run kept."""
        key = self.binaries.key(text, options)
        binary = binary or self.binaries.load(key)
        if binary:
            try:
                return self.cl.Program(self.context, [self.entry.device], [binary]).build(list(options))
            except self.cl.Error as error:
                self.binaries.reject(key, str(error))
        program = self.cl.Program(self.context, text).build(list(options), cache_dir=False)
        with suppress(self.cl.Error):  # then later runs build it again
            self.binaries.store(key, program.get_info(self.cl.program_info.BINARIES)[0])
        return program
