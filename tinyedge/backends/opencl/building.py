"""Building kernels: OpenCL C in, kernel objects out.

Those that are not built yet are built many at a time. What was built is kept in memory, and as a binary for later runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from tinyedge import config
from tinyedge.backends.opencl.binaries import Binaries, kept_source
from tinyedge.backends.opencl.context import OpenCLContext
from tinyedge.backends.opencl.devices import BUILD_OPTIONS, DeviceEntry
from tinyedge.backends.opencl.driver import OUT_OF_MEMORY, code_of
from tinyedge.backends.opencl.launches import (
    Built,
    Rendered,
    ToBuild,
)  # fmt: skip
from tinyedge.backends.opencl.recent import Recent
from tinyedge.errors import KernelBuildError
from tinyedge.ir.program import SourceSpec
from tinyedge.kernels.render import Source

BUILD_OPTIONS_FP64 = ("-cl-std=CL1.2",)
PROGRAM_KERNELS = 24
"""The most kernels in one OpenCL program: few enough to find one that does not build by building each alone."""
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


class OpenCLBuilder(OpenCLContext):
    """A device that builds kernels."""

    def __init__(self, entry: DeviceEntry) -> None:
        super().__init__(entry)
        self.binaries = Binaries(config.cache_path() / "binaries", entry.identity, config.keeps_binaries())
        self._kernels: Recent[SourceSpec, Built] = Recent(BUILT)

    def _build(self, drafts: Sequence[Rendered | ToBuild]) -> dict[SourceSpec, Built]:
        """The built kernel of each source. Those that are not built yet are built many to an OpenCL program, since each
        program has a fixed cost.

        Persistent kernels are long enough to be built in parallel: the first step of MobileNet v2 on an H200 takes 23 s
        so, and 31 s if they are built one after the other.
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
        programs: dict[SourceSpec, Any] = {}
        persistent = [draft for draft in missing.values() if draft.source.is_persistent]
        if persistent:
            with ThreadPoolExecutor() as pool:
                for built in pool.map(lambda draft: self._build_together([draft]), persistent):
                    programs.update(built)
        others = [draft for draft in missing.values() if not draft.source.is_persistent]
        for options in dict.fromkeys(draft.source.options for draft in others):
            alike = [draft for draft in others if draft.source.options == options]
            for start in range(0, len(alike), PROGRAM_KERNELS):
                programs.update(self._build_together(alike[start : start + PROGRAM_KERNELS]))
        for source, program in programs.items():
            kernel = self.kernel_of(program, source.function, missing[source].title)
            result[source] = self._kernels[source] = Built(program, kernel, self._limit_of(kernel))
        return result

    def kernel_of(self, program: Any, function: str, title: str) -> Any:
        """A kernel object, which keeps the arguments that it was given last."""
        with self._asked(f"the kernel of {title}"):
            return self.cl.Kernel(program, function)

    def _limit_of(self, kernel: Any) -> int:
        """The largest work-group that the device runs ``kernel`` with."""
        most: int = self.device.max_work_group
        try:
            said = kernel.get_work_group_info(self.cl.kernel_work_group_info.WORK_GROUP_SIZE, self.entry.device)
        except self.cl.Error:  # then only the device's general limit is known
            return most
        return min(int(said) or most, most)

    def _build_together(self, drafts: Sequence[Rendered | ToBuild]) -> dict[SourceSpec, Any]:
        """The OpenCL program of each source: one for all of them, which have the same options."""
        text = "\n".join(draft.source.text for draft in drafts)
        options = drafts[0].source.options
        try:
            program = self.program(text, options)
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

    def program(self, text: str, options: tuple[str, ...]) -> Any:
        """``text``, built, or loaded from the binary that an earlier run kept."""
        key = self.binaries.key(text, options)
        binary = self.binaries.load(key)
        if binary:
            try:
                return self.cl.Program(self.context, [self.entry.device], [binary]).build(list(options))
            except self.cl.Error as error:
                self.binaries.reject(key, str(error))
        program = self.cl.Program(self.context, text).build(list(options), cache_dir=False)
        with suppress(self.cl.Error):  # then later runs build it again
            self.binaries.store(key, program.get_info(self.cl.program_info.BINARIES)[0])
        return program
