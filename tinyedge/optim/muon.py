"""Muon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from tinyedge.dtypes import bfloat16
from tinyedge.errors import ArgumentError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import Sample, Step
from tinyedge.kernels.gemm import gemm_kernels
from tinyedge.kernels.matrix import Matrix
from tinyedge.ops.rows import shared_rows, walking
from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule

TEMPLATE = "muon.cl.jinja"

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic of one iteration: they bring singular values near 1 fastest, without reaching it."""

RATES = ("original", "match_rms_adamw", "spectral_unclamped")


def _ratio(rows: int, columns: int, adjusted: str | None) -> float:
    """By what the rate is multiplied, for a matrix of this shape."""
    if adjusted == "match_rms_adamw":
        return float(0.2 * np.sqrt(max(rows, columns)))
    if adjusted == "spectral_unclamped":
        return float(np.sqrt(rows / columns))
    return float(np.sqrt(max(1, rows / columns)))


def _rounded(x: Any) -> Any:
    """Rounded to bfloat16."""
    return bfloat16.unpack(bfloat16.pack(x.astype(np.float32))).astype(x.dtype)


def _scratch(real: str, count: int, square: int, rows: int) -> dict[str, Scratch]:
    """What lies between the kernels: matrices of the parameter's ``count`` elements, and square ones."""
    sizes = {
        "x": count, "x_again": count, "gram": square, "gram_again": square, "gram_square": square, "quintic": square,
        "grown": count, "sums": rows, "size": 1,
    }  # fmt: skip
    return {name: Scratch(name, real, max(numel, 1)) for name, numel in sizes.items()}


class MuonUpdate(Update):
    """``step_size`` is the rate before it is adjusted to the shape, ``fresh`` is 1 - momentum, and ``c0``, ``c1``,
    ``c2`` are the quintic's coefficients. Products are rounded to bfloat16, as in PyTorch: of a gradient of low rank
    the iteration makes large what rounding put there, so that another rounding would make another update.
    """

    signature = "(),(),()->(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "momentum_buffer": (-4.0, 4.0)}
    scalars = dict.fromkeys(("scale", "fresh", "decay", "step_size", "eps", "c0", "c1", "c2"), "real")
    variants = {"nesterov": (False, True), "steps": (1, 2), "adjusted": (None, *RATES)}
    strided = False

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        rows, columns = step.slots["param"].shape
        count, short, long = rows * columns, min(rows, columns), max(rows, columns)
        real, square = step.slots["grad"].dtype.ctype, short * short
        scratch = _scratch(real, count, square, rows)
        sizes = {"count": count, "square": square, "rows": rows, "columns": columns}
        found: list[KernelSpec] = []

        def kernel(name: str, buffers: Sequence[str], scalars: Sequence[str] = (), **constants: Any) -> None:
            stated: dict[str, Any] = {}
            lines = {"muon_sums": (rows, columns), "muon_size": (1, rows)}.get(name)
            constants |= {"real": real}
            if lines is None:
                items = square if name in ("muon_round", "muon_quintic") else count
                extent, group = grid(items, device.group())
            else:
                lanes = 1 if device.is_cpu else device.group()
                extent, group, walk = (lines[0] * lanes,), (lanes,), walking(lines[1], lanes, 1)
                constants |= walk
                stated = shared_rows(real, walk)
            used = {scalar: cls.scalars[scalar] for scalar in scalars}
            found.append(
                KernelSpec(name, TEMPLATE, tuple(buffers), extent, group, sizes, used, constants=constants, **stated)
            )

        def product(a: Matrix, b: Matrix, c: Matrix, m: int, n: int, k: int) -> None:
            parts = gemm_kernels(device, a, b, c, m, n, k, ctype=real, scratch=tuple(scratch.values()))
            for spec in parts:
                for each in spec.scratch:  # a product's own: the largest of its iterations
                    if each.name not in scratch or scratch[each.name].numel < each.numel:
                        scratch[each.name] = each
            found.extend(parts)

        across = (1, columns) if rows > columns else (columns, 1)  # strides of the matrix as it lies, or transposed
        x, again = (Matrix(name, *across) for name in ("x", "x_again"))
        grown = Matrix("grown", *across)
        gram, gram_again, gram_square, quintic = (
            Matrix(name, short, 1) for name in ("gram", "gram_again", "gram_square", "quintic")
        )
        kernel(
            "muon_direction", ("grad", "momentum_buffer", "new_momentum_buffer", "x"), ("scale", "fresh"),
            nesterov=step.attrs["nesterov"],
        )  # fmt: skip
        kernel("muon_sums", ("x", "sums"))
        kernel("muon_size", ("sums", "size"), ("eps",))
        kernel("muon_shrink", ("x", "size", "x_again"))
        for _ in range(step.attrs["steps"]):
            product(x, again.T, gram, short, short, long)
            kernel("muon_round", ("gram", "gram_again"))
            product(gram, gram_again, gram_square, short, short, short)
            kernel("muon_quintic", ("gram", "gram_square", "quintic"), ("c1", "c2"))
            product(quintic, x, grown, short, long, short)
            kernel("muon_grow", ("x", "grown", "x_again"), ("c0",))
        outputs = tuple(name for name in step.writes if name in ("new_param", "new_grad", "new_rounded"))
        ratio = repr(_ratio(rows, columns, step.attrs["adjusted"]))
        kernel("muon_step", ("param", "x", *outputs), ("decay", "step_size"), ratio=f"((real){ratio})")
        return [replace(spec, scratch=tuple(scratch.values())) for spec in found]

    @staticmethod
    def forward(
        param: Any, grad: Any, momentum_buffer: Any, *, scale: float, fresh: float, decay: float, step_size: float,
        eps: float, c0: float, c1: float, c2: float, nesterov: bool, steps: int, adjusted: str | None,
    ) -> Any:  # fmt: skip
        g = grad * scale
        momentum_buffer = momentum_buffer + (g - momentum_buffer) * fresh
        x = _rounded(momentum_buffer + (g - momentum_buffer) * fresh if nesterov else momentum_buffer)
        wide = param.shape[0] <= param.shape[1]
        x = x if wide else x.T
        size = _rounded(np.sqrt(np.square(x).sum(keepdims=True)))
        x = _rounded(x / np.where(size < eps, _rounded(np.full_like(size, eps)), size))
        for _ in range(steps):
            gram = _rounded(x @ x.T)
            x = _rounded(c0 * x + _rounded(c1 * gram + c2 * (gram @ gram)) @ x)
        x = x if wide else x.T
        new = param * decay - x * (step_size * _ratio(param.shape[0], param.shape[1], adjusted))
        return new.astype(param.dtype), np.zeros_like(grad), momentum_buffer

    @classmethod
    def sample(cls, random: Random) -> Sample:
        attrs: dict[str, Any] = {name: random.choice(values) for name, values in cls.variants.items()}
        attrs |= {name: round(random.uniform(0.1, 0.9), 3) for name in cls.scalars}
        attrs |= {"step_size": 1e-4, "eps": 1e-7}  # sums in another order round to other bfloat16s
        shape = (random.choice((1, 2, 3, 5, 17)), random.choice((1, 2, 3, 5, 17)))
        return Sample((shape,) * 3, attrs)


