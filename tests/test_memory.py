"""Memory: known before anything runs, exactly; and what is left where it does not suffice."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import models, nn, optim
from tinyedge.adapt.budget import bytes_of
from tinyedge.backends import Backend
from tinyedge.backends.opencl.backend import OpenCLBackend
from tinyedge.backends.opencl.memory import SLAB_BYTES
from tinyedge.backends.reference import ReferenceBackend
from tinyedge.compiler.memory import Action, make_plan
from tinyedge.nn import functional as F

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], te.DType]] = {
    "lenet5": (models.lenet5, (1, 1, 28, 28), te.float32),
    "mobilenet_v2": (lambda: models.mobilenet_v2(0.1, 4), (2, 3, 32, 32), te.float32),
    "transformer": (lambda: models.transformer(16, 32, 2, 2, 8), (1, 6), te.int64),
}


def loss_of(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x).flatten(0, -2), y)


def step_of(model: nn.Module) -> te.compiler.api.Compiled:
    @te.compile
    def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    return step


def sample_for(name: str) -> tuple[te.Tensor, te.Tensor]:
    _, shape, dtype = MODELS[name]
    return te.zeros(*shape, dtype=dtype), te.zeros(shape[-1] if dtype is te.int64 else shape[0], dtype=te.int64)


def failure(cl: Any, code: int) -> Exception:
    """What pyopencl raises for a status of the driver's."""
    kinds = {-4: cl.MemoryError, -61: cl.LogicError}
    error: Exception = kinds.get(code, cl.RuntimeError)(cl._cl._ErrorRecord(msg="", code=code, routine="clSomething"))
    return error


def state_of(model: nn.Module, optimizer: optim.Optimizer) -> list[Any]:
    """All that a step may change: values, gradients, versions, states, counts, random numbers."""
    result: list[Any] = [te.ops.random.default_generator.get_state(), optimizer.pending]
    for tensor in (*model.parameters(), *model.buffers()):
        result += [tensor.detach().numpy(), tensor._version]
        grad = tensor.grad
        result += [None] if grad is None else [grad.numpy(), grad._version]
        result += [
            value.numpy() if isinstance(value, te.Tensor) else value
            for value in optimizer.state.get(tensor, {}).values()
        ]
    return result


