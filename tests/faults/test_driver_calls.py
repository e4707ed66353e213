"""A fault at every call of the driver: the error is tinyedge's, nothing was changed, and the same call then works.

Training is run again and again, and each time another call of the driver fails, or is interrupted. What a call of the
user's program changes, parameters, gradients, the optimizer's state, is then as it was before that call, or the error
says that it is not (and then what the user kept is put back); the call is made again, and the end is the undisturbed
run's to the bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.faults.driver import OTHERS, OUT_OF_MEMORY, Code, FaultyOpenCL, Interrupt
from tinyedge import backends, nn, optim
from tinyedge.errors import TinyedgeError
from tinyedge.nn import functional as F

pytestmark = pytest.mark.filterwarnings("ignore:kernels are built anew")  # a kept kernel that is refused is replaced

Fault = Code | Interrupt
State = dict[str, bytes | None]

FAULTS: tuple[Fault, ...] = (Code(OUT_OF_MEMORY), Code(OTHERS), Interrupt(after=False), Interrupt(after=True))
SAID = re.compile(r"not as (it was|they were)|in part|partly|half|others are updated", re.IGNORECASE)
"""In the text of an error, or in a note to an interrupt: that something was changed."""

SAMPLES = 6
"""With two to a minibatch: three updates, of which the third replays the second's program."""


class Training:
    """A small model on a device of its own, and the calls that train it."""

    def __init__(self, compiled: bool) -> None:
        entries = backends.usable_devices()
        if not entries:
            pytest.skip("no usable OpenCL device")
        self.backend = FaultyOpenCL(entries[0])
        with te.use_backend(self.backend):
            te.manual_seed(3)
            self.model = nn.Sequential(
                nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)
            ).train()
            self.model.freeze_batch_norm_statistics()
            self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, accumulate=2)

        def sample(x: te.Tensor, y: te.Tensor) -> te.Tensor:
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            return loss

        self.sample = te.compile(sample) if compiled else sample
        self.losses: list[float] = []

    def calls(self) -> Iterator[Callable[[], object]]:
        """What a user's program calls, one after the other."""
        random = np.random.default_rng(5)
        for _ in range(SAMPLES):
            x, y = random.standard_normal((1, 1, 5, 5)).astype(np.float32), random.integers(0, 3, 1)

            def train(x: Any = x, y: Any = y) -> None:
                self.loss = self.sample(te.tensor(x), te.tensor(y))

            yield train
            yield lambda: self.losses.append(self.loss.item())
            yield self.optimizer.step
        yield self.backend.finish

    def state(self) -> State:
        """All that training changes, as bytes."""
        self.backend.faults.counts = False
        found: dict[str, Any] = {}
        for name, param in self.model.named_parameters():
            found[name] = param
            found[f"gradient of {name}"] = param.grad
        for number, param in enumerate(self.model.parameters()):  # no state dict is given while an update is halfway
            kept = self.optimizer.state.get(param, {})
            found.update({f"{key} of parameter {number}": value for key, value in kept.items()})
        found["samples that wait"] = self.optimizer.pending
        read = {
            name: value.detach().numpy() if isinstance(value, te.Tensor) else value for name, value in found.items()
        }
        self.backend.faults.counts = True
        return {name: None if value is None else np.asarray(value).tobytes() for name, value in read.items()}

    def put_back(self, before: State) -> None:
        """What a user does who kept a checkpoint of the state ``before``."""
        self.backend.faults.counts = False
        kept: dict[int, dict[str, Any]] = {}
        gradients: dict[int, Any] = {}
        for number, (name, param) in enumerate(self.model.named_parameters()):
            param.detach().copy_(te.tensor(np.frombuffer(before[name] or b"", np.float32).reshape(param.shape)))
            gradient = before[f"gradient of {name}"]
            if gradient:
                gradients[number] = np.frombuffer(gradient, np.float32).reshape(param.shape)
            momentum = before.get(f"momentum_buffer of parameter {number}")
            if momentum:
                kept[number] = {"momentum_buffer": np.frombuffer(momentum, np.float32).reshape(param.shape)}
        counted = int(np.frombuffer(before["samples that wait"] or b"", np.int64)[0])
        self.optimizer.discard()
        minibatch = {"counted": counted, "gradients": gradients}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": kept, "minibatch": minibatch})
        self.backend.faults.counts = True


def said(error: BaseException) -> bool:
    """Whether the error says that something was changed."""
    return bool(SAID.search("\n".join([str(error), *getattr(error, "__notes__", ())])))


