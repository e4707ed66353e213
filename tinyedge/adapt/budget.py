"""``te.rehearse`` and ``te.plan_for``: memory that is known before anything runs, and what can be trained in a budget.

In: a model or function, and shapes. Out: a Program with its memory plan, or a Fit. Both use abstract tracing: the
function is called on the real backend with tensors that have no values, so nothing is allocated, built, launched or
changed. The plan equals that of the real call, because it depends only on the recorded steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from tinyedge import dtypes
from tinyedge.adapt.layers import layers_of
from tinyedge.adapt.rank import Ranking
from tinyedge.autograd.dispatch import new_slot
from tinyedge.autograd.recorder import recording
from tinyedge.backends import Backend, default_backend
from tinyedge.compiler.api import Compiled
from tinyedge.compiler.guards import Call
from tinyedge.compiler.program import Program
from tinyedge.compiler.record import Recording
from tinyedge.errors import ArgumentError
from tinyedge.ir.step import FORWARD
from tinyedge.nn import Module, ModuleList, Sequential
from tinyedge.optim import Optimizer
from tinyedge.tensor import Tensor

UNITS = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30,
}  # fmt: skip

Sample = Sequence[Any]
"""For each argument a tensor, a shape (float32), or a shape and a dtype: ``((1, 3, 224, 224), ((1,), te.int64))``."""

States = Optimizer | Callable[[list[Tensor]], Optimizer] | int
"""What says how much state each parameter has: an optimizer, what makes one, or a number of tensors."""


def rehearse(function: Callable[..., Any], sample: Sample) -> Program:
    """Compile a function abstractly, from shapes alone: the program that ``te.compile`` would make for such arguments.

    ``sample`` is a tuple of tensors, shapes, or (shape, dtype). Nothing is allocated, built, launched or changed. The
    program's ``peak_bytes``, ``saved_bytes`` and ``plan`` can be read.

    Errors: CaptureError as from ``te.compile``.
    """
    return _trace_abstractly(function, sample, default_backend())


def _trace_abstractly(function: Callable[..., Any], sample: Sample, backend: Backend) -> Program:
    with recording(Recording("rehearse", runs=False)):
        arguments = [_argument(item, backend) for item in sample]
    compiled = Compiled(function)
    program, _ = compiled.recorded(Recording(compiled.name, runs=False), Call.of(tuple(arguments), {}))
    assert program is not None
    return program


def _argument(item: Any, backend: Backend) -> Tensor:
    """The tensor itself, or a tensor of that shape and dtype without memory."""
    if isinstance(item, Tensor):
        return item
    shape, dtype = item if item and isinstance(item[0], (tuple, list)) else (item, dtypes.float32)
    return Tensor._wrap(new_slot(backend, dtypes.resolve(dtype, "rehearse"), tuple(int(size) for size in shape)))


@dataclass(frozen=True)
class Fit:
    """What is trained within a budget, and what that costs. ``apply()`` sets up the model accordingly.

    Units: bytes on the device. ``step_bytes`` is what a compiled step allocates, if it returns only the loss.
    """

    method: str
    trained: tuple[str, ...]
    """Names of the parameters that are trained."""
    checkpointed: tuple[str, ...]
    """Names of the modules that are rematerialised in backward (``te.checkpoint``)."""
    model_bytes: int
    sample_bytes: int
    largest_bytes: int
    """Of all that the device must give, the largest piece."""
    gradient_bytes: int
    state_bytes: int
    step_bytes: int
    forward_flops: int
    extra_flops: int
    """The part of ``forward_flops`` that rematerialisation costs."""
    step_flops: int
    """FLOPs of a whole step, forward and backward."""
    trained_elements: int
    elements: int
    model: Module = field(repr=False)
    program: Program = field(repr=False)
    """The abstractly traced program of a step, which is not prepared; it holds the memory plan."""

    @property
    def total_bytes(self) -> int:
        return self.model_bytes + self.sample_bytes + self.gradient_bytes + self.state_bytes + self.step_bytes

    def apply(self) -> Fit:
        """Make exactly the trained parameters require gradients, and checkpoint the chosen modules."""
        _set(self.model, set(self.trained), set(self.checkpointed))
        return self

    def __str__(self) -> str:
        parts = {
            "model": self.model_bytes, "sample": self.sample_bytes, "gradients": self.gradient_bytes,
            "optimizer": self.state_bytes, "step": self.step_bytes,
        }  # fmt: skip
        text = (
            f"{self.method}: trains {self.trained_elements:,} of {self.elements:,} parameters in {self.total_bytes:,} "
            f"bytes: {', '.join(f'{name} {nbytes:,}' for name, nbytes in parts.items())}; "
            f"{self.step_flops / 1e6:.4g} MFLOP a step"
        )
        if not self.checkpointed:
            return text
        share = self.extra_flops / max(self.forward_flops - self.extra_flops, 1)
        return (
            f"{text}, of which {self.extra_flops / 1e6:.4g} to compute {len(self.checkpointed)} modules again: "
            f"{share:.0%} more forward arithmetic"
        )


def plan_for(
    model: Module,
    loss: Callable[..., Tensor],
    sample: Sample,
    *,
    budget: int | str,
    optimizer: States = 0,
    ranking: Ranking | Sequence[str] | None = None,
) -> Fit:
    """Choose what of ``model`` to train in ``budget`` bytes, from shapes alone: the first of these that fits.

    1. everything that requires a gradient now;
    2. the last layers, as many as fit;
    3. all biases, and the last layer;
    4. the last layer;
    5. the biases alone.

    With ``ranking``, from ``te.adapt.rank_layers`` or the names of layers, the most important first, 2. is instead the
    most important layers, as many as fit in their order; and then each less important one that fits beside them.

    Each is tried as it is, and if it does not fit, with ``te.checkpoint`` (rematerialisation) for as few blocks as
    needed, beginning with the first block that is trained. Blocks are the modules in a Sequential or ModuleList. The
    result says how many FLOPs that costs.

    ``loss(model, *sample)`` returns the tensor on which backward is called. ``sample`` is a tuple of tensors, shapes,
    or (shape, dtype). ``budget`` is a number of bytes, or text such as "24MB" or "24MiB". ``optimizer`` says how much
    state each parameter has: an optimizer, a class or function that makes one, or a number of tensors for each
    parameter.

    Counted are the model's parameters and buffers, the sample, gradients, optimizer state, and all that a compiled step
    (``te.compile(...).prepare``) allocates: temporaries, what is saved for backward, kernels' scratch memory, and the
    loss. Not counted are programs on the device, and what the driver takes. The minibatch, if it is accumulated sample
    by sample, does not matter. No value is larger than what the device gives in one piece; all temporaries together
    may be.

    Errors: ArgumentError if nothing fits, with the smallest total; if ``ranking`` names what is no trainable layer.
    """
    limit = bytes_of(budget)
    search = _Search(model, loss, sample, states_of(optimizer), limit)
    if ranking is not None:
        search.rank(ranking.names() if isinstance(ranking, Ranking) else ranking)
    for fit in search.fits():
        if search.suffices(fit):
            return fit
    given = [fit for fit in search.tried.values() if search.is_given(fit)]
    if not given:
        smallest = min(search.tried.values(), key=lambda fit: fit.largest_bytes)
        raise ArgumentError(
            "plan_for",
            f"values of at most {search.backend.largest_bytes} bytes, which is what the device gives in one piece",
            f"one takes {smallest.largest_bytes} bytes; the least was {smallest}",
            "Use smaller inputs or a narrower model, or compute what is so large in parts.",
        )
    least = min(given, key=lambda fit: fit.total_bytes)
    raise ArgumentError(
        "plan_for",
        f"a budget of at least {least.total_bytes} bytes",
        f"got {limit}; the least was {least}",
        "Use smaller inputs, a narrower model, or an optimizer with less state.",
    )


class _Search:
    """The ways to train a model, each traced abstractly when it is asked for."""

    def __init__(self, model: Module, loss: Callable[..., Tensor], sample: Sample, states: int, limit: int) -> None:
        self.model = model
        self.loss = loss
        self.sample = sample
        self.states = states
        self.limit = limit
        self.trainable = {name: param for name, param in model.named_parameters() if param.requires_grad}
        if not self.trainable:
            raise ArgumentError(
                "plan_for",
                "a model with parameters that require gradients",
                "all are frozen",
                "Call requires_grad_(True) on what shall be trained.",
            )
        self.backend = next(iter(self.trainable.values())).backend
        self.checkpointed = tuple(name for name, module in model.named_modules() if module.checkpointed)
        self.blocks = [name for name, block in _blocks(model, "") if not block.checkpointed]
        layers = layers_of(model)
        owned = {layer.name: [name for name in layer.parameters if name in self.trainable] for layer in layers}
        self.owners = {name: own for name, own in owned.items() if own}
        self.layers = list(self.owners.values())
        self.bias_names = {name for layer in layers for name in layer.biases}
        self.ranked: list[list[str]] = []  # the same, the most important first; empty without a ranking
        self.plain_flops = 0  # of the forward pass without further checkpoints; known after that was tried
        self.tried: dict[tuple[tuple[str, ...], tuple[str, ...]], Fit] = {}  # by what is trained, and checkpointed

    def rank(self, names: Sequence[str]) -> None:
        """Choose by importance. Layers that ``names`` leaves out come last."""
        owners = self.owners
        if unknown := [name for name in names if name not in owners]:
            raise ArgumentError(
                "plan_for", "a ranking of the layers that require gradients", f"{unknown[0]!r} is none of them",
                "Rank the layers of this model, as they are frozen now, with te.adapt.rank_layers.",
            )  # fmt: skip
        order = dict.fromkeys([*names, *reversed(owners)])
        self.ranked = [owners[name] for name in order]

    def by_importance(self) -> Iterator[Fit]:
        """The most important layers that fit, and what fits beside them."""
        method = "the most important layers"
        chosen = [[name for layer in self.ranked[:end] for name in layer] for end in range(len(self.ranked) - 1, 0, -1)]
        if not chosen:
            return
        best = self.first_that_suffices([partial(self.plain_or_all_again, method, names) for names in chosen])
        best = self.again(method, best.trained)
        if self.suffices(best):
            for layer in self.ranked:
                if not set(layer) <= set(best.trained):
                    wider = self.fit(best.method, [*best.trained, *layer], self.added(best))
                    best = wider if self.suffices(wider) else best
        yield best

    def added(self, fit: Fit) -> tuple[str, ...]:
        """The modules that are checkpointed for this choice, in addition to those of the model."""
        return fit.checkpointed[len(self.checkpointed) :]

    def is_given(self, fit: Fit) -> bool:
        """Whether the device gives pieces of memory as large as the largest."""
        most = self.backend.largest_bytes
        return most is None or fit.largest_bytes <= most

    def suffices(self, fit: Fit) -> bool:
        """Whether the budget does, and the device."""
        return fit.total_bytes <= self.limit and self.is_given(fit)

    def cost(self, fit: Fit) -> tuple[bool, int]:
        """The less of it the better."""
        return not self.is_given(fit), fit.total_bytes

    def fits(self) -> Iterator[Fit]:
        """What was found for each way in order, whether it fits or not."""
        everything = self.fit("everything", self.trainable)
        self.plain_flops = everything.forward_flops
        yield everything
        yield self.again("everything", self.trainable)
        last, *before = reversed(self.layers)
        if self.ranked:
            yield from self.by_importance()
            before = []
        suffixes = [[name for layer in self.layers[start:] for name in layer] for start in range(1, len(before))]
        if suffixes:
            method = "the last layers"
            most = self.first_that_suffices([partial(self.plain_or_all_again, method, names) for names in suffixes])
            yield most if most.method == method else self.again(method, most.trained)
        biases = [name for name in self.trainable if name in self.bias_names or name in last]
        if len(biases) > len(last):
            yield self.fit("biases and the last layer", biases)
            yield self.again("biases and the last layer", biases)
        yield self.fit("the last layer", last)
        biases = [name for name in biases if name in self.bias_names]
        if biases:
            yield self.fit("biases", biases)
            yield self.again("biases", biases)

    def blocks_of(self, trained: Collection[str]) -> list[str]:
        """The blocks from the first trained parameter on: those before it save nothing."""
        starts = [k for k, block in enumerate(self.blocks) if any(name.startswith(block + ".") for name in trained)]
        return self.blocks[starts[0] :] if starts else []

    def again(self, method: str, trained: Collection[str]) -> Fit:
        """With as few blocks computed again as needed; if nothing fits, with as many as take the least."""
        blocks = self.blocks_of(trained)

        def first(count: int) -> Fit:
            return self.fit(f"{method}, with checkpoints" if count else method, trained, blocks[:count])

        # One more block frees less and less, until its input takes more memory than it frees.
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if self.cost(first(middle)) <= self.cost(first(middle + 1)):
                high = middle
            else:
                low = middle + 1
        return self.first_that_suffices([partial(first, count) for count in range(high + 1)])

    def plain_or_all_again(self, method: str, trained: Collection[str]) -> Fit:
        plain = self.fit(method, trained)
        blocks = self.blocks_of(trained)
        if self.suffices(plain) or not blocks:
            return plain
        return min(plain, self.fit(f"{method}, with checkpoints", trained, blocks), key=self.cost)

    def first_that_suffices(self, ways: Sequence[Callable[[], Fit]]) -> Fit:
        """By bisection, as each takes less than the one before; the last if none does."""
        best = ways[-1]()
        low, high = 0, len(ways) - 1
        if not self.suffices(best):
            return best
        while low < high:
            middle = (low + high) // 2
            fit = ways[middle]()
            if self.suffices(fit):
                best, high = fit, middle
            else:
                low = middle + 1
        return best

    def fit(self, method: str, trained: Iterable[str], checkpointed: Sequence[str] = ()) -> Fit:
        """Trace a step of this choice abstractly."""
        trained, chosen = tuple(trained), (*self.checkpointed, *checkpointed)
        if (trained, chosen) in self.tried:
            return self.tried[trained, chosen]

        def step(*sample: Tensor) -> Tensor:
            value = self.loss(self.model, *sample)
            value.backward()
            return value

        with _as_it_was(self.model):
            _set(self.model, set(trained), set(chosen))
            program = _trace_abstractly(step, self.sample, self.backend)
        steps = {step.number: step for kernel in program.kernels for step in kernel.steps()}.values()
        flops = sum(s.op.flops(s) for s in steps if s.direction == FORWARD)
        gradients = program.gradient_bytes
        fit = self.tried[trained, chosen] = Fit(
            method=method,
            trained=trained,
            checkpointed=chosen,
            model_bytes=sum({t._slot.storage: t._slot.storage.nbytes for t in _tensors(self.model)}.values()),
            sample_bytes=sum(_nbytes(item) for item in self.sample),
            largest_bytes=max([program.largest_bytes, *(_nbytes(item) for item in self.sample)]),
            gradient_bytes=gradients,
            state_bytes=self.states * gradients,
            step_bytes=program.peak_bytes,
            forward_flops=flops,
            extra_flops=flops - self.plain_flops if checkpointed else 0,
            step_flops=sum(s.op.flops(s) for s in steps),
            trained_elements=sum(self.trainable[name].numel() for name in trained),
            elements=sum(param.numel() for param in self.model.parameters()),
            model=self.model,
            program=program,
        )
        return fit


def _blocks(module: Module, path: str) -> Iterator[tuple[str, Module]]:
    """The modules of each outermost Sequential or ModuleList that hold more than one layer."""
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if isinstance(module, (Sequential, ModuleList)) and len(list(child.modules())) > 2:
            yield child_path, child
        else:
            yield from _blocks(child, child_path)


def _set(model: Module, trained: set[str], checkpointed: set[str]) -> None:
    for name, param in model.named_parameters():
        param.requires_grad_(name in trained)
    for name, module in model.named_modules():
        module.checkpoint(name in checkpointed)


@contextmanager
def _as_it_was(model: Module) -> Iterator[None]:
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    checkpointed = {name for name, module in model.named_modules() if module.checkpointed}
    try:
        yield
    finally:
        _set(model, trained, checkpointed)


def _tensors(model: Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _nbytes(item: Any) -> int:
    if isinstance(item, Tensor):
        return item._slot.storage.nbytes
    shape, dtype = item if item and isinstance(item[0], (tuple, list)) else (item, dtypes.float32)
    nbytes = dtypes.resolve(dtype, "plan_for").itemsize
    for size in shape:
        nbytes *= int(size)
    return nbytes


def states_of(optimizer: States) -> int:
    """The number of tensors that an optimizer keeps for each parameter."""
    if isinstance(optimizer, int):
        return optimizer
    if not isinstance(optimizer, Optimizer):
        with recording(Recording("plan_for", runs=False)):
            optimizer = optimizer([_argument((), default_backend())])
    return max(sum(name != "step" for name in optimizer.state_names(group)) for group in optimizer.param_groups)


def bytes_of(budget: int | str, call: str = "plan_for") -> int:
    """A number of bytes, given as it is or as text such as "24MB"; ``call`` is the caller's name for an error."""
    if isinstance(budget, int):
        return budget
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?([kKMG]?i?)B", budget.strip())
    if match is None or match[2] not in UNITS:
        raise ArgumentError(call, 'a budget in bytes, or such as "24MB" or "24MiB"', f"got {budget!r}")
    return int(Decimal(match[1]) * UNITS[match[2]])


__all__ = ["Fit", "plan_for", "rehearse"]