def assert_same(a: list[Any], b: list[Any]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


# Known before


@pytest.mark.parametrize("name", MODELS)
def test_abstract_tracing_plans_what_the_call_does(name: str, backend: Backend) -> None:
    """The same steps, the same plan; and it allocates, builds and changes nothing."""
    te.manual_seed(0)
    model = MODELS[name][0]().train()
    optimizer = optim.SGD(model.parameters())
    step, (x, y) = step_of(model), sample_for(name)
    before, allocated = state_of(model, optimizer), backend.memory.allocated_bytes
    backend.memory.reset_peak()
    rehearsed = te.rehearse(step.function, ((x.shape, x.dtype), (y.shape, y.dtype)))
    assert backend.memory.peak_bytes == allocated
    assert_same(state_of(model, optimizer), before)
    step(x, y)
    program = step.program
    first, second = (
        [[(s.op, s.direction) for s in kernel.steps()] for kernel in p.kernels] for p in (rehearsed, program)
    )
    assert first == second
    assert rehearsed.plan.kept == program.plan.kept
    assert list(rehearsed.plan.offsets.values()) == list(program.plan.offsets.values())
    for figure in ("arena_bytes", "peak_bytes", "saved_bytes", "gradient_bytes"):
        assert getattr(rehearsed, figure) == getattr(program, figure)


def test_abstract_tracing_builds_no_kernel(opencl: OpenCLBackend) -> None:
    built = len(opencl._kernels)
    te.rehearse(lambda x: te.square(te.softplus(x) * 0.123).sum(), ((3, 5, 7),))
    assert len(opencl._kernels) == built


def test_values_are_not_there_in_abstract_tracing(backend: Backend) -> None:
    for look in (str, te.Tensor.item):
        with pytest.raises(te.CaptureError, match="is not"):
            te.rehearse(lambda x, look=look: look(x.sum()), ((2,),))


def test_what_comes_from_the_host_is_there_after_abstract_tracing(backend: Backend) -> None:
    weight = te.ones(3, requires_grad=True)

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        return (x * weight * te.tensor([1.0, 2.0, 3.0])).sum()

    step.prepare(te.ones(3))
    assert [step(te.ones(3)).item() for _ in range(2)] == [6.0, 6.0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.replays("the eager call that checks a replay takes memory too")
def test_a_prepared_step_takes_what_was_planned(name: str, backend: Backend) -> None:
    """From the first call on, which is a replay already; and gives what an eager one gives."""
    results = []
    for prepared in (True, False):
        te.manual_seed(0)
        model = MODELS[name][0]().train()
        optimizer = optim.SGD(model.parameters(), momentum=0.9)
        step, (x, y) = step_of(model), sample_for(name)
        gc.collect()
        at_rest = backend.memory.allocated_bytes
        if prepared:
            program = step.prepare(x, y)
            assert backend.memory.allocated_bytes - at_rest == program.arena_bytes
            backend.memory.reset_peak()
            loss = step(x, y)
            assert backend.memory.peak_bytes - at_rest == program.peak_bytes + program.gradient_bytes
            assert backend.memory.allocated_bytes - at_rest == program.peak_bytes + program.gradient_bytes
            assert step.prepare(x, y) is program
        else:
            loss = (step if name == "lenet5" else step.function)(x, y)
            if name != "lenet5":
                loss = loss.detach()
        optimizer.step()
        results.append([loss.detach().numpy(), *state_of(model, optimizer)[1:]])
        del loss, step, model, optimizer
    values = [[v for v in result if not isinstance(v, int)] for result in results]
    assert_same(*values)


def test_memory_does_not_grow_with_the_minibatch(backend: Backend) -> None:
    peaks = []
    for accumulate in (1, 4, 16):
        te.manual_seed(0)
        model = models.lenet5()
        optimizer = optim.SGD(model.parameters(), momentum=0.9, accumulate=accumulate)
        step, (x, y) = step_of(model), sample_for("lenet5")
        gc.collect()
        at_rest = backend.memory.allocated_bytes
        step.prepare(x, y)
        backend.memory.reset_peak()
        for _ in range(accumulate):
            step(x, y)
            optimizer.step()
        peaks.append(backend.memory.peak_bytes - at_rest)
        del step, model, optimizer
    assert peaks[0] == peaks[1] == peaks[2]


def test_a_recording_lets_temporaries_go(backend: Backend) -> None:
    """The first call takes no more than an eager one."""
    peaks = []
    for compiled in (False, True):
        model = models.mobilenet_v2(0.1, 4)
        step, (x, y) = step_of(model), sample_for("mobilenet_v2")
        gc.collect()
        before = backend.memory.allocated_bytes
        backend.memory.reset_peak()
        (step if compiled else step.function)(x, y)
        peaks.append(backend.memory.peak_bytes - before)
    assert peaks[1] <= peaks[0] + step.program.arena_bytes


def test_results_of_the_recording_are_let_go(backend: Backend) -> None:
    double = te.compile(lambda x: x * 2)
    x = te.ones(1000)
    double(x)
    gc.collect()
    before = backend.memory.allocated_bytes
    double(x)
    assert backend.memory.allocated_bytes == before


def test_a_program_does_not_lie_beside_what_its_recording_left(opencl: OpenCLBackend) -> None:
    """On the device itself, where released memory is kept for reuse, and a small result may lie in a slab."""
    with te.use_backend(OpenCLBackend(opencl.entry)) as backend:
        assert isinstance(backend, OpenCLBackend)
        x = te.ones(2 * SLAB_BYTES // 4)
        step = te.compile(lambda x: te.exp(te.exp(te.exp(x))).sum())
        step(x)
        needed = x.nbytes + step.program.peak_bytes + SLAB_BYTES
        assert backend.memory.reserved_bytes <= needed + 4096  # tables of strides


def test_a_plan_does_not_depend_on_numbers() -> None:
    def plan(shift: int) -> Any:
        numbers = [shift + k for k in range(6)]
        actions = [
            Action(frozenset(numbers[:k]), frozenset({numbers[k], (numbers[k], "a"), (numbers[k], "b")}))
            for k in range(6)
        ]
        touched = [place for action in actions for place in action.writes if place != numbers[5]]
        return make_plan(actions, dict.fromkeys(touched, 64), 64)

    assert list(plan(0).offsets.values()) == list(plan(97).offsets.values())


def test_bytes_saved_for_backward(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYEDGE_FUSE", "0")  # fused, both are computed again where they are loaded
    x, w = te.ones(100), te.ones(100, requires_grad=True)
    program = te.rehearse(lambda x: (te.exp(x * w).exp() + 1).sum().backward(), (x,))
    assert program.saved_bytes == 2 * 400  # what each exp returned
    assert te.rehearse(lambda x: te.exp(x).sum(), (x,)).saved_bytes == 0
    again = te.rehearse(lambda x: te.checkpoint(lambda x: te.exp(x * w).exp(), x).sum().backward(), (x,))
    assert again.saved_bytes == 0


# In a budget


def measured(fit: te.Fit, name: str, backend: Backend) -> int:
    """The memory of a compiled step and an update, measured."""
    x, y = sample_for(name)
    step = step_of(fit.model)
    optimizer = optim.Adam(p for p in fit.model.parameters() if p.requires_grad)
    gc.collect()
    outside = backend.memory.allocated_bytes - fit.model_bytes - x.nbytes - y.nbytes
    backend.memory.reset_peak()
    step.prepare(x, y)
    loss = step(x, y)
    optimizer.step()
    assert step.program.peak_bytes == fit.step_bytes
    assert backend.memory.allocated_bytes == backend.memory.peak_bytes
    assert loss.shape == ()
    return backend.memory.peak_bytes - outside


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "mobilenet_v2" else []) for name in MODELS]
)
@pytest.mark.replays("the eager call that checks a replay takes memory too")
def test_every_budget_is_kept_to_the_byte(name: str, backend: Backend) -> None:
    """From what everything takes down to what nothing fits into: each way in its order, and what is said is true."""
    make, shape, dtype = MODELS[name]
    te.manual_seed(0)
    model = make().freeze_batch_norm_statistics()
    labels = sample_for(name)[1].shape
    plan = partial(te.plan_for, model, loss_of, ((shape, dtype), (labels, te.int64)), optimizer=optim.Adam)
    with pytest.raises(te.ArgumentError) as refused:
        plan(budget=1)
    least = int(str(refused.value).split()[6])
    most = plan(budget="1GiB").total_bytes
    methods: list[str] = []
    for limit in np.linspace(most, least, 6).astype(int):
        fit = plan(budget=int(limit))
        assert fit.total_bytes <= limit
        assert all(p.requires_grad for p in model.parameters())
        if fit.method not in methods:
            methods.append(fit.method)
            fit.apply()
            assert {n for n, p in model.named_parameters() if p.requires_grad} == set(fit.trained)
            assert measured(fit, name, backend) == fit.total_bytes
            model.requires_grad_().zero_grad()
            for module in model.modules():
                module.checkpoint(False)
    with pytest.raises(te.ArgumentError, match=f"at least {least} bytes"):
        plan(budget=least - 1)
    kinds = list(dict.fromkeys(method.removesuffix(", with checkpoints") for method in methods))
    order = ["everything", "the last layers", "biases and the last layer", "the last layer", "biases"]
    assert [kind for kind in order if kind in kinds] == kinds
    assert len(methods) >= 3


def test_what_a_plan_says(backend: Backend) -> None:
    model = models.mobilenet_v2(0.1, 4).freeze_batch_norm_statistics()
    sample = ((1, 3, 32, 32), ((1,), te.int64))
    everything = te.plan_for(model, loss_of, sample, budget="1GiB")
    assert (everything.extra_flops, everything.checkpointed, everything.state_bytes) == (0, (), 0)
    assert everything.trained_elements == everything.elements
    fit = te.plan_for(model, loss_of, sample, budget=everything.total_bytes - 1, optimizer=0)
    if not getattr(backend, "specialises", False):  # on a GPU checkpoints free nothing of so small a model
        assert fit.method == "everything, with checkpoints"
        assert 0 < fit.extra_flops < fit.forward_flops / 2
        assert "more forward arithmetic" in str(fit)
    assert "again" not in str(everything)
    for part in (fit.method, f"in {fit.total_bytes:,} bytes", f"step {fit.step_bytes:,}"):
        assert part in str(fit)
    adam = te.plan_for(model, loss_of, sample, budget="1GB", optimizer=optim.Adam(model.parameters(), amsgrad=True))
    assert adam.state_bytes == 3 * adam.gradient_bytes
    with pytest.raises(te.ArgumentError, match="but got 8192;"):
        te.plan_for(model, loss_of, sample, budget="8 KiB")
    for budget in ("24", "MB", "1.2.3MB", "24 miles", "."):
        with pytest.raises(te.ArgumentError, match="24MiB"):
            te.plan_for(model, loss_of, sample, budget=budget)
    with pytest.raises(te.ArgumentError, match="all are frozen"):
        te.plan_for(model.requires_grad_(False), loss_of, sample, budget="1GB")


def test_how_a_budget_may_be_said() -> None:
    for budget in ("8 KiB", "8KiB", "8kiB", "8.192KB", "8.192kB", ".0078125MiB", "8192B", 8192):
        assert bytes_of(budget) == 8192


class Unlike(nn.Module):
    """Of no zoo: blocks in a list, residuals, several activations, a norm without a bias; batches."""

    def __init__(self) -> None:
        super().__init__()
        self.inlet = nn.Conv1d(2, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(30, 90), nn.GELU(), nn.Linear(90, 30), nn.LeakyReLU()) for _ in range(4)]
        )
        self.head = nn.Linear(30, 3, bias=False)

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = F.hardsigmoid(self.inlet(x))
        for block in self.blocks:
            x = x + block(x)
        return self.head(te.tanh(x).mean(1))


