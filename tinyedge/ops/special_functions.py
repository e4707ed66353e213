"""Special functions that no device has built in: digamma and its derivatives, the inverse of erf, Bessel functions.

Also what is composed of these, by the names of ``te.special``.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any, ClassVar

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.autograd.registry import also, functions, public
from tinyedge.errors import ArgumentError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.activation import sigmoid
from tinyedge.ops.exponential import erfc, log1p
from tinyedge.ops.promotion import Operand, as_floating, as_operand, float_dtype, prepared, require_tensors, unary
from tinyedge.ops.selection import where
from tinyedge.ops.unary import log
from tinyedge.ops.with_gradient import with_gradient
from tinyedge.tensor import Tensor, call

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
"""The Bernoulli numbers 2, 4, 6, ..."""


def _horner(coefficients: Any, variable: str) -> str:
    """A polynomial as an expression, the constant first."""
    *others, last = (f"(real){float(c)!r}" for c in coefficients)
    text = last
    for coefficient in reversed(others):
        text = f"({coefficient} + {variable} * {text})"
    return f"({text})"


def _polynomial(coefficients: Any, x: Any) -> Any:
    total = 0 * x
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def _series(order: int) -> list[float]:
    """The coefficients of powers of ``1 / z ** 2`` in the asymptotic series, after its first terms."""
    if order == 0:
        return [b / (2 * j) for j, b in enumerate(BERNOULLI, 1)]
    found, rising = [], float(order * (order + 1))  # order (order + 1) ... (order + 2 j - 1)
    for j, b in enumerate(BERNOULLI, 1):
        found.append(b * rising / math.factorial(2 * j))
        rising *= (order + 2 * j) * (order + 2 * j + 1)
    return found


class Special(Op):
    """Base of these ops: one output element of each input element, by a loop."""

    domain = {"x": (0.5, 6.0)}
    operations = 40
    differentiable: ClassVar[tuple[str, ...]] = ("x",)
    saves = ("x",)

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        (x,) = inputs
        assert x is not None
        return (x,)

    @classmethod
    def kernel(cls, step: Step, device: Device, kernel: str, times: bool, **constants: Any) -> list[KernelSpec]:
        slot = step.slots["x"]
        buffers = ("dy", "x", "dx") if times else ("x", "y")
        return [
            KernelSpec(
                kernel, "special.cl.jinja", buffers, *grid(slot.numel, device.group()), {"count": slot.numel},
                constants={"real": slot.dtype.ctype, "times": times, **constants}, hooked=buffers,
            )
        ]  # fmt: skip

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 17)) for _ in range(random.randint(0, 3)))
        return Sample((shape,), cls.drawn(random))


def _polygamma(x: Any, order: int) -> Any:
    """In float64, element by element."""
    series = _series(order)

    def one(value: float) -> float:
        if math.isnan(value) or value < -1e6:
            return math.nan
        is_pole = value <= 0 and value == math.floor(value)
        total, z = 0.0, value
        if order == 0:
            if is_pole:
                return math.copysign(math.inf, -value) if value == 0 else math.nan
            if value == math.inf:
                return math.inf
            if value < 0:
                total, z = -math.pi / math.tan(math.pi * (value - round(value))), 1 - value
            while z < 10:
                total -= 1 / z
                z += 1
            return float(total + math.log(z) - 0.5 / z) - float(_polynomial(series, 1 / z**2)) / z**2
        if is_pole:
            return math.inf if order % 2 else -math.inf
        if value == math.inf:
            return 0.0
        k = 0
        while k < 9 or z <= 9:
            total += z ** -(order + 1)
            k, z = k + 1, z + 1
        total += z**-order / order * (1 + float(_polynomial(series, 1 / z**2)) / z**2) + 0.5 * z ** -(order + 1)
        return float(total * (-1) ** (order + 1) * math.factorial(order))

    return np.vectorize(one, otypes=[x.dtype])(x.astype(np.float64))


class Polygamma(Special):
    """The derivative number ``order`` of digamma."""

    signature = "()->()"
    choices = {"order": (0, 1, 2)}
    rtol = 1e-4  # sums of ten terms
    errors = (
        ErrorSample(lambda te: te.polygamma(-1, te.zeros(2)), ArgumentError, "at least 0"),
        ErrorSample(lambda te: te.polygamma(1.5, te.zeros(2)), ArgumentError, "an int"),
    )

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, step.attrs["order"], False)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, step.attrs["order"] + 1, True)

    @classmethod
    def _kernel(cls, step: Step, device: Device, order: int, times: bool) -> list[KernelSpec]:
        factor = (-1.0) ** (order + 1) * math.factorial(order)
        return cls.kernel(
            step, device, "polygamma", times, order=order, factor=factor, series=_horner(_series(order), "w")
        )

    @staticmethod
    def forward(x: Any, *, order: int) -> Any:
        return _polygamma(x, order)

    @staticmethod
    def backward(dy: Any, x: Any, *, order: int) -> Any:
        return (dy * _polygamma(x, order + 1),)


@public(method=True, inplace=True, space="special")
def digamma(input: Tensor) -> Tensor:
    """The slope of ``lgamma``.

    Shapes: any; returns the same.
    """
    require_tensors("digamma", input)
    return call(Polygamma, as_floating(input), order=0)


special_psi = also("special_psi", digamma, "special")


@public(space="special")
def polygamma(n: int, input: Tensor) -> Tensor:
    """The derivative number ``n`` of ``digamma``; 0 is digamma itself. Below -1,000,000 it is NaN.

    Shapes: any; returns the same.
    Errors: ArgumentError unless n is an int of at least 0, and at most 30.
    """
    require_tensors("polygamma", input)
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or not 0 <= n <= 30:
        raise ArgumentError("polygamma", "n must be an int of at least 0, and at most 30", f"got {n}")
    return call(Polygamma, as_floating(input), order=int(n))


class Lgamma(Elementwise):
    signature = "()->()"
    domain = {"x": (0.5, 6.0)}
    saves = ("x",)
    kernel_forward = {"y": "lgamma(x)"}
    kernel_backward = {"dx": "dy"}  # times digamma, by a template of its own
    rtol = 1e-4
    atol = 1e-5

    @classmethod
    def saves_for(cls, needed: frozenset[str]) -> tuple[str, ...]:
        return cls.saves

    @classmethod
    def gradient_view(cls, *args: Any) -> None:
        return None

    @classmethod
    def walks(cls, strides: Any) -> bool:
        return False  # the gradient's kernel reads the saved input in order

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return Special.kernel(step, device, "polygamma", True, order=0, factor=1.0, series=_horner(_series(0), "w"))

    @staticmethod
    def forward(x: Any) -> Any:
        def one(value: float) -> float:
            if math.isinf(value) or (value <= 0 and value == math.floor(value)):
                return math.inf
            return math.nan if math.isnan(value) else math.lgamma(value)

        return np.vectorize(one, otypes=[x.dtype])(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * _polygamma(x, 0),)


@public(method=True, inplace=True)
def lgamma(input: Tensor) -> Tensor:
    """The logarithm of the size of the gamma function."""
    return unary(Lgamma, input)


special_gammaln = also("special_gammaln", lgamma, "special")


@public(top=False, space="special")
def special_multigammaln(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension ``p``.

    Shapes: any; returns the same.
    Errors: ArgumentError if p < 1. Where input is not above (p - 1) / 2 there is no such value: it means nothing.
    """
    return _mvlgamma("multigammaln", input, p)


