"""Adafactor."""

from __future__ import annotations

from math import prod
from random import Random
from typing import Any

import numpy as np

from tinyedge.errors import ArgumentError
from tinyedge.ir.spec import Device, KernelSpec, Scratch, grid
from tinyedge.ir.step import Sample, Step
from tinyedge.ops.rows import row_launch, shared_rows, walking
from tinyedge.ops.update import Update
from tinyedge.optim.optimizer import Optimizer, Parameters, Rule
from tinyedge.shapes import Shape
from tinyedge.tensor import Tensor

TEMPLATE = "adafactor.cl.jinja"

LINE = 1024
"""Elements of a vector that are summed as a row: parts of a sum run side by side, and keep float32's accuracy."""


class AdafactorUpdate(Update):
    """``row_var`` (..., rows, 1) and ``col_var`` (..., 1, columns) of matrices, ``variance`` of vectors and numbers.

    ``weight`` is that of the new squares, ``rho`` the largest step in units of the parameter's size. An ``eps1`` below
    0 stands for the distance from 1 to the next number of the dtype that it is computed in.
    """

    signature = "(),(),(),(),()->(),(),(),(),()"
    domain = {"param": (-4.0, 4.0), "grad": (-4.0, 4.0), "row_var": (0.1, 4.0), "col_var": (0.1, 4.0)}
    domain |= {"variance": (0.1, 4.0)}
    scalars = dict.fromkeys(("scale", "weight", "rho", "decay", "eps1", "eps2", "d"), "real")
    strided = False

    @classmethod
    def sizes_of(cls, shape: Shape) -> tuple[int, int, int]:
        """Matrices, and their rows and columns; a vector has rows of ``LINE``."""
        if len(shape) > 1:
            return prod(shape[:-2]), shape[-2], shape[-1]
        count = prod(shape)
        return 1, -(-count // LINE), min(count, LINE)

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        shape = step.slots["param"].shape
        count, (matrices, rows, length) = prod(shape), cls.sizes_of(shape)
        real = step.slots["grad"].dtype.ctype
        factored = len(shape) > 1
        sizes = {"count": count, "matrices": matrices, "rows": rows, "columns": length}
        lines = matrices * rows
        scratch = tuple(
            Scratch(name, real, max(numel, 1))
            for name, numel in (
                ("row_sums", lines), ("col", matrices * length), ("means", matrices), ("squares", lines),
                ("direction", count), ("spread", lines), ("totals", 2),
            )
        )  # fmt: skip
        eps = "2.220446049250313e-16" if real == "double" else "1.1920929e-7"

        def kernel(name: str, buffers: tuple[str, ...], lines: int = 0, length: int = 0, items: int = 0) -> KernelSpec:
            constants: dict[str, Any] = {"real": real, "factored": factored, "machine_eps": f"((real){eps})"}
            stated: dict[str, Any] = {}
            if items:
                extent, group = grid(items, device.group())
                constants |= {"lanes": 1, "width": 1}
            else:
                extent, group, walk = row_launch(device, lines, length, together=False)
                if not device.is_cpu and walk["lanes"] == 1 and length > 32:
                    walk = walking(length, device.group(), 1)
                    extent, group = (max(lines, 1) * device.group(),), (device.group(),)
                walk["width"] = 1
                constants |= walk
                stated = shared_rows(real, walk)
            used = {scalar: cls.scalars[scalar] for scalar in SCALARS.get(name, ())}
            return KernelSpec(
                name, TEMPLATE, buffers, extent, group, sizes, used, constants=constants, scratch=scratch, **stated
            )

        of_rows = ("row_var", "new_row_var", "row_sums") if factored else ()
        estimate = ("row_sums", "col", "means") if factored else ("variance", "new_variance")
        found = [kernel("adafactor_rows", ("param", "grad", *of_rows, "squares"), lines, length)]
        if factored:
            of_columns = ("grad", "col_var", "new_col_var", "col")
            found.append(kernel("adafactor_columns", of_columns, items=matrices * length))
            found.append(kernel("adafactor_means", ("row_sums", "means"), matrices, rows))
        found.append(kernel("adafactor_spread", ("grad", *estimate, "direction", "spread"), lines, length))
        found.append(kernel("adafactor_totals", ("squares", "spread", "totals"), 1, lines))
        outputs = tuple(name for name in step.writes if name in ("new_param", "new_grad", "new_rounded"))
        return [*found, kernel("adafactor_step", ("param", "direction", "totals", *outputs), items=count)]

    @staticmethod
    def forward(
        param: Any, grad: Any, row_var: Any, col_var: Any, variance: Any, *, scale: float, weight: float, rho: float,
        decay: float, eps1: float, eps2: float, d: float,
    ) -> Any:  # fmt: skip
        g = grad * scale
        if eps1 < 0:
            eps1 = float(np.finfo(param.dtype).eps)
        alpha = max(eps2, float(np.sqrt(np.mean(np.square(param))))) * rho if param.size else 0.0
        if param.ndim > 1:
            row_var = row_var + (np.mean(g * g, -1, keepdims=True) - row_var) * weight
            col_var = col_var + (np.mean(g * g, -2, keepdims=True) - col_var) * weight
            estimate = row_var * col_var / np.maximum(row_var.mean(-2, keepdims=True), eps1)
        else:
            estimate = variance = variance + (g * g - variance) * weight
        update = g / np.sqrt(np.maximum(estimate, eps1 * eps1))
        shrink = max(1.0, float(np.sqrt(np.mean(np.square(update)))) / d) if param.size else 1.0
        new = (param * decay - update * (alpha / shrink)).astype(param.dtype)
        state = [np.zeros(0, param.dtype) if each is None else each for each in (row_var, col_var, variance)]
        return new, np.zeros_like(grad), *state

    @classmethod
    def infer(cls, *inputs: Any, **attrs: Any) -> Any:
        nothing = inputs[1]._replace(shape=(0,))  # of state that a parameter of this rank has not
        return (*(nothing if spec is None else spec for spec in inputs), inputs[0])

    @classmethod
    def sample(cls, random: Random) -> Sample:
        shape = tuple(random.choice((1, 2, 3, 5, 17)) for _ in range(random.randint(0, 3)))
        attrs: dict[str, Any] = {name: round(random.uniform(0.1, 0.9), 3) for name in cls.scalars}
        attrs["eps1"] = random.choice((-1.0, 1e-3))
        if len(shape) > 1:
            return Sample((shape, shape, (*shape[:-1], 1), (*shape[:-2], 1, shape[-1]), None), attrs)
        return Sample((shape, shape, None, None, shape), attrs)


SCALARS = {
    "adafactor_rows": ("scale", "weight"),
    "adafactor_columns": ("scale", "weight"),
    "adafactor_spread": ("scale", "weight", "eps1"),
    "adafactor_step": ("rho", "decay", "eps2", "d"),
}
"""The numbers that each kernel takes."""


class Adafactor(Optimizer):
    """Steps in units of the parameter's size, by squares of which only sums over rows and columns are kept.

    Options (a group may have its own, and they may change between steps):
        lr: the largest relative step; it is also at most ``1 / sqrt(updates)``; 1e-2.
        beta2_decay: the weight of the new squares is ``updates ** beta2_decay``; -0.8.
        eps: two numbers, what squares are at least (None: the eps of the dtype that it is computed in), and the
            parameter's size; (None, 1e-3).
        d: the largest root mean square of a step before it is multiplied by the rate; 1.
        weight_decay: shrinks the parameter by ``lr * weight_decay``; 0.
        maximize: step along the gradient instead of against it; False.
    Options of the optimizer, see ``Optimizer``: accumulate, nonfinite, master.

    Source: Shazeer and Stern, arXiv:1804.04235.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        accumulate: int | None = None,
        nonfinite: str = "ignore",
        master: bool = False,
    ) -> None:
        self.require_at_least_zero(lr=lr, weight_decay=weight_decay, **{"eps[1]": eps[1]})
        if eps[0] is not None:
            self.require_at_least_zero(**{"eps[0]": eps[0]})
        if beta2_decay > 0:
            raise ArgumentError("Adafactor", "beta2_decay must be at most 0", f"got {beta2_decay}")
        if d < 1:
            raise ArgumentError("Adafactor", "d must be at least 1", f"got {d}")
        defaults = {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay,
            "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, accumulate, nonfinite, master)

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("step", "row_var", "col_var", "variance")

    def names_of(self, group: dict[str, Any], param: Tensor) -> tuple[str, ...]:
        kept = ("row_var", "col_var") if param.ndim > 1 else ("variance",)
        return tuple(name for name in ("step", *kept, *super().names_of(group, param)[4:]))

    def shape_of(self, name: str, param: Tensor) -> Shape:
        if name == "row_var":
            return (*param.shape[:-1], 1)
        return (*param.shape[:-2], 1, param.shape[-1]) if name == "col_var" else param.shape

    def rule(self, group: dict[str, Any], step: int, first: bool) -> Rule:
        lr, (eps1, eps2) = group["lr"], group["eps"]
        scalars = {
            "weight": float(step) ** group["beta2_decay"],
            "rho": min(lr, 1 / step**0.5),
            "decay": 1 - lr * group["weight_decay"],
            "eps1": -1.0 if eps1 is None else eps1,
            "eps2": eps2,
            "d": group["d"],
        }
        return Rule(AdafactorUpdate, scalars)