def disturbed(compiled: bool, at: int, fault: Fault, states: Sequence[State]) -> tuple[State, list[float], str | None]:
    """A run of which the driver call number ``at`` meets ``fault``: its end, its losses, and what was wrong.

    ``states`` come after each of the program's calls in a run without a fault: an interrupt may wait until one is done.
    """
    training = Training(compiled)
    faults = training.backend.faults
    faults.at, faults.fault = at, fault
    wrong: list[str] = []
    with te.use_backend(training.backend):
        for number, call in enumerate(training.calls()):
            before, losses = training.state(), list(training.losses)
            try:
                call()
            except (TinyedgeError, KeyboardInterrupt) as error:
                if isinstance(error, KeyboardInterrupt) != isinstance(fault, Interrupt):
                    wrong.append(f"{type(error).__name__} came")
                after = training.state()
                # Whether the launch that was interrupted ran cannot be known: then the error says that it may have.
                if isinstance(fault, Interrupt) and after == states[number] != before and not said(error):
                    faults.at = None
                    continue
                changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
                if changed and not said(error):
                    wrong.append(f"changed: {', '.join(changed)}")
                if changed or said(error):
                    training.put_back(before)
            except Exception as error:
                wrong.append(f"no error of tinyedge's: {type(error).__module__}.{type(error).__name__}: {error}"[:150])
                training.put_back(before)
            else:
                continue
            faults.at = None
            training.losses = losses
            place = f"call {number} of the program, driver call {at} ({faults.calls[at]})"
            try:
                call()
            except Exception as error:
                wrong.append(f"made again, it fails: {type(error).__name__}: {error}"[:200])
                return {}, [], f"{place}: " + "; ".join(wrong)
            wrong = [f"{place}: {'; '.join(wrong)}"] if wrong else []
        end = training.state()
    return end, training.losses, wrong[0] if wrong else None


def undisturbed(compiled: bool) -> tuple[Training, list[State], list[range]]:
    """A run without a fault: the state after each of the program's calls, and the driver calls of each."""
    training, states, reached = Training(compiled), [], []
    with te.use_backend(training.backend):
        for call in training.calls():
            training.state()
            first = len(training.backend.faults.calls)
            call()
            reached.append(range(first, len(training.backend.faults.calls)))
            states.append(training.state())
    return training, states, reached


def faults_found(compiled: bool, fault: Fault, every: int, first: int = 0) -> tuple[list[str], Sequence[str]]:
    """What is wrong with faults at every so many driver calls; and the driver's calls of an undisturbed run."""
    training, states, _ = undisturbed(compiled)
    expected, calls = states[-1], training.backend.faults.calls
    found = []
    for at in range(first, len(calls), every):
        end, losses, wrong = disturbed(compiled, at, fault, states)
        if wrong is not None:
            found.append(wrong)
        if end and (end != expected or losses != training.losses):
            differing = [name for name in expected if end.get(name) != expected[name]]
            found.append(f"driver call {at} ({calls[at]}): the end differs: {differing or 'losses'}")
    return found, calls


@pytest.fixture(autouse=True, scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of these tests, so that every run but the first finds its kernels built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYEDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


SHARES = 4
"""Tests for the calls of a run, so that processes can share them."""


@pytest.mark.faults
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_at_every_call(fault: Fault, compiled: bool, share: int) -> None:
    found, calls = faults_found(compiled, fault, SHARES, share)
    assert not found, f"{len(found)} of {len(calls)}:\n" + "\n".join(found)


SOME = ((Code(OUT_OF_MEMORY), True),)
"""Of a fault and whether training is compiled, those that every run of the tests looks at, at some of the calls."""


@pytest.mark.replays("the values are read after the call, and a fault there comes when all has run")
@pytest.mark.parametrize(("fault", "compiled"), SOME, ids=str)
def test_a_fault_at_some_calls(fault: Fault, compiled: bool) -> None:
    found, calls = faults_found(compiled, fault, 83)
    assert not found, f"{len(found)} of {len(calls)}:\n" + "\n".join(found)


@pytest.mark.parametrize("fault", [Code(OTHERS), *FAULTS[2:]], ids=str)
def test_a_sample_that_failed_in_part_after_an_update_is_repeated(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients were cleared before it, so what was added to them is dropped; and Ctrl-C before a launch that adds
    to gradients leaves them whole. Nothing needs to be put back.
    """
    monkeypatch.delattr(Training, "put_back")
    training, states, reached = undisturbed(True)
    calls = training.backend.faults.calls
    bound = [at for at in reached[3] if calls[at] == "clSetKernelArg"]
    third = [at for at in reached[6] if calls[at] == "clEnqueueNDRangeKernel"]
    for at in (bound[-1], third[-1]):
        end, losses, wrong = disturbed(True, at, fault, states)
        assert wrong is None
        assert (end, losses) == (states[-1], training.losses)


def test_a_step_that_was_launched_in_part_has_torn_what_it_adds_to() -> None:
    """A layer's backward is a step of several kernels: here for the weight, the bias and the input."""
    training, states, reached = undisturbed(False)
    calls = training.backend.faults.calls
    launches = [at for at in reached[3] if calls[at] == "enqueue_nd_range_kernel"]
    middle = len(launches) // 2  # here backward begins
    for at in launches[middle : middle + 4]:
        end, losses, wrong = disturbed(False, at, Code(OTHERS), states)
        assert wrong is None
        assert (end, losses) == (states[-1], training.losses)


def test_what_can_fail() -> None:
    """The calls that training makes of the driver all go by where they can fail."""
    _, eager = faults_found(False, Code(OTHERS), 10**9)
    assert {"allocate", "build", "enqueue_copy", "enqueue_nd_range_kernel", "finish", "set_arg"} <= set(eager)
    _, compiled = faults_found(True, Code(OTHERS), 10**9)
    assert {"clEnqueueNDRangeKernel", "clSetKernelArg"} <= set(compiled)