@public(method=True, inplace=True)
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension ``p``.

    Shapes: any; returns the same.
    Errors: ArgumentError if p < 1. Where input is not above (p - 1) / 2 there is no such value: it means nothing.
    """
    return _mvlgamma("mvlgamma", input, p)


def _mvlgamma(name: str, input: Tensor, p: int) -> Tensor:
    if p < 1:
        raise ArgumentError(name, "p must be at least 1", f"got {p}")
    require_tensors(name, input)
    x = as_floating(input)
    total = lgamma(x)
    for k in range(1, p):
        total = total + lgamma(x - k / 2)
    return total + p * (p - 1) / 4 * math.log(math.pi)  # composed


NEAR = (
    (0.886226899, -1.645349621, 0.914624893, -0.140543331),
    (1.0, -2.118377725, 1.442710462, -0.329097515, 0.012229801),
)
FAR = ((-1.970840454, -1.624906493, 3.429567803, 1.641345311), (1.0, 3.543889200, 1.637067800))


def _erfinv(x: Any) -> Any:
    size = np.abs(x).astype(np.float64)
    inside = np.where(size < 1, size, 0.0)
    z = np.sqrt(-np.log((1 - inside) / 2))
    near, far = (_polynomial(a, v) / _polynomial(b, v) for (a, b), v in ((NEAR, inside**2), (FAR, z)))
    y = np.where(inside <= 0.7, inside * near, far)
    for _ in range(2):
        erf = np.vectorize(math.erf, otypes=[np.float64])(y)
        y = y - (erf - inside) / (2 / math.sqrt(math.pi) * np.exp(-y * y))
    y = np.where(size == 1, np.inf, np.where(size < 1, y, np.nan))
    return np.copysign(y, x).astype(x.dtype)


class Erfinv(Special):
    signature = "()->()"
    domain = {"x": (-0.9, 0.9)}
    rtol = 1e-4

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, False)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, True)

    @classmethod
    def _kernel(cls, step: Step, device: Device, times: bool) -> list[KernelSpec]:
        near, far = (tuple(_horner(part, "z") for part in parts) for parts in (NEAR, FAR))
        return cls.kernel(step, device, "erfinv", times, near=near, far=far)

    @staticmethod
    def forward(x: Any) -> Any:
        return _erfinv(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * (math.sqrt(math.pi) / 2 * np.exp(_erfinv(x) ** 2)).astype(dy.dtype),)


@public(method=True, inplace=True, space="special")
def erfinv(input: Tensor) -> Tensor:
    """The number of which ``erf`` is ``input``; NaN outside [-1, 1].

    Shapes: any; returns the same.
    """
    require_tensors("erfinv", input)
    return call(Erfinv, as_floating(input))


LIMIT, TERMS, FAR_TERMS = {"float": 12, "double": 30}, {"float": 40, "double": 80}, {"float": 9, "double": 26}
"""Of Bessel functions: from where on the asymptotic series serves, and how many terms either takes."""


def _bessel(x: Any, order: int, scaled: bool) -> Any:
    size = np.abs(x).astype(np.float64)
    near = np.minimum(size, 30.0)
    term, total = np.ones_like(size) if order == 0 else near / 2, np.zeros_like(size)
    for k in range(1, 80):
        total = total + term
        term = term * near**2 / 4 / (k * (k + order))
    total = total * np.exp(-near)
    far, other, term = np.maximum(size, 30.0), np.zeros_like(size), np.ones_like(size)
    for k in range(1, 26):
        other = other + term
        term = term * ((2 * k - 1) ** 2 - 4 * order**2) / (8 * far * k)
    result = np.where(size < 30, total, other / np.sqrt(2 * math.pi * far))
    if not scaled:
        result = result * np.exp(size / 2) * np.exp(size / 2)
    return (result * (np.sign(x) if order else 1)).astype(x.dtype)


class Bessel(Special):
    """The modified Bessel function of the first kind, of the attribute ``order`` 0 or 1; ``scaled`` by exp(-|x|)."""

    signature = "()->()"
    domain = {"x": (-6.0, 6.0)}
    choices = {"order": (0, 1), "scaled": (False, True)}
    differentiable = ()
    rtol = 1e-4

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        ctype = step.slots["x"].dtype.ctype
        return cls.kernel(
            step, device, "bessel", False, limit=LIMIT[ctype], terms=TERMS[ctype], far_terms=FAR_TERMS[ctype],
            **step.attrs,
        )  # fmt: skip

    @staticmethod
    def forward(x: Any, *, order: int, scaled: bool) -> Any:
        return _bessel(x, order, scaled)


def _i(name: str, input: Tensor, order: int, scaled: bool) -> Tensor:
    require_tensors(name, input)
    x = as_floating(input)
    plain = x.detach()
    value = call(Bessel, plain, order=order, scaled=scaled)

    def slope() -> Tensor:
        other = call(Bessel, plain, order=1 - order, scaled=scaled)
        if order == 1:
            zero = plain == 0
            other = where(zero, 0.5, other - value / where(zero, 1.0, plain))
        return other - functions["sign"](plain) * value if scaled else other

    formula = f"i{order}{'e' if scaled else ''}"
    return with_gradient(value, x * slope(), formula, x) if x.requires_grad else value


@public(method=True, inplace=True, space="special")
def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, of order 0.

    Shapes: any; returns the same.
    """
    return _i("i0", input, 0, False)


