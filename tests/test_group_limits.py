"""Work-groups no larger than a kernel takes: the device's limit, and the lower one that a built kernel has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.guarded import GuardedOpenCL, first_device
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.nn import functional as F


class Limited(GuardedOpenCL):
    """A device of ``most`` work-items in a group, whose kernels take ``limit``; larger launches are refused."""

    def __init__(self, kind: str, most: int, limit: int) -> None:
        super().__init__(first_device().entry)
        width = 4 if kind == "gpu" else 16
        self.device = replace(
            self.device, kind=kind, vector_width=width, max_work_group=most, compute_units=8, group_items=64, order=""
        )
        self.specialises = kind == "gpu"
        self.limit = limit
        self.largest = 0
        real = self.cl.enqueue_nd_range_kernel

        def enqueue(queue: Any, kernel: Any, global_size: Any, local_size: Any) -> Any:
            assert local_size is not None
            self.largest = max(self.largest, prod(local_size))
            if prod(local_size) > limit:
                record = self.cl._cl._ErrorRecord(msg="", code=-54, routine="clEnqueueNDRangeKernel")
                raise self.cl.LogicError(record)
            return real(queue, kernel, global_size, local_size)

        self.cl = _Replaced(self.cl, enqueue_nd_range_kernel=enqueue)
        self.__dict__["bare_enqueue"] = None

    def _limit_of(self, kernel: Any) -> int:
        return min(super()._limit_of(kernel), self.limit)


class _Replaced:
    def __init__(self, module: Any, **changes: Any) -> None:
        self._module = module
        self.__dict__.update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


CASES = [(kind, most, limit) for kind in ("gpu", "cpu") for most, limit in ((1024, 128), (256, 32), (1024, 1), (1, 1))]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def prepared(request: pytest.FixtureRequest, guarded_backends: dict[str, Backend]) -> Limited:
    return Limited(*request.param)


@pytest.fixture
def limited(prepared: Limited) -> Iterator[Limited]:
    with te.use_backend(prepared):
        yield prepared


def array(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def leaf(*shape: int) -> te.Tensor:
    return te.tensor(array(*shape), requires_grad=True)


def strided_conv() -> te.Tensor:
    return F.conv2d(leaf(2, 3, 12, 12), leaf(8, 3, 3, 3), leaf(8), stride=2, padding=1)


OPS: dict[str, Callable[[], te.Tensor]] = {
    "matmul": lambda: leaf(72, 80) @ leaf(80, 75),
    "matmul_t": lambda: leaf(80, 72).T @ leaf(75, 80).T,
    "one_row": lambda: leaf(1, 300) @ leaf(300, 90),
    "one_row_t": lambda: leaf(1, 300) @ leaf(90, 300).T,
    "shallow": lambda: leaf(30, 2) @ leaf(2, 30),
    "sum": lambda: leaf(7, 40).sum(1),
    "sum_all": lambda: leaf(20000).sum(),
    "mean": lambda: leaf(4, 5, 40).mean((0, 2)),
    "max": lambda: leaf(5, 200).max(1)[0],
    "conv2d": strided_conv,
    "grouped": lambda: F.conv2d(leaf(1, 4, 9, 9), leaf(8, 2, 3, 3), padding=1, groups=2),
    "depthwise": lambda: F.conv2d(leaf(1, 8, 17, 17), leaf(8, 1, 3, 3), padding=1, groups=8),
    "softmax": lambda: F.softmax(leaf(6, 200), -1),
    "layer_norm": lambda: F.layer_norm(leaf(6, 200), (200,), leaf(200), leaf(200)),
    "batch_norm": lambda: F.batch_norm(leaf(3, 4, 9, 9), None, None, leaf(4), leaf(4), training=True),
    "max_pool": lambda: F.max_pool2d(leaf(1, 3, 20, 20), 2),
    "avg_pool": lambda: F.avg_pool2d(leaf(1, 3, 20, 20), 2),
    "cross_entropy": lambda: F.cross_entropy(leaf(9, 70), te.tensor(np.arange(9))),
    "embedding": lambda: F.embedding(te.tensor(np.array([1, 3, 3, 0])), leaf(5, 70)),
    "index": lambda: leaf(30, 8)[te.tensor(np.array([2, 2, 7]))],
    "strided": lambda: leaf(30, 40).T.exp(),
    "broadcast": lambda: leaf(30, 40) * leaf(40) + leaf(30, 1),
}


def outcome(make: Callable[[], te.Tensor]) -> list[Any]:
    """The result, and the gradients of the leaves that ``make`` makes."""
    made: list[te.Tensor] = []
    global leaf
    real = leaf

    def kept(*shape: int) -> te.Tensor:
        made.append(real(*shape))
        return made[-1]

    leaf = kept
    try:
        result = make()
    finally:
        leaf = real
    (result * te.tensor(array(*result.shape))).sum().backward()
    return [result.detach().numpy(), *(x.grad.numpy() for x in made if x.grad is not None)]


@pytest.mark.parametrize("name", OPS)
def test_no_group_is_larger_than_the_kernel_takes(limited: Limited, name: str) -> None:
    limited.largest = 0
    found = outcome(OPS[name])
    assert 1 <= limited.largest <= limited.limit
    with te.use_backend("numpy"):
        expected = outcome(OPS[name])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_compiled_step_has_such_groups_too(limited: Limited) -> None:
    """Also where kernels share a launch, and from the first call on; and the update."""
    results = []
    for backend in (limited, te.get_backend("numpy")):
        with te.use_backend(backend):
            te.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
            optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

            @te.compile
            def step(x: te.Tensor, y: te.Tensor, model: nn.Module = model) -> te.Tensor:
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            x, y = te.tensor(array(2, 1, 14, 14)), te.tensor(np.array([1, 4]))
            step.prepare(x, y)
            losses = []
            for _ in range(4):
                losses.append(step(x, y).item())
                optimizer.step()
                optimizer.zero_grad()
            results.append([*losses, *(p.detach().numpy() for p in model.parameters())])
    assert limited.largest <= limited.limit
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_kernels_that_share_a_launch_are_launched_apart(guarded_backends: dict[str, Backend]) -> None:
    class Joined(Limited):
        """Of the kernels, those that several share take fewer work-items than each by itself."""

        def _limit_of(self, kernel: Any) -> int:
            return 32 if kernel.function_name.startswith("group") else OpenCLBackend._limit_of(self, kernel)

    def several(x: te.Tensor, y: te.Tensor) -> tuple[te.Tensor, ...]:
        return x.exp(), y.tanh(), (x * 2).sqrt()

    with te.use_backend(Joined("gpu", 1024, 1024)) as backend:
        x, y = te.tensor(np.arange(1, 300, dtype=np.float32)), te.tensor(np.arange(90, dtype=np.float32))
        compiled = te.compile(several)
        compiled.prepare(x, y)
        titles = [getattr(launch, "title", "") for launch in compiled.program.lowered]
        assert any(" | " in title for title in titles)
        for _ in range(2):
            for a, b in zip(compiled(x, y), several(x, y), strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
        assert len(compiled.program.profile().rows) == len(compiled.program.launches)
        assert backend.name


def test_numbers_that_differ_in_their_sign_alone_are_two_arguments(guarded_backends: dict[str, Backend]) -> None:
    """Kernels that share a launch share arguments of equal value."""
    with te.use_backend(Limited("gpu", 1024, 1024)):
        x, y = te.tensor([1.0, 2.0, 3.0]), te.tensor([4.0, 5.0])
        compiled = te.compile(lambda x, y: (x * 0.0, y * -0.0))
        for _ in range(2):
            plus, minus = compiled(x, y)
        assert len(compiled.program.launches) == 1
        assert not np.signbit(plus.numpy()).any()
        assert np.signbit(minus.numpy()).all()


def test_a_kernel_that_takes_no_group_at_all_is_an_error(guarded_backends: dict[str, Backend]) -> None:
    backend = Limited("gpu", 1024, 1024)
    backend.limit = -1  # no sane device says so
    with te.use_backend(backend), pytest.raises(te.BackendError, match="at most -1 work-items"):
        te.ones(3)
