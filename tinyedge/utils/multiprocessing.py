"""``torch.multiprocessing``: Python's, whose processes are spawned. A forked one has no threads of the OpenCL driver.

Tensors are copied to another process, and not shared.
"""

import multiprocessing as _multiprocessing
from typing import TYPE_CHECKING as _TYPE_CHECKING

from tinyedge.autograd.absent import lookup as _lookup

_spawned = _multiprocessing.get_context("spawn")
Process, Queue, SimpleQueue = _spawned.Process, _spawned.Queue, _spawned.SimpleQueue
Pool, Manager, Pipe, Value, Array = _spawned.Pool, _spawned.Manager, _spawned.Pipe, _spawned.Value, _spawned.Array
Lock, RLock, Event, Barrier = _spawned.Lock, _spawned.RLock, _spawned.Event, _spawned.Barrier
Condition, Semaphore, cpu_count = _spawned.Condition, _spawned.Semaphore, _spawned.cpu_count
current_process, active_children = _multiprocessing.current_process, _multiprocessing.active_children
get_context, freeze_support = _multiprocessing.get_context, _multiprocessing.freeze_support
get_start_method, set_start_method = _multiprocessing.get_start_method, _multiprocessing.set_start_method

if not _TYPE_CHECKING:
    __getattr__ = _lookup("multiprocessing", globals(), "Process, or te.federated")