@public(top=False, space="special")
def special_i0e(input: Tensor) -> Tensor:
    """``i0(input) * exp(-abs(input))``, without overflow.

    Shapes: any; returns the same.
    """
    return _i("i0e", input, 0, True)


@public(top=False, space="special")
def special_i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind, of order 1.

    Shapes: any; returns the same.
    """
    return _i("i1", input, 1, False)


@public(top=False, space="special")
def special_i1e(input: Tensor) -> Tensor:
    """``i1(input) * exp(-abs(input))``, without overflow.

    Shapes: any; returns the same.
    """
    return _i("i1e", input, 1, True)


SINC = tuple((-1) ** k * 2 * k * math.pi ** (2 * k) / math.factorial(2 * k + 1) for k in range(1, 9))
"""The coefficients of the series of sinc's derivative, of x, x ** 3, ..."""


class Sinc(Elementwise):
    signature = "()->()"
    domain = {"x": (-3.0, 3.0)}
    saves = ("x",)
    rtol = 1e-4
    kernel_forward = {"y": "WHERE(x == 0, 1, sinpi(x) / ((real)3.14159265358979324 * WHERE(x == 0, 1, x)))"}
    kernel_backward = {  # near 0 by its series: the difference would cancel
        "dx": f"dy * WHERE(fabs(x) < (real)0.2, (x * {_horner(SINC, '(x * x)')}), "
        "(cospi(x) - sinpi(x) / ((real)3.14159265358979324 * WHERE(x == 0, 1, x))) / WHERE(x == 0, 1, x))"
    }

    @staticmethod
    def forward(x: Any) -> Any:
        return np.sinc(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        near = np.abs(x) < 0.2
        there = np.where(near, 1, x)
        slope = np.where(near, x * _polynomial(SINC, x * x), (np.cos(np.pi * there) - np.sinc(there)) / there)
        return ((dy * slope).astype(dy.dtype),)


@public(method=True, inplace=True, space="special")
def sinc(input: Tensor) -> Tensor:
    """``sin(pi * input) / (pi * input)``, and 1 at 0."""
    return unary(Sinc, input)


class Entr(Elementwise):
    signature = "()->()"
    domain = {"x": (0.1, 4.0)}
    saves = ("x",)
    kernel_forward = {"y": "WHERE(x > 0, -x * log(x), WHERE(x == 0, 0, WHERE(x < 0, -INFINITY, x)))"}
    kernel_backward = {"dx": "dy * (-log(x) - 1)"}

    @staticmethod
    def forward(x: Any) -> Any:
        return np.where(x > 0, -x * np.log(np.where(x > 0, x, 1)), np.where(x == 0, 0, np.where(x < 0, -np.inf, x)))

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * (-np.log(x) - 1),)