class Muon(Optimizer):
    """Momentum, orthogonalised: all singular values of an update of a matrix are near 1. For the matrices inside a
    network; biases, embeddings and the last layer are for another optimizer.

    Options (a group may have its own, and they may change between steps):
        lr: learning rate, before it is adjusted to the matrix' shape; 1e-3.
        weight_decay: shrinks the parameter by ``lr * weight_decay``; 0.1.
        momentum: decay per update of the average of the gradient; 0.95.
        nesterov: use the average as it will be with this gradient once more; True.
        ns_coefficients: of the quintic in x that each iteration applies to the singular values;
            (3.4445, -4.7750, 2.0315).
        eps: what the gradient's norm is at least; 1e-7.
        ns_steps: the iterations; 5.
        adjust_lr_fn: "original" (None): the rate grows by the root of rows / columns where that is above 1;
            "match_rms_adamw": by a fifth of the root of the larger; "spectral_unclamped": by the root in any case.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Errors: ArgumentError if a parameter is no matrix.
    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.require_at_least_zero(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if adjust_lr_fn not in (None, *RATES):
            raise ArgumentError("Muon", f"adjust_lr_fn must be None or one of {RATES}", f"got {adjust_lr_fn!r}")
        if len(ns_coefficients) != 3:
            raise ArgumentError("Muon", "three ns_coefficients", f"got {ns_coefficients}")
        if not 0 <= ns_steps < 100:
            raise ArgumentError("Muon", "ns_steps from 0 to 99", f"got {ns_steps}")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
        }  # fmt: skip
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.ndim != 2:
                del self.param_groups[-1]
                raise ArgumentError(
                    "Muon", "parameters that are matrices", f"got one of shape {param.shape}",
                    "Give the others to another optimizer, such as AdamW.",
                )  # fmt: skip

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        c0, c1, c2 = group["ns_coefficients"]
        scalars = {
            "fresh": 1 - group["momentum"], "decay": 1 - group["lr"] * group["weight_decay"],
            "step_size": group["lr"], "eps": group["eps"], "c0": c0, "c1": c1, "c2": c2,
        }  # fmt: skip
        attrs = {"nesterov": group["nesterov"], "steps": group["ns_steps"], "adjusted": group["adjust_lr_fn"]}
        return Rule(MuonUpdate, scalars, attrs)
