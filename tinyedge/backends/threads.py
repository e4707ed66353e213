"""How many threads a CPU's work takes, which is its driver's business."""

from __future__ import annotations

import os
import warnings


def get_num_threads() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(num: int) -> None:
    """Nothing but a warning, as drivers of CPUs choose when they start: set CL_CONFIG_CPU_TBB_NUM_WORKERS or
    POCL_MAX_PTHREAD_COUNT, and OMP_NUM_THREADS for NumPy, before the program starts.
    """
    warnings.warn(
        f"set_num_threads({num}): the number of threads cannot change in a running program. Set OMP_NUM_THREADS, "
        "and the variable of the driver (CL_CONFIG_CPU_TBB_NUM_WORKERS, POCL_MAX_PTHREAD_COUNT) before it starts.",
        stacklevel=2,
    )
