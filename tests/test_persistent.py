"""Persistent kernels: each kernel in one waits for what it depends on, and for as little else as can be."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyedge as te
from tests.guarded import GuardedOpenCL, as_gpu, first_device
from tests.test_fusion import assert_replays_agree, functions
from tests.test_zero_sizes import assert_same, on_tinyedge, zero_calls
from tinyedge import backends, nn, optim
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.grouping import FIRST_IN_PERSISTENT
from tinyedge.backends.opencl.memory import SlabAllocator
from tinyedge.compiler.memory import Action, make_plan
from tinyedge.compiler.schedule import Touched, waits
from tinyedge.errors import CaptureError
from tinyedge.ir.values import Slot
from tinyedge.nn import functional as F

BYTES = 12


@st.composite
def spans(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    found = []
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, BYTES - 1))
        found.append((draw(st.sampled_from("ab")), start, draw(st.integers(start + 1, BYTES))))
    return found


kernels = st.lists(st.tuples(spans(), spans()), min_size=1, max_size=12)


def carry_out(touched: list[Touched], order: list[int]) -> dict[str, list[int]]:
    """What memory holds after kernels that write a digest of what they read and of their number."""
    memory = {name: [0] * BYTES for name in "ab"}
    for number in order:
        reads, writes = touched[number]
        text = repr([memory[name][start:stop] for name, start, stop in reads])
        for name, start, stop in writes:
            for at in range(start, stop):
                memory[name][at] = zlib.crc32(f"{text} {number} {at}".encode())
    return memory


@given(touched=kernels, data=st.data())
def test_any_order_that_the_waits_allow_gives_the_same(touched: list[Touched], data: st.DataObject) -> None:
    needed = waits(touched)
    left, order = set(range(len(touched))), []
    while left:
        ready = [number for number in sorted(left) if not left.intersection(needed[number])]
        order.append(data.draw(st.sampled_from(ready)))
        left.remove(order[-1])
    assert carry_out(touched, order) == carry_out(touched, list(range(len(touched))))


@given(touched=kernels)
def test_nothing_is_waited_for_without_need(touched: list[Touched]) -> None:
    """Each wait is for a kernel that touches the same bytes, and that no other wait is for already."""

    def meet(ours: list[tuple[str, int, int]], theirs: list[tuple[str, int, int]]) -> bool:
        return any(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a in ours for b in theirs)

    needed = waits(touched)
    over: list[set[int]] = []
    for number, (reads, writes) in enumerate(touched):
        for earlier in needed[number]:
            before_reads, before_writes = touched[earlier]
            assert earlier < number
            assert meet([*reads, *writes], before_writes) or meet(writes, before_reads)
            assert all(earlier not in over[other] for other in needed[number] if other != earlier)
        over.append(set().union(*({earlier, *over[earlier]} for earlier in needed[number])))


@given(count=st.integers(2, 20), distance=st.integers(1, 6))
def test_blocks_rest_between_two_uses(count: int, distance: int) -> None:
    actions = [Action(frozenset({n - 1} if n else ()), frozenset({n})) for n in range(count)]
    plan = make_plan(actions, dict.fromkeys(range(count - 1), 1024), 64, (distance, 0))
    tight = make_plan(actions, dict.fromkeys(range(count - 1), 1024), 64)
    assert 5 * plan.arena_bytes <= 6 * tight.arena_bytes
    if plan.arena_bytes != tight.arena_bytes:
        for key, block in plan.intervals.items():
            for other, another in plan.intervals.items():
                if key != other and plan.offsets[key] == plan.offsets[other]:
                    assert block.first > another.last + distance or another.first > block.last + distance


@pytest.fixture(scope="module", params=[GuardedOpenCL, OpenCLBackend])
def persistent_opencl(guarded_backends: dict[str, Backend], request: pytest.FixtureRequest) -> OpenCLBackend:
    """The first device, taken for a GPU on which kernels may wait for each other; its groups hold 64 or 256 items.

    With guards around all memory; and without, since then values share buffers.
    """
    return as_gpu(request.param(first_device().entry))


@pytest.fixture
def persistent(persistent_opencl: OpenCLBackend) -> Iterator[Backend]:
    with te.use_backend(persistent_opencl) as chosen:
        yield chosen


@settings(max_examples=15)
@given(steps=functions())
@pytest.mark.replays("sums that cancel: all that is left is rounding")
def test_replays_of_persistent_kernels_agree(steps: list[tuple[str, int, int]], persistent: Backend) -> None:
    assert_replays_agree(steps, persistent)


@pytest.mark.parametrize(
    "name",
    [
        "linear", "matmul_batches", "conv2d", "conv2d_one_by_one", "conv2d_grouped", "conv2d_depthwise", "layer_norm",
        "batch_norm", "max_pool2d", "avg_pool2d", "softmax", "cross_entropy", "mean", "mse_loss", "embedding", "add",
        "cat",
    ],
)  # fmt: skip
def test_kernels_without_elements(name: str, persistent: Backend, guarded_backends: dict[str, Backend]) -> None:
    """On a GPU, where products are cut otherwise, and by themselves no more than in a launch that others share."""
    for _, shapes in zero_calls(name):
        expected = on_tinyedge(name, shapes, guarded_backends["numpy"])
        for compiled in (False, True):
            assert_same(on_tinyedge(name, shapes, persistent, compiled), expected)


def make_step() -> tuple[nn.Module, te.Tensor, te.compiler.api.Compiled]:
    te.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 10),
    ).eval()  # fmt: skip

    def step(x: te.Tensor) -> te.Tensor:
        loss = F.cross_entropy(model(x), te.tensor([3]))
        loss.backward()
        return loss

    return model, te.rand(1, 3, 14, 14), te.compile(step)


def test_a_step_is_few_launches(persistent: Backend) -> None:
    model, x, step = make_step()
    losses = [step(x).item() for _ in range(5)]
    assert len(set(losses)) == 1
    first, *others = [len(launch.kernels) for launch in step.program.launches]
    assert first == FIRST_IN_PERSISTENT  # and each of the others is longer, but for the last
    assert all(b > a for a, b in pairwise([first, *others[:-1]]))
    assert len(others) < 3
    many = [p.grad.numpy().copy() for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    step(x)
    for total, once in zip(many, model.parameters(), strict=True):
        np.testing.assert_allclose(total, 5 * once.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_profile_tells_the_kernels_of_a_persistent_kernel_apart(persistent: Backend) -> None:
    model, x, step = make_step()
    step(x)
    step(x)
    before = [p.grad.numpy().copy() for p in model.parameters()]
    profile = step.program.profile(2)
    launches = len(step.program.launches)
    assert (len(profile.rows), profile.launches) == (len(step.program.kernels), launches)
    assert f"in {launches} launch" in str(profile)
    assert f"launches: {launches}, of {FIRST_IN_PERSISTENT}, " in step.program.explain()
    assert all(np.array_equal(a, p.grad.numpy()) for a, p in zip(before, model.parameters(), strict=True))


def test_memory_of_two_kinds_that_became_one_is_refused(persistent: Backend) -> None:
    """The recording could not show that the kernels which read the argument must wait for those that add to it."""
    weight = te.ones(8, 8, requires_grad=True)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        loss = ((x @ weight) ** 2).sum()
        loss.backward()
        return loss

    step(te.ones(8, 8))
    assert weight.grad is not None
    with pytest.raises(CaptureError, match="Pass a"):
        step(weight.grad)
    step(weight.grad.clone())


def make_product() -> tuple[te.Tensor, te.Tensor, te.compiler.api.Compiled]:
    """Two weights, and a step that adds to the gradients of both."""
    first, second = te.ones(8, 8, requires_grad=True), te.ones(8, 8, requires_grad=True)

    def step(x: te.Tensor) -> te.Tensor:
        loss = ((x @ first @ second) ** 2).sum()
        loss.backward()
        return loss

    return first, second, te.compile(step)


def test_a_refused_call_leaves_no_gradient_that_nobody_computed(persistent: Backend) -> None:
    first, second, step = make_product()
    step(te.ones(8, 8))
    step(te.ones(8, 8))
    second.grad = None
    assert first.grad is not None
    with pytest.raises(CaptureError, match="Pass a"):
        step(first.grad)
    assert second.grad is None
    step(te.ones(8, 8))
    wanted = second.grad.numpy().copy()
    second.grad = None
    step(te.ones(8, 8))
    assert np.array_equal(second.grad.numpy(), wanted)


def test_gradients_that_each_call_begins_anew(persistent: Backend) -> None:
    """Their leaves are bound to the memory that the results lie in, and no kernel touches it by the leaf."""

    def make() -> tuple[nn.Module, Callable[[te.Tensor], te.Tensor]]:
        te.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optim.AdamW(model.parameters(), lr=0.01)

        def step(x: te.Tensor) -> te.Tensor:
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    (eager, step), (model, function) = make(), make()
    compiled = te.compile(function)
    for number in range(5):
        x = te.ones(4, 8) * number
        assert compiled(x).item() == pytest.approx(step(x).item(), rel=1e-5)
    for own, other in zip(model.parameters(), eager.parameters(), strict=True):
        np.testing.assert_allclose(own.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_may_become_parts_of_one_tensor(persistent: Backend) -> None:
    """As a copy of them in one piece is made: the kernels that add to them now wait for each other."""
    first, second, step = make_product()
    for _ in range(3):
        step(te.ones(8, 8))
    assert first.grad is not None
    wanted = first.grad.numpy() / 3
    whole = te.zeros(2, 8, 8)
    first.grad, second.grad = whole[0], whole[1]
    for k in range(1, 4):
        step(te.ones(8, 8))
        assert np.array_equal(whole.numpy()[0], wanted * k)
        assert np.array_equal(whole.numpy()[1], wanted * k)


def test_parameters_share_buffers(persistent: Backend) -> None:
    """So that a launch has few; unless each has guards of its own."""
    _, x, step = make_step()
    step(x)
    step(x)
    program = step.program
    storages = {
        slot.storage
        for each in program.steps.values()
        for slot in each.slots.values()
        if isinstance(slot, Slot) and slot.storage.number not in program.temporary
    }
    handles = {storage.buffer.handle for storage in storages}
    assert len(storages) >= 16
    assert len(handles) == (len(storages) if isinstance(persistent, GuardedOpenCL) else 1)


def test_a_step_may_be_prepared_before_anything_runs(persistent: Backend) -> None:
    _, x, step = make_step()
    program = step.prepare(x)
    prepared = step(x).item()
    assert step.program is program
    _, x, eager = make_step()
    np.testing.assert_allclose(prepared, eager(x).item(), rtol=1e-5)


def test_memory_for_small_values_is_found_where_there_is_none_for_a_shared_buffer(
    persistent_opencl: OpenCLBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(nbytes: int) -> object:
        raise te.OutOfMemoryError("device", f"room for {nbytes} bytes", "there is none", "Use less.")

    monkeypatch.setattr(persistent_opencl, "slabs", SlabAllocator(refuse))
    assert OpenCLBackend.reserve(persistent_opencl, 1000).handle is not None


def test_work_items_may_return_early(persistent: Backend) -> None:
    """Some of a warp sum rows by fours, one does what is left over, and returns elsewhere."""
    weight = te.tensor(np.random.default_rng(0).random((1, 35), np.float32), requires_grad=True)
    index, weights = te.tensor([0] * 7), te.arange(7 * 35, dtype=te.float32).reshape(7, 35)

    @te.compile
    def step() -> te.Tensor:
        loss = (te.embedding(index, weight) * weights).sum()
        loss.backward()
        return loss

    for count in range(1, 4):
        step()
        assert weight.grad is not None
        np.testing.assert_allclose(weight.grad.numpy()[0], count * weights.numpy().sum(0), rtol=1e-6)


def test_chains_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_PERSISTENT", "0")
    for entry in backends.usable_devices():
        assert not backends.opencl.backend.OpenCLBackend(entry).device.persistent
