"""Random numbers: Philox4x32-10, the same bits on every backend, and dropout.

A counter-based generator has no state but (seed, offset): word ``i`` of draw ``offset`` is a function of the three. So
a kernel computes the word of each element where it needs it, forward and backward alike, and NumPy computes the same.
Each draw takes one offset.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge import dtypes
from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.recorder import forbid_in_recording, was_drawn, was_filled, will_draw
from tinyedge.autograd.registry import public
from tinyedge.autograd.scope import once
from tinyedge.backends import Backend
from tinyedge.dtypes import DType, float32, int64
from tinyedge.errors import ArgumentError, DtypeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.creation import sizes
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor, call, tensor
from tinyedge.tensor.host import backend_named
from tinyedge.tensor.memory_format import check_memory_format

Array = np.ndarray[Any, Any]
Words = npt.NDArray[np.uint32]
Target = str | Backend | None


def philox(blocks: int, offset: int, seed: int, first: int = 0) -> Words:
    """The words of ``blocks`` counters (block, offset), from block ``first`` on, under the key ``seed``: (blocks, 4)
    uint32.
    """
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    multipliers = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    counters = np.arange(blocks, dtype=np.uint64) + np.uint64(first)
    c0, c1 = counters & low, counters >> half
    c2 = np.full(blocks, offset & 0xFFFFFFFF, np.uint64)
    c3 = np.full(blocks, offset >> 32, np.uint64)
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        product_0, product_1 = multipliers[0] * c0, multipliers[1] * c2
        c0, c1, c2, c3 = (
            (product_1 >> half) ^ c1 ^ np.uint64(keys[0]),
            product_1 & low,
            (product_0 >> half) ^ c3 ^ np.uint64(keys[1]),
            product_0 & low,
        )
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack((c0, c1, c2, c3), axis=1).astype(np.uint32)


def _words(count: int, seed: int, offset: int) -> Words:
    return philox(-(-count // 4), offset, seed).reshape(-1)[:count]


def _long_words(words: Words) -> npt.NDArray[np.uint64]:
    """Of each two words one of 64 bits."""
    pairs = words.astype(np.uint64).reshape(-1, 2)
    return np.asarray(pairs[:, 0] | (pairs[:, 1] << np.uint64(32)))


def uniform_of(words: Words, size: Shape) -> npt.NDArray[np.float64]:
    """Floats in [0, 1) of 24 bits, one of each word."""
    return np.asarray((words >> np.uint32(8)) * 2.0**-24).reshape(size)


def normal_words(size: Shape) -> int:
    """How many words ``normal_of`` takes."""
    return 2 * -(-prod(size) // 2)


def normal_of(words: Words, size: Shape) -> npt.NDArray[np.float64]:
    """Normally distributed numbers, two of each pair of words (Box and Muller)."""
    pairs = words.reshape(-1, 2).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((pairs[:, 0] + 1.0) * 2.0**-32))
    angle = (2.0 * math.pi * 2.0**-32) * pairs[:, 1]
    values = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
    return np.asarray(values.reshape(-1)[: prod(size)]).reshape(size)


class Generator:
    """A stream of random numbers: a seed, and how many draws were taken from it."""

    DEFAULT_SEED = 0
    """Runs repeat unless the user asks for a seed that does not."""

    def __init__(self) -> None:
        self._seed = self.DEFAULT_SEED
        self._offset = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[int, int]:
        return self.get_state()

    def __setstate__(self, state: tuple[int, int]) -> None:
        self._lock = threading.Lock()
        self.set_state(state)

    def __repr__(self) -> str:
        forbid_in_recording("the text of a generator", "it shows a state that changes at each call")
        return f"Generator(seed={self._seed}, offset={self._offset})"

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed``, any integer of 64 bits. Returns self."""
        forbid_in_recording("manual_seed", "a replay would not set the seed again")
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ArgumentError("manual_seed", "seed must be in [-2**63, 2**64)", f"got {seed}")
        with self._lock:
            self._seed, self._offset = seed % 2**64, 0
        return self

    def seed(self) -> int:
        """Start a stream whose seed the system draws, and return the seed."""
        seed = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        forbid_in_recording("initial_seed", "a replay would not read the seed again")
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """(seed, offset): what ``set_state`` goes on from."""
        forbid_in_recording("get_state", "a replay would not read the state again")
        return self._state()

    def _state(self) -> tuple[int, int]:
        """The same, for who undoes draws."""
        with self._lock:
            return self._seed, self._offset

    def set_state(self, state: tuple[int, int]) -> Generator:
        forbid_in_recording("set_state", "a replay would not set the state again")
        seed, offset = state
        with self._lock:
            self._seed, self._offset = int(seed) % 2**64, int(offset) % 2**64
        return self

    def draw(self) -> tuple[int, int]:
        """The (seed, offset) of one draw, that no other draw gets."""
        with self._lock:
            taken = self._seed, self._offset
            self._offset = (self._offset + 1) % 2**64
        return taken

    def words(self, count: int) -> Words:
        """``count`` uniform 32-bit words, made on the host."""
        forbid_in_recording("drawing random numbers", "they come from the host, and a replay would use the same again")
        return _words(count, *once(self.draw))

    def long_words(self, count: int) -> npt.NDArray[np.uint64]:
        """``count`` uniform 64-bit words, made on the host."""
        return _long_words(self.words(2 * count))

    def uniform(self, size: Shape) -> npt.NDArray[np.float64]:
        """Uniform in [0, 1), on the host; multiples of 2**-24, so that they stay below 1 in float32."""
        return uniform_of(self.words(prod(size)), size)

    def normal(self, size: Shape) -> npt.NDArray[np.float64]:
        """Standard normal, on the host, by the method of Box and Muller."""
        return normal_of(self.words(normal_words(size)), size)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the generator that everything random draws from unless it is given another. Returns it."""
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def seed() -> int:
    """Seed the default generator by a number that the system draws, and return the number."""
    return default_generator.seed()


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """A block after which the default generator goes on from where it was before. ``devices`` changes nothing: there is
    one generator for all. With ``enabled=False`` nothing is put back.
    """
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)


def get_rng_state() -> tuple[int, int]:
    """The state of the default generator, for ``set_rng_state``: its seed, and the number of draws."""
    return default_generator.get_state()


def set_rng_state(new_state: tuple[int, int]) -> None:
    """Let the default generator go on from a state that ``get_rng_state`` gave."""
    default_generator.set_state(new_state)


def _dropout_kernel(step: Step, device: Device, source: str, target: str) -> list[KernelSpec]:
    count = step.slots[target].numel
    width = device.native_width if device.is_cpu else 1
    items = -(-count // (4 * width))
    group = device.group() if width == 1 else max(1, min(device.group(), items // (8 * device.compute_units)))
    return [
        KernelSpec(
            step.op.name,
            "dropout.cl.jinja",
            (source, target),
            *grid(items, group),
            sizes={"count": count},
            scalars=step.op.scalars,
            constants={
                "real": step.slots[target].dtype.ctype,
                "source": source,
                "target": target,
                "width": width,
            },
            hooked=(source, target),
        )
    ]


class Draw(dict[str, float]):
    """The scalars that say which random numbers one call takes, forward and backward: a replay draws them anew."""

    def __init__(self, generator: Generator, **fixed: float) -> None:
        super().__init__(fixed)
        self.generator = generator
        will_draw(generator)
        self.renew()
        was_drawn(self)

    def twin(self) -> Draw:
        """The same numbers, which can be renewed by themselves."""
        twin = type(self).__new__(type(self))
        twin.update(self)
        twin.__dict__.update(self.__dict__)
        return twin

    def renew(self) -> None:
        seed, offset = self.generator.draw()
        self.update(
            seed_low=seed & 0xFFFFFFFF,
            seed_high=seed >> 32,
            offset_low=offset & 0xFFFFFFFF,
            offset_high=offset >> 32,
        )


class TensorDraw(Draw):
    """A draw of ``count`` words of which ``make`` makes the values of a tensor, on the host."""

    def __init__(
        self, generator: Generator, count: int, make: Callable[[Words], Array], dtype: DType, device: Target
    ) -> None:
        self.count, self.make, self.dtype, self.device = count, make, dtype, device
        super().__init__(generator)

    def tensor(self) -> Tensor:
        """A new tensor of the present numbers."""
        seed, offset = (int(self[f"{name}_high"]) << 32 | int(self[f"{name}_low"]) for name in ("seed", "offset"))
        made = tensor(self.make(_words(self.count, seed, offset)), dtype=self.dtype, device=self.device)
        was_filled(made._slot, self)
        return made


def drawn(
    generator: Generator | None,
    count: int,
    make: Callable[[Words], Array],
    dtype: DType,
    device: Target,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of the values that ``make`` makes of ``count`` words; a replay draws new ones."""
    target = backend_named(device)
    draw = once(lambda: TensorDraw(generator or default_generator, count, make, dtype, target))
    result = draw.tensor()
    return result.requires_grad_() if requires_grad else result


