"""Threads that share a backend, a model or a program, and processes that were forked."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_backends import run
from tinyedge import nn
from tinyedge.autograd.minibatch import Minibatch, note_minibatch, require_no_minibatch
from tinyedge.backends import Backend
from tinyedge.compiler.arenas import Arenas
from tinyedge.nn import functional as F

# Forks

FORK = """
import os, sys, numpy as np, tinyedge as te
te.set_default_backend("opencl")
x = te.ones(1000); big = te.ones(1 << 18)
double = te.compile(lambda x: x * 2)
double(x); double(x); y = x + 1; te.tensor(np.ones(5))
child = os.fork()
if child == 0:
    said = []
    for use in (lambda: x + 1, lambda: x.numpy(), lambda: te.tensor([1.0]), lambda: double(x),
                lambda: x.backend.finish(), lambda: te.get_backend("opencl") and te.ones(3), lambda: x.backend.queue,
                lambda: te.backends.opencl.backend.OpenCLBackend(te.backends.devices()[0])):
        try:
            use()
            said.append("used")
        except te.BackendError as error:
            said.append("spawn" in str(error) and x.device in str(error))
    del x, y, big, double
    import gc; gc.collect()
    with te.use_backend("numpy"):
        said.append((te.tensor([1.0]) + 1).item() == 2)
    print(said, flush=True)
    sys.exit(7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), (x + 1).sum().item(), double(x).sum().item())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_an_error_and_does_not_hang(opencl: Backend) -> None:
    ran = run(FORK)
    assert ran.stdout.splitlines() == [str([True] * 9), "7 2000.0 2000.0"], ran.stdout + ran.stderr


# Threads


def test_threads_that_share_a_backend_agree_with_one(plain: Any) -> None:
    """Steps with scratch memory, new shapes, uploads and programs, in four threads at once."""

    def work(seed: int) -> list[float]:
        random = np.random.default_rng(seed)
        results = []
        te.use_backend(plain)  # a thread begins with the process' own choice, whose guards are not for threads
        for k in range(25):
            x = te.tensor(random.standard_normal((5 + (k + seed) % 7, 9000)).astype(np.float32), requires_grad=True)
            y = F.layer_norm(x, (9000,)).tanh().sum() + (x @ x.T).sum() * 1e-3
            y.backward()
            assert x.grad is not None
            results += [y.item(), float(x.grad.numpy().sum())]
        return results

    alone = [work(seed) for seed in range(4)]
    together: dict[int, list[float]] = {}
    threads = [threading.Thread(target=lambda s=seed: together.update({s: work(s)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(4)] == alone


RACING = pytest.mark.replays("other threads add to the gradients between a replay and the eager call that checks it")
THREADED = [
    "inference", "compiled inference", "gradients", "gradients of a compiled model",
    pytest.param("compiled steps", marks=RACING),
]  # fmt: skip


@pytest.mark.parametrize("what", THREADED)
@pytest.mark.parametrize("kind", ["numpy", "opencl"])
def test_threads_that_share_a_model(kind: str, what: str, plain: Any) -> None:
    """Each thread gets what it would get alone, to the bit; gradients of the model add up."""
    device = plain if kind == "opencl" else te.backends.get_backend("numpy")
    with te.use_backend(device):
        te.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
        data = np.random.default_rng(0).standard_normal((4, 1, 1, 8, 8)).astype(np.float32)
        samples = [(te.tensor(x), te.tensor([k])) for k, x in enumerate(data)]
    compiled = te.compile(model)

    @te.compile
    def train(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def one(x: te.Tensor, y: te.Tensor) -> bytes:
        if what == "compiled steps":
            return train(x, y).detach().numpy().tobytes()
        apply = compiled if "compiled" in what else model
        if "inference" in what:
            with te.no_grad():
                return apply(x).numpy().tobytes()
        x = x.clone().requires_grad_()
        F.cross_entropy(apply(x), y).backward()
        return x.grad.numpy().tobytes()

    def work(k: int) -> list[bytes]:
        with te.use_backend(device):
            return [one(*samples[k]) for _ in range(12)]

    def gradients() -> list[Any]:
        found = [p.grad.numpy() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return found

    alone, expected = [work(k) for k in range(4)], gradients()
    together: dict[int, list[bytes]] = {}
    threads = [threading.Thread(target=lambda k=k: together.update({k: work(k)})) for k in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert [together[k] for k in range(4)] == alone
    for found, wanted in zip(gradients(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_recording_leaves_gradients_where_other_threads_add_to_them(backend: Backend) -> None:
    w = te.ones(3, requires_grad=True)
    w.grad = te.ones(3)
    before, seen = w._slot.grad, []

    class Looks(te.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: te.Tensor) -> te.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, dy: te.Tensor) -> te.Tensor:
            seen.append(w._slot.grad)  # how a call is differentiated is traced when it is recorded
            return dy * 2

    te.compile(lambda x: Looks.apply(x * w).sum(), constant=["seen"])(te.ones(3))
    assert seen
    assert all(grad is before for grad in seen)


class Entry(Minibatch):
    def leaves(self) -> list[Any]:
        return []

    def leave(self, arena: Any) -> None:
        pass


def in_minibatches(leaf: te.Tensor) -> tuple[Callable[[Any], None], Callable[[], None]]:
    return lambda entry: note_minibatch(entry, True), lambda: require_no_minibatch("call", [leaf._slot])


def in_arenas(leaf: te.Tensor) -> tuple[Callable[[Any], None], Callable[[], None]]:
    arenas = Arenas()
    gone: Any = None

    def look() -> None:
        with arenas.lock:
            arenas._let_go(gone)

    return arenas.enter, look


@pytest.mark.parametrize("make", [in_minibatches, in_arenas])
def test_what_one_thread_enters_another_may_go_through(make: Any, reference: Backend) -> None:
    enter, look = make(te.ones(1, requires_grad=True))
    kept: list[Entry] = []
    ended = threading.Event()

    def enters() -> None:
        while not ended.is_set():
            kept[:] = [Entry() for _ in range(200)]
            for entry in kept:
                enter(entry)

    other = threading.Thread(target=enters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        for _ in range(10000):
            look()
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(interval)