@public(top=False, space="special")
def special_entr(input: Tensor) -> Tensor:
    """``-input * log(input)``, 0 at 0, and -inf below.

    Shapes: any; returns the same.
    Units:  nats.
    """
    return unary(Entr, input)


class Xlog1py(Elementwise):
    signature = "(),()->()"
    domain = {"a": (-4.0, 4.0), "b": (-0.9, 8.0)}
    saves = ("a", "b")
    kernel_forward = {"y": "WHERE(b != b, b, WHERE(a == 0, 0, a * log1p(b)))"}
    kernel_backward = {"da": "WHERE(a == 0 && b <= -1, 0, dy * log1p(b))", "db": "dy * a / (b + 1)"}

    @staticmethod
    def forward(a: Any, b: Any) -> Any:
        return np.where(np.isnan(b), b, np.where(a == 0, 0, a * np.log1p(b)))

    @staticmethod
    def backward(dy: Any, a: Any, b: Any) -> Any:
        return (np.where((a == 0) & (b <= -1), 0, dy * np.log1p(b)), dy * a / (b + 1))


@public(top=False, space="special")
def special_xlog1py(input: Operand, other: Operand) -> Tensor:
    """``input * log1p(other)``, and 0 where ``input`` is 0.

    Shapes: input and other broadcast; returns what they broadcast to.
    """
    items = [as_operand("xlog1py", item) for item in (input, other)]
    if not isinstance(items[0], Tensor):
        require_tensors("xlog1py", items[1])
    return call(Xlog1py, *prepared("xlog1py", items, float_dtype("xlog1py", *items)))