def test_ways_to_train_are_combined(opencl: Backend) -> None:
    """What is trained with blocks computed again takes less than it does without, and no way is missed between."""
    model = Unlike()
    plan = partial(te.plan_for, model, lambda m, x: m(x).square().mean(), ((5, 2, 30),), optimizer=1)
    with pytest.raises(te.ArgumentError) as refused:
        plan(budget=1)
    least = int(str(refused.value).split()[6])
    most = plan(budget="1GiB").total_bytes
    fits = [plan(budget=int(limit)) for limit in np.linspace(most, least, 40)]
    trained = [fit.trained_elements for fit in fits if fit.method.startswith(("everything", "the last layers"))]
    assert trained == sorted(trained, reverse=True)
    methods = {fit.method for fit in fits}
    assert {"everything", "everything, with checkpoints", "the last layers, with checkpoints"} <= methods
    for fit in fits:
        assert bool(fit.checkpointed) == fit.method.endswith("with checkpoints") == (fit.extra_flops > 0)
        assert fit.step_flops > fit.forward_flops >= fits[0].forward_flops
    assert fits[-1].total_bytes == least
    again = [fit for fit in fits if fit.method == "everything, with checkpoints"]
    assert [len(fit.checkpointed) for fit in again] == sorted(len(fit.checkpointed) for fit in again)


