"""Rotary position embedding, and the frequencies of its variants for longer contexts.

Source: Su et al., RoFormer, arXiv:2104.09864; YaRN: Peng et al., arXiv:2309.00071; Llama 3: arXiv:2407.21783.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge.autograd.registry import public
from tinyedge.dtypes import float32
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, grid
from tinyedge.ir.step import ErrorSample, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.indices import check_index
from tinyedge.shapes import Shape, contiguous_strides, normalize_axis
from tinyedge.tensor import Tensor, call, tensor

Array = np.ndarray[Any, Any]
Frequencies = npt.NDArray[np.float64]
NAME = "rotary_embedding"
REQUIRED, OPTIONAL = "required", "optional"
SCALINGS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": REQUIRED},
    "llama3": dict.fromkeys(
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), REQUIRED
    ),
    "yarn": {
        **dict.fromkeys(("factor", "original_max_position_embeddings"), REQUIRED),
        **dict.fromkeys(
            ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"), OPTIONAL
        ),
    },
    "divided": {"divisors": REQUIRED},
}
"""The parameters of each kind of scaling, as in the configurations of Hugging Face's models."""


def _llama3(frequencies: Frequencies, scaling: Mapping[str, Any]) -> Frequencies:
    """Long waves are stretched by the factor, short ones stay, and those between are a mean of both."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray((1 - share) * frequencies / scaling["factor"] + share * frequencies)


def _yarn(frequencies: Frequencies, dim: int, base: float, scaling: Mapping[str, Any]) -> tuple[Frequencies, float]:
    factor, length = scaling["factor"], scaling["original_max_position_embeddings"]

    def feature_of(turns: float) -> float:
        """The pair that makes so many turns in the original context."""
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = feature_of(scaling.get("beta_fast") or 32), feature_of(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    stretched = np.clip((np.arange(dim // 2) - first) / (last - first if last != first else 1e-3), 0, 1)

    def attention(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    given, one, other = (scaling.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is None:
        given = attention(one) / attention(other) if one and other else attention(1.0)
    return stretched * frequencies / factor + (1 - stretched) * frequencies, float(given)


def rotary_frequencies(dim: int, base: float, scaling: Mapping[str, Any] | None) -> tuple[Frequencies, float]:
    """The angle of each pair at position 1, and the factor of all results.

    Errors: ArgumentError for a scaling that is not known, or whose numbers give angles that are none.
    """
    with np.errstate(all="ignore"):
        frequencies, factor = _scaled(base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim), dim, base, scaling)
    if not (np.isfinite(frequencies).all() and (frequencies > 0).all() and math.isfinite(factor)):
        raise ArgumentError(
            NAME, "a base and a scaling that give finite angles above 0", f"got base {base} and scaling {scaling}"
        )
    return frequencies, factor


def _scaled(
    frequencies: Frequencies, dim: int, base: float, scaling: Mapping[str, Any] | None
) -> tuple[Frequencies, float]:
    if scaling is None:
        return frequencies, 1.0
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in SCALINGS:
        raise ArgumentError(NAME, f"scaling of a rope_type of {', '.join(SCALINGS)}", f"got {kind!r}")
    wanted, given = SCALINGS[kind], {name for name in scaling if name not in ("rope_type", "type")}
    missing = [name for name, need in wanted.items() if need == REQUIRED and name not in given]
    if missing or given - set(wanted):
        raise ArgumentError(
            NAME,
            f"scaling {kind!r} takes {', '.join(wanted) or 'nothing'}",
            f"got {', '.join(sorted(given)) or 'none'}",
        )
    if kind == "linear":
        return frequencies / scaling["factor"], 1.0
    if kind == "divided":
        divisors = np.asarray(scaling["divisors"], np.float64)
        if divisors.shape != frequencies.shape or not (divisors > 0).all():
            raise ArgumentError(NAME, f"{frequencies.size} divisors above 0", f"got them of shape {divisors.shape}")
        return frequencies / divisors, 1.0
    if kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    return _yarn(frequencies, dim, base, scaling) if kind == "yarn" else (frequencies, 1.0)


class RotaryEmbedding(Op):
    signature = "(...),(...)?,(k)->(...)"
    operations = 6
    domain = {"x": (-4.0, 4.0), "frequencies": (0.01, 1.0)}
    differentiable = ("x",)
    saves = ("positions", "frequencies")
    scalars = {"offset": "int", "factor": "real"}
    atol = 1e-5  # cosines of angles that are rounded
    errors = (
        ErrorSample(lambda te: te.nn.functional.rotary_embedding(te.zeros(2, 3)), ShapeError, "an even number"),
        ErrorSample(
            lambda te: te.nn.functional.rotary_embedding(te.zeros(2, 4), te.tensor([1])), ShapeError, "positions"
        ),
        ErrorSample(
            lambda te: te.nn.functional.rotary_embedding(te.zeros(2, 4), scaling={"rope_type": "other"}),
            ArgumentError,
            "rope_type",
        ),
    )

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x = inputs[0]
        assert x is not None
        return (x,)

    @classmethod
    def walks(cls, strides: Shape) -> bool:
        """Rows that lie anywhere, as those of a gradient from attention, whose heads come before their positions."""
        return len(strides) > 2 and strides[-1] == 1

    @classmethod
    def _kernel(cls, step: Step, device: Device, source: str, target: str, turn: int) -> list[KernelSpec]:
        slot, positions = step.slots[target], step.slots["positions"]
        given = step.slots[source]
        shape, axis = slot.shape, step.attrs["seq_dim"]
        half = step.slots["frequencies"].numel
        items, rows = shape[-1] - half, prod(shape[:-1])
        inner = prod(shape[axis + 1 : -1])
        # How far apart the rows of one position lie; 0 if it differs.
        heads, apart = shape[axis + 1 : -1], given.strides[axis + 1 : -1]
        row_step = apart[-1] if apart and apart == tuple(n * apart[-1] for n in contiguous_strides(heads)) else 0
        # A GPU has no work-item to spare, and sines for nothing.
        together = device.is_cpu and inner > 1 and row_step > 0
        groups = rows // inner if together else rows
        buffers = (source, *(("positions",) if positions is not None else ()), "frequencies", target)
        sizes = {
            "count": groups * items,
            "items": items,
            "features": shape[-1],
            "half_features": half,
            "inner": inner,
            "length": shape[axis],
            "lead_rank": len(shape) - 1,
            "row_step": row_step,
            "rows_of_entry": groups // max(shape[0], 1),
        }
        return [
            KernelSpec(
                "rotary_embedding",
                "rotary_embedding.cl.jinja",
                buffers,
                *grid(groups * items, device.group()),
                sizes,
                {name: ctype for name, ctype in cls.scalars.items() if name == "factor" or positions is None},
                {} if given.contiguous else {"lead": shape[:-1], "steps": given.strides[:-1]},
                constants={
                    "real": slot.dtype.ctype,
                    "source": source,
                    "target": target,
                    "turn": turn,
                    "together": together,
                    "interleaved": step.attrs["interleaved"],
                    "strided": not given.contiguous,
                    "batched": positions is not None and len(positions.shape) == 2,
                },
                hooked=(source, target) if given.contiguous else (target,),
                in_place={target: (source,)} if given.contiguous else {},
            )
        ]

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, "x", "y", 1)

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        return cls._kernel(step, device, "dy", "dx", -1)

    @staticmethod
    def _turned(
        x: Array, positions: Any, frequencies: Array, interleaved: bool, seq_dim: int, offset: int, factor: float,
        turn: int,
    ) -> Array:  # fmt: skip
        length, half = x.shape[seq_dim], len(frequencies)
        places = (np.arange(length) + offset if positions is None else positions).astype(x.dtype)
        angles = places[..., None] * frequencies.astype(x.dtype)
        lead = x.shape[:1] if places.ndim == 2 else ()
        between = (1,) * (seq_dim - len(lead))
        angles = angles.reshape(*lead, *between, length, *(1,) * (x.ndim - 2 - seq_dim), half)
        c, s = np.cos(angles) * x.dtype.type(factor), np.sin(angles) * x.dtype.type(factor * turn)
        first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
        second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
        y: Array = x.copy()
        y[..., first] = x[..., first] * c - x[..., second] * s
        y[..., second] = x[..., second] * c + x[..., first] * s
        return y

    @staticmethod
    def forward(
        x: Array, positions: Any, frequencies: Array, *,
        interleaved: bool, seq_dim: int, offset: int, factor: float,
    ) -> Array:  # fmt: skip
        return RotaryEmbedding._turned(x, positions, frequencies, interleaved, seq_dim, offset, factor, 1)

    @staticmethod
    def backward(
        dy: Array, positions: Any, frequencies: Array, *,
        interleaved: bool, seq_dim: int, offset: int, factor: float,
    ) -> tuple[Array]:  # fmt: skip
        return (RotaryEmbedding._turned(dy, positions, frequencies, interleaved, seq_dim, offset, factor, -1),)

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5)) for _ in range(random.randint(1, 3)))
        half = random.choice((1, 2, 5))
        seq_dim = random.randrange(len(shape))
        batched: Shape = (shape[0], shape[seq_dim]) if seq_dim else (shape[seq_dim],)
        positions = random.choice((None, (shape[seq_dim],), batched))
        attrs = {"interleaved": random.random() < 0.5, "seq_dim": seq_dim, "offset": random.choice((0, 7))}
        features = 2 * half + random.choice((0, 0, 3))
        return Sample(
            ((*shape, features), positions, (half,)), {**attrs, "factor": random.choice((1.0, 1.3))}, {"positions": 50}
        )


@public(functional=True)
def rotary_embedding(
    input: Tensor,
    positions: Tensor | None = None,
    base: float = 10000.0,
    *,
    dim: int | None = None,
    interleaved: bool = False,
    offset: int = 0,
    scaling: Mapping[str, Any] | None = None,
    seq_dim: int = -2,
) -> Tensor:
    """Pairs of features turned by angles that grow with the position: pair j by ``position * base ** (-2 j / dim)``.

    A pair is (j, j + dim / 2), as in Hugging Face's Llama, or with ``interleaved`` (2 j, 2 j + 1). Only the first
    ``dim`` features are turned, all if it is None. Positions are ``offset``, ``offset + 1``, ... along ``seq_dim``
    unless ``positions`` names them. ``scaling`` is what models' configurations call rope_scaling, with a rope_type of
    "linear", "llama3" or "yarn" and its parameters; or "divided", with ``divisors`` of the frequencies, one a pair.

    Shapes: input (..., length, features), or length at ``seq_dim``; positions (length,) or (batch, length) of int64 or
            int32; returns input's shape.
    Saves:  positions: the gradient is turned back.
    Errors: ShapeError if ``dim`` is odd or the positions do not fit; ArgumentError for parameters that the scaling
            does not have.
    Source: Su et al., RoFormer, arXiv:2104.09864; YaRN: Peng et al., arXiv:2309.00071.
    """
    if not input.is_floating_point():
        raise DtypeError(NAME, "a floating-point input", f"got {input.dtype.name}", "Convert it with .float().")
    if input.ndim < 2:
        raise ShapeError(NAME, "an input (..., length, features)", f"got {input.shape}")
    seq_dim = normalize_axis(NAME, seq_dim, input.ndim)
    if seq_dim == input.ndim - 1:
        raise ArgumentError(NAME, "seq_dim must not be the dim of the features", f"got {seq_dim}")
    width = input.shape[-1] if dim is None else dim
    if not 0 < width <= input.shape[-1] or width % 2:
        raise ShapeError(NAME, "an even number of features to be turned, at most the input's", f"got {width}")
    length = input.shape[seq_dim]
    if positions is not None:
        check_index(NAME, positions._slot.spec)
        if offset:
            raise ArgumentError(NAME, "either positions or an offset", f"got both, offset={offset}")
        allowed = [(length,)] + ([(input.shape[0], length)] if seq_dim else [])
        if positions.shape not in allowed:
            raise ShapeError(NAME, f"positions of shape {' or '.join(map(str, allowed))}", f"got {positions.shape}")
    if not base > 0:
        raise ArgumentError(NAME, "base must be above 0", f"got {base}")
    values, factor = rotary_frequencies(width, base, scaling)
    dtype = input.dtype.computes
    frequencies = tensor(values.astype(np.float32), dtype=dtype if dtype is not float32 else None, device=input.backend)
    return call(
        RotaryEmbedding,
        input,
        positions,
        frequencies,
        scalars={"offset": int(offset), "factor": factor},
        interleaved=bool(interleaved),
        seq_dim=seq_dim,
    )