@public(top=False, space="special")
def special_ndtr(input: Tensor) -> Tensor:
    """The probability that a standard normal number is below ``input``.

    Shapes: any; returns the same.
    """
    require_tensors("ndtr", input)
    return erfc(as_floating(input) * -math.sqrt(0.5)) * 0.5  # composed


WICHURA = (
    (
        (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
         45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
        (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077, 21213.794301586595867,
         39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
    ),
    (
        (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
         1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4),
        (1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550, 0.148103976427480074590,
         0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
    ),
    (
        (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 0.296560571828504891230,
         0.0265321895265761230930, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
        (1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
         7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
    ),
)  # fmt: skip
"""Of the inverse of the normal distribution function, quotients of polynomials: in the middle, the tails, far out."""


def _ndtri(x: Any) -> Any:
    p = x.astype(np.float64)
    inside = np.where((p > 0) & (p < 1), p, 0.5)
    q, t = inside - 0.5, np.sqrt(-np.log(np.minimum(inside, 1 - inside)))
    middle, tail, far = (
        _polynomial(a, v) / _polynomial(b, v)
        for (a, b), v in zip(WICHURA, (0.180625 - q * q, t - 1.6, t - 5), strict=True)
    )
    y = np.where(np.abs(q) <= 0.425, q * middle, np.copysign(np.where(t <= 5, tail, far), q))
    y = np.where(p == 0, -np.inf, np.where(p == 1, np.inf, np.where((p > 0) & (p < 1), y, np.nan)))
    return y.astype(x.dtype)


class Ndtri(Special):
    """The inverse of the normal distribution function. Source: Wichura, Applied Statistics 37 (1988), algorithm 241."""

    signature = "()->()"
    domain = {"x": (1e-3, 0.999)}
    rtol = 1e-4

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, False)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, True)

    @classmethod
    def _kernel(cls, step: Step, device: Device, times: bool) -> list[KernelSpec]:
        middle, tail, far = (" / ".join(_horner(part, "r") for part in parts) for parts in WICHURA)
        return cls.kernel(step, device, "ndtri", times, middle=middle, tail=tail, far=far)

    @staticmethod
    def forward(x: Any) -> Any:
        return _ndtri(x)

    @staticmethod
    def backward(dy: Any, x: Any) -> Any:
        return (dy * (math.sqrt(2 * math.pi) * np.exp(_ndtri(x.astype(np.float64)) ** 2 / 2)).astype(dy.dtype),)


@public(top=False, space="special")
def special_ndtri(input: Tensor) -> Tensor:
    """The inverse of ``ndtr``: below which number a standard normal one is with probability ``input``.

    Shapes: any; returns the same. NaN outside [0, 1].
    """
    require_tensors("ndtri", input)
    return call(Ndtri, as_floating(input))


@public(top=False, space="special")
def special_log_ndtr(input: Tensor) -> Tensor:
    """The logarithm of ``ndtr``, without underflow.

    Shapes: any; returns the same.
    """
    require_tensors("log_ndtr", input)
    x = as_floating(input)
    is_low = x.detach() < -5
    low = where(is_low, x, -6.0)
    # Far below: the continued fraction of Mills' ratio.
    fraction = low
    for k in range(24, 0, -1):
        fraction = low + k / fraction
    below = low * low * -0.5 - log(-fraction) - 0.5 * math.log(2 * math.pi)
    is_middle = x.detach() < -1
    middle = log(erfc(where(is_middle, where(is_low, -1.0, x), -1.0) * -math.sqrt(0.5)) * 0.5)
    above = log1p(erfc(where(is_middle, 0.0, x) * math.sqrt(0.5)) * -0.5)  # exact where the value is near 0
    return where(is_low, below, where(is_middle, middle, above))  # composed


@public(top=False, space="special")
def special_expit(input: Tensor) -> Tensor:
    """As ``sigmoid``.

    Shapes: any; returns the same.
    """
    return sigmoid(input)