class Dropout(Op):
    signature = "(...)->(...)"
    domain = {"x": (-4.0, 4.0)}
    differentiable = ("x",)
    scalars = {
        "seed_low": "uint",
        "seed_high": "uint",
        "offset_low": "uint",
        "offset_high": "uint",
        "threshold": "uint",
        "scale": "real",
    }
    errors = (
        ErrorSample(lambda te: te.dropout(te.zeros(2), 1.5), ArgumentError, "[0, 1]"),
        ErrorSample(lambda te: te.dropout(te.tensor([1, 2])), DtypeError, "floating"),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return (x,)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _dropout_kernel(step, device, "x", "y")

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return _dropout_kernel(step, device, "dy", "dx")

    @staticmethod
    def forward(
        x: Array, *, seed_low: int, seed_high: int, offset_low: int, offset_high: int, threshold: int, scale: float,
        **_: Any,
    ) -> Array:  # fmt: skip
        # Another op's draw, with numbers of its own, gives the elements that this op drops.
        words = philox(-(-x.size // 4), offset_high << 32 | offset_low, seed_high << 32 | seed_low)
        kept = words.reshape(-1)[: x.size].reshape(x.shape) >= np.uint32(threshold)
        return np.asarray(np.where(kept, x * x.dtype.type(scale), x.dtype.type(0)))

    @staticmethod
    def backward(dy: Array, **scalars: Any) -> tuple[Array]:
        return (Dropout.forward(dy, **scalars),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 7, 33)) for _ in range(random.randint(0, 3)))
        words = {name: random.getrandbits(32) for name in cls.scalars if name != "scale"}
        return Sample((shape,), {**words, "scale": random.choice((1.25, 2.0))})


@public(functional=True)
def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Each element with probability 1 - p, times 1 / (1 - p), else 0; without ``training`` the input itself.

    Shapes: any; returns the same.
    Saves:  nothing: the gradient computes the same mask again.
    Errors: ArgumentError if p is outside [0, 1].
    Source: Srivastava et al., Dropout (JMLR 2014).
    """
    if not 0.0 <= p <= 1.0:
        raise ArgumentError("dropout", "p must be in [0, 1]", f"got {p}")
    if not input.is_floating_point():
        raise DtypeError("dropout", "a floating-point input", f"got {input.dtype.name}", "Convert it with .float().")
    if not training or p == 0:
        return input
    if p == 1:
        result = input * 0
    else:
        # An exact integer comparison: no rounding can make two backends disagree about an element.
        fixed = {"threshold": int(p * 2**32), "scale": 1.0 / (1.0 - p)}
        scalars = once(lambda: Draw(generator or default_generator, **fixed))
        result = call(Dropout, input, scalars=scalars)
    return input._assign("dropout_", result) if inplace else result


def _float_dtype(call_name: str, dtype: Any) -> DType:
    wanted = float32 if dtype is None else dtypes.resolve(dtype, call_name)
    if not wanted.is_floating_point:
        raise DtypeError(call_name, "a floating-point dtype", f"got {wanted.name}", "Use randint for integers.")
    return wanted


@public
def rand(
    *shape: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1); the same on every backend.

    Shapes: as ``zeros``.
    """
    shape, wanted = sizes("rand", shape, size), _float_dtype("rand", dtype)
    return drawn(generator, prod(shape), lambda words: uniform_of(words, shape), wanted, device, requires_grad)


@public
def randn(
    *shape: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal numbers; the same on every backend.

    Shapes: as ``zeros``.
    """
    shape, wanted = sizes("randn", shape, size), _float_dtype("randn", dtype)
    return drawn(generator, normal_words(shape), lambda words: normal_of(words, shape), wanted, device, requires_grad)


@public
def randint(
    low: int,
    high: int | Sequence[int],
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform integers in [low, high), int64; ``randint(high, size)`` starts from 0.

    Shapes: returns ``size``.
    Errors: NumberRangeError if the dtype does not hold all of them.
    """
    if size is None:
        if isinstance(high, int):
            raise ArgumentError("randint", "a size", f"got randint({low}, {high})", "Call randint(low, high, size).")
        low, high, size = 0, low, high  # type: ignore[assignment]
    if not isinstance(high, int) or low >= high:
        raise ArgumentError("randint", "low must be below high", f"got low={low}, high={high}")
    wanted = dtypes.resolve(dtype or int64, "randint")
    dtypes.fitting("randint", low, wanted)
    span = dtypes.fitting("randint", high - 1, wanted) + 1 - low
    shape = sizes("randint", (size,))

    def make(words: Words) -> Array:
        values = _long_words(words)
        if span < 2**64:
            values %= np.uint64(span)
        # Both wrap around, and meet again.
        return np.asarray((values + np.uint64(low % 2**64)).astype(np.int64)).reshape(shape)

    return drawn(generator, 2 * prod(shape), make, wanted, device, requires_grad)


@public
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Target = None) -> Tensor:
    """The integers [0, n) in random order, int64.

    Shapes: returns (n,).
    """
    if n < 0:
        raise ArgumentError("randperm", "n must be at least 0", f"got {n}")
    wanted = dtypes.resolve(dtype or int64, "randperm")
    dtypes.fitting("randperm", max(n - 1, 0), wanted)

    def make(words: Words) -> Array:
        return np.argsort(_long_words(words), kind="stable").astype(np.int64)

    return drawn(generator, 2 * n, make, wanted, device)


@public
def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """``rand`` with the shape, dtype and device of ``input``; ``memory_format`` changes nothing.

    Shapes: any; returns the same.
    """
    check_memory_format("rand_like", memory_format)
    dtype, device = dtype or input.dtype, device or input.backend
    return rand(input.shape, generator=generator, dtype=dtype, device=device, requires_grad=requires_grad)


@public
def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Target = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """``randn`` with the shape, dtype and device of ``input``; ``memory_format`` changes nothing.

    Shapes: any; returns the same.
    """
    check_memory_format("randn_like", memory_format)
    dtype, device = dtype or input.dtype, device or input.backend
    return randn(input.shape, generator=generator, dtype=dtype, device=device, requires_grad=requires_grad)


@public(method=True)
def uniform_(input: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with uniform numbers in [a, b), outside autograd. Returns it.

    Shapes: any; returns the same.
    """
    shape = input.shape
    return fill_drawn(input, generator, prod(shape), lambda words: a + (b - a) * uniform_of(words, shape))


@public(method=True)
def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill ``input`` with normal numbers, outside autograd. Returns it.

    Shapes: any; returns the same.
    """
    if std < 0:
        raise ArgumentError("normal_", "std must be at least 0", f"got {std}")
    shape = input.shape
    return fill_drawn(input, generator, normal_words(shape), lambda words: mean + std * normal_of(words, shape))


def fill_drawn(input: Tensor, generator: Generator | None, count: int, make: Callable[[Words], Array]) -> Tensor:
    """Write the values that ``make`` makes of ``count`` words into ``input``, outside autograd. Returns it."""
    with no_grad():
        return input.copy_(drawn(generator, count, make, input.dtype, input.backend))