# Where it does not suffice


class Failing(ReferenceBackend):
    """Memory for so many allocations and no more."""

    name = "failing"

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    def allocate(self, nbytes: int) -> Any:
        if self.left == 0:
            raise te.OutOfMemoryError(self.name, "memory", "there is none", "Give up.")
        self.left -= 1
        return super().allocate(nbytes)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: te.Tensor) -> te.Tensor:
        return self.last(F.dropout(te.relu(self.norm(self.first(x))), 0.5))


@pytest.mark.parametrize("had_gradients", [False, True])
@pytest.mark.parametrize("call", ["record", "prepare", "replay", "optimizer"])
def test_out_of_memory_leaves_everything_as_it_was(call: str, had_gradients: bool) -> None:
    """Whichever allocation fails; and the same call again, with memory, does what it would have done."""
    with te.use_backend(Failing()) as backend:
        assert isinstance(backend, Failing)
        outcomes: list[Any] = []
        for k in range(1000):
            te.manual_seed(1)
            model = Tiny()
            optimizer = optim.Adam(model.parameters(), amsgrad=True)
            x = te.tensor(np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32))

            @te.compile
            def step(x: te.Tensor, model: nn.Module = model) -> te.Tensor:
                loss = model(x).square().sum()
                loss.backward()
                return loss

            if had_gradients or call == "optimizer":
                model(x).sum().backward()
            if call == "replay":
                step.prepare(x)
            actions = {"optimizer": optimizer.step, "prepare": partial(step.prepare, x)}
            action = actions.get(call, partial(step, x))
            before, allocated = state_of(model, optimizer), backend.memory.allocated_bytes
            backend.left = k
            try:
                action()
            except te.OutOfMemoryError:
                failed = True
            else:
                failed = False
            backend.left = -1
            if failed:
                gc.collect()
                assert backend.memory.allocated_bytes == allocated
                assert_same(state_of(model, optimizer), before)
                action()
            outcomes.append(state_of(model, optimizer))
            if not failed:
                break
        assert len(outcomes) > 1
        for outcome in outcomes[:-1]:
            assert_same(outcome, outcomes[-1])


class Refusing(ReferenceBackend):
    """Takes so many launches and no more."""

    name = "refusing"
    left = -1

    def launch(self, launches: Sequence[Any]) -> None:
        for launch in launches:
            if self.left == 0:
                raise te.OutOfMemoryError(self.name, "a launch", "there is no memory for it", "Give up.")
            self.left -= 1
            launch()


@pytest.mark.parametrize("had_gradients", [False, True])
@pytest.mark.replays("it may be the eager call that is refused, with another text")
def test_a_refused_launch_leaves_everything_as_it_was(had_gradients: bool) -> None:
    """Whichever of the first replay it is: parameters, gradients, statistics, arguments, random numbers."""
    with te.use_backend(Refusing()) as backend:
        assert isinstance(backend, Refusing)
        outcomes: list[Any] = []
        for k in range(1000):
            te.manual_seed(1)
            model = Tiny()
            optimizer = optim.SGD(model.parameters())
            x = te.tensor(np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32))
            counter = te.zeros(1)

            @te.compile
            def step(x: te.Tensor, counter: te.Tensor, model: nn.Module = model) -> te.Tensor:
                counter.add_(1)
                loss = model(x).square().sum()
                loss.backward()
                return loss

            if had_gradients:
                model(x).sum().backward()
            step.prepare(x, counter)
            before, allocated = state_of(model, optimizer), backend.memory.allocated_bytes
            backend.left = k
            said = ""
            try:
                step(x, counter)
            except te.OutOfMemoryError as error:
                said = str(error)
            backend.left = -1
            if said:
                assert "Nothing was changed" in said
                gc.collect()
                assert backend.memory.allocated_bytes == allocated
                assert counter.item() == 0
                assert_same(state_of(model, optimizer), before)
                step(x, counter)
            assert counter.item() == 1
            outcomes.append(state_of(model, optimizer))
            if not said:
                break
        assert len(outcomes) > 10
        for outcome in outcomes[:-1]:
            assert_same(outcome, outcomes[-1])


def test_what_the_error_says() -> None:
    with te.use_backend(Failing()) as backend:
        assert isinstance(backend, Failing)
        model = Tiny()
        step = te.compile(lambda x: model(x).square().sum().backward())
        x = te.ones(5, 3)
        backend.left = 0
        with pytest.raises(te.OutOfMemoryError) as caught:
            step.prepare(x)
        for part in ("saved for backward", "for results", "there is none", "Nothing was changed"):
            assert part in str(caught.value)
        backend.left = -1


def test_a_device_that_allocates_late(opencl: OpenCLBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its refusal at the first use is the same error, eagerly, in a replay, and in copies."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise failure(opencl.cl, -4)

    x = te.ones(3)
    double = te.compile(lambda x: x * 2)
    program = double.prepare(x)
    monkeypatch.setattr(type(opencl), "prepare", lambda self, step: [refuse])
    with pytest.raises(te.OutOfMemoryError, match=r"te\.plan_for"):
        x + 1
    monkeypatch.setattr(program.lowered[0], "launcher", lambda: refuse)
    with pytest.raises(te.OutOfMemoryError, match="MEM_OBJECT_ALLOCATION_FAILURE"):
        double(x)
    monkeypatch.setattr(opencl.cl, "enqueue_copy", refuse)
    with pytest.raises(te.OutOfMemoryError, match="it says that it has"):
        x.numpy()


@pytest.mark.parametrize("undone", [True, False])
def test_a_call_that_fails_for_another_reason(backend: Backend, undone: bool) -> None:
    """What the package refuses changes nothing; an exception of the user's ends it as it would an eager call."""
    w = te.ones(2, requires_grad=True)
    w.grad = te.tensor([1.0, 2.0])
    counter = te.zeros(1)

    @te.compile
    def step(x: te.Tensor) -> None:
        counter.add_(1)
        (w * x).sum().backward()
        if undone:
            x.sum().item()
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(te.CaptureError if undone else ZeroDivisionError):
            step(te.ones(2))
    assert w.grad.tolist() == ([1.0, 2.0] if undone else [3.0, 4.0])
    assert counter.tolist() == ([0.0] if undone else [2.0])


def test_a_fused_step_saves_at_most_half_of_what_pytorch_does(opencl: Backend) -> None:
    """MobileNet v2 at 224 x 224 with frozen statistics: torch 2.13's saved-tensor hooks count 77.6 MB."""
    model = models.mobilenet_v2(dropout=0.0).train().freeze_batch_norm_statistics()
    step = te.rehearse(lambda x, y: loss_of(model, x, y).backward(), ((1, 3, 224, 224), ((1,), te.int64)))
    assert step.saved_bytes <= 77.6e6 / 2


def test_biases_alone_save_a_sixth_of_what_pytorch_does(opencl: Backend) -> None:
    """For all of the same model; a byte an activation is less than a twelfth."""
    model = models.mobilenet_v2(dropout=0.0).train().freeze_batch_norm_statistics()
    for name, param in model.named_parameters():
        param.requires_grad_(name.endswith("bias"))
    step = te.rehearse(lambda x, y: loss_of(model, x, y).backward(), ((1, 3, 224, 224), ((1,), te.int64)))
    assert step.saved_bytes <= 77.6e6 / 12
