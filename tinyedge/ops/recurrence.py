"""One layer and direction of a recurrent network over all steps: the op that nn.RNN, nn.GRU and nn.LSTM run."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from random import Random
from typing import Any

import numpy as np

from tinyedge.ir.spec import Device, KernelSpec, LocalArray, Scratch, power_of_two, round_up
from tinyedge.ir.step import FORWARD, Op, Sample, Step
from tinyedge.ir.values import Spec
from tinyedge.kernels.gemm import Matrix, gemm_kernels
from tinyedge.shapes import Shape

Array = np.ndarray[Any, Any]

GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}
"""The kinds of cells, and how many times its own size the products of each are."""

KEPT = {"tanh": 1, "relu": 1, "gru": 4, "lstm": 4}
"""What backward reads of each step: the gates, and of a GRU also the product of the new state."""

TEMPLATE = "recurrence.cl.jinja"

BLOCK = 16
"""Rows and columns of a weight that a work-item copies."""


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


class Recurrence(Op):
    """``x`` holds the products of all steps with the input's weight, and its bias.

    The samples whose ``lengths`` are given end there: their state stays as it is, and their results are 0. Products
    with the state are sums over one sample, so that a sample's result does not depend on the others.
    """

    signature = "(t,n,g),(n,p),(g,p),(n,h)?,(g)?,(p,h)?,(n)?->(t,n,p),(n,p),(n,h),(t,n,k),(t,n,h),(t,n,p)"
    domain = {
        "x": (-2.0, 2.0), "hidden": (-1.0, 1.0), "cell": (-1.0, 1.0), "weight": (-0.5, 0.5), "bias": (-0.5, 0.5),
        "projection": (-0.5, 0.5),
    }  # fmt: skip
    outputs = ("y", "last", "last_cell", "gates", "cells", "before")
    hidden = ("gates", "cells", "before")
    differentiable = ("x", "hidden", "weight", "cell", "bias", "projection")
    saves = ("weight", "cell", "projection", "lengths", "gates", "cells", "before")
    rtol = 1e-4  # rounding is passed on from step to step
    atol = 1e-5

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        x, hidden = inputs[:2]
        assert x is not None
        assert hidden is not None
        times, samples, wide = x.shape
        kind, inner = attrs["kind"], x.dtype.computes
        size = wide // GATES[kind]
        has_cell = kind == "lstm"
        return (
            Spec(x.dtype, (times, *hidden.shape)), Spec(x.dtype, hidden.shape),
            Spec(x.dtype, (samples, size) if has_cell else (0,)), Spec(inner, (times, samples, KEPT[kind] * size)),
            Spec(inner, (times, samples, size) if has_cell else (0,)), Spec(inner, (times, *hidden.shape)),
        )  # fmt: skip

    @classmethod
    def _launch(cls, step: Step, device: Device) -> _Launch:
        kept = step.slots["gates"]
        return _Launch(step, device, kept.shape, step.slots["before"].shape[2])

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        launch = cls._launch(step, device)
        reads = tuple(name for name in step.read_names() if name not in ("weight", "projection"))
        size, state, gates = launch.size, launch.state, launch.gates
        turned = launch.turned("weight", state, size, launch.wide, launch.width, (1, size * state, state), gates)
        if step.slots["projection"] is not None:
            turned += launch.turned("projection", size, state, launch.state_wide, launch.width, (1, 0, size))
        writes = tuple(name for name in step.writes if step.slots[name].numel)
        return [*turned, launch.sweep("recurrence_forward", (*reads, *writes))]

    @classmethod
    def kernels_backward(cls, step: Step, device: Device) -> list[KernelSpec]:
        launch = cls._launch(step, device)
        size, state, gates = launch.size, launch.state, launch.gates
        rows, ctype = launch.times * launch.samples, launch.ctype
        projects = step.slots["projection"] is not None
        launch.scratch += (Scratch("slopes", ctype, max(rows * gates * size, 1)),)
        kernels = launch.turned(
            "weight", gates * size, state, launch.state_wide, launch.width * launch.vectors, (state, 0, 1)
        )
        extra: tuple[str, ...] = ("slopes",)
        if projects:
            kernels += launch.turned("projection", state, size, launch.wide, launch.width, (size, 0, 1))
            launch.scratch += tuple(
                Scratch(name, ctype, max(rows * length, 1))
                for name, length in (("state_slopes", state), ("unprojected", size))
            )
            extra += ("state_slopes", "unprojected")
        reads = tuple(
            name for name in step.read_names()
            if name not in ("weight", "projection", "before") and step.slots[name].numel
        )  # fmt: skip
        if launch.kind == "gru":
            reads += ("before",)
        swept = tuple(name for name in ("dx", "dhidden", "dcell") if step.wants(name))
        kernels.append(launch.sweep("recurrence_backward", (*reads, *swept, *extra)))
        if step.wants("dweight"):
            wide = gates * size
            a, b, c = Matrix("slopes", 1, wide), Matrix("before", state, 1), Matrix("dweight", state, 1)
            kernels += gemm_kernels(device, a, b, c, wide, state, rows, ctype=ctype)
        if step.wants("dprojection"):
            a, b, c = Matrix("state_slopes", 1, state), Matrix("unprojected", size, 1), Matrix("dprojection", size, 1)
            kernels += gemm_kernels(device, a, b, c, state, size, rows, ctype=ctype)
        if step.wants("dbias"):
            kernels.append(launch.bias_kernel(rows, gates * size))
        return [replace(spec, scratch=_joined(spec.scratch, launch.scratch)) for spec in kernels]

    @staticmethod
    def forward(
        x: Any, hidden: Any, weight: Any, cell: Any = None, bias: Any = None, projection: Any = None,
        lengths: Any = None, *, kind: str, reverse: bool,
    ) -> Any:  # fmt: skip
        times, samples, wide = x.shape
        size = wide // GATES[kind]
        h, c = hidden, cell
        kept: tuple[Any, ...]
        y, before = np.zeros((2, times, *hidden.shape), x.dtype)
        gates = np.zeros((times, samples, KEPT[kind] * size), x.dtype)
        cells = np.zeros((times, samples, size) if kind == "lstm" else (0,), x.dtype)
        for t in reversed(range(times)) if reverse else range(times):
            before[t] = h
            product = h @ weight.T + (0 if bias is None else bias)
            own = np.split(x[t], GATES[kind], axis=-1)
            states = np.split(product, GATES[kind], axis=-1)
            if kind == "lstm":
                i, f, g, o = (a + b for a, b in zip(own, states, strict=True))
                i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
                kept, new_cell = (i, f, g, o), f * c + i * g
                new = o * np.tanh(new_cell)
                new = new if projection is None else new @ projection.T
            elif kind == "gru":
                r, z = _sigmoid(own[0] + states[0]), _sigmoid(own[1] + states[1])
                n = np.tanh(own[2] + r * states[2])
                kept, new = (r, z, n, states[2]), (1 - z) * n + z * h
            else:
                total = own[0] + states[0]
                new = np.tanh(total) if kind == "tanh" else np.maximum(total, 0)
                kept = (new,)
            gates[t] = np.concatenate(kept, axis=-1)
            ends = np.zeros((samples, 1), bool) if lengths is None else (t >= lengths)[:, None]
            y[t] = np.where(ends, 0, new)
            h = np.where(ends, h, new)
            if kind == "lstm":
                c = cells[t] = np.where(ends, c, new_cell)
        return y, h, c if kind == "lstm" else np.zeros(0, x.dtype), gates, cells, before

    @staticmethod
    def backward(
        dy: Any, dlast: Any, dlast_cell: Any, _dgates: Any, _dcells: Any, _dbefore: Any, weight: Any, cell: Any,
        projection: Any, lengths: Any, gates: Any, cells: Any, before: Any, *, kind: str, reverse: bool,
    ) -> Any:  # fmt: skip
        times, samples, _ = before.shape
        dh = np.zeros_like(before[0]) if dlast is None else dlast
        dc = 0 if dlast_cell is None or kind != "lstm" else dlast_cell
        order = list(range(times))[:: -1 if reverse else 1]
        dx = np.zeros((times, samples, len(weight)), before.dtype)
        dweight, dbias = np.zeros(weight.shape, before.dtype), np.zeros(len(weight), before.dtype)
        dprojection = None if projection is None else np.zeros(projection.shape, before.dtype)
        for position in reversed(range(times)):
            t = order[position]
            runs = np.ones((samples, 1), bool) if lengths is None else (t < lengths)[:, None]
            total = np.where(runs, dh + (0 if dy is None else dy[t]), 0)
            rest = np.where(runs, 0, dh)
            kept = np.split(gates[t], KEPT[kind], axis=-1)
            if kind == "lstm":
                i, f, g, o = kept
                shown = np.tanh(cells[t])
                inner = total
                if projection is not None:
                    inner = total @ projection
                    dprojection += total.T @ (o * shown)
                then = np.where(runs, dc + inner * o * (1 - shown**2), 0)
                old = cells[order[position - 1]] if position else cell
                slopes = [then * g * i * (1 - i), then * old * f * (1 - f), then * i * (1 - g**2)]
                slopes.append(inner * shown * o * (1 - o))
                dc, own = np.where(runs, then * f, dc), slopes
            elif kind == "gru":
                r, z, n, product = kept
                dn = total * (1 - z) * (1 - n**2)
                own = [dn * product * r * (1 - r), total * (before[t] - n) * z * (1 - z), dn]
                slopes = [*own[:2], dn * r]
                rest = rest + total * z
            else:
                slopes = own = [total * (1 - kept[0] ** 2 if kind == "tanh" else kept[0] > 0)]
            dx[t] = np.concatenate(own, axis=-1)
            joined = np.concatenate(slopes, axis=-1)
            dweight += joined.T @ before[t]
            dbias += joined.sum(axis=0)
            dh = rest + joined @ weight
        return dx, dh, dweight, dc, dbias, dprojection

    @classmethod
    def sample(cls, random: Random) -> Sample:
        kind = random.choice(tuple(GATES))
        times, samples, size = (
            random.choice((1, 2, 5)),
            random.choice((0, 1, 2, 3, 5, 9)),
            random.choice((1, 3, 16, 37)),
        )
        is_lstm = kind == "lstm"
        projects = is_lstm and random.random() < 0.3
        state = random.choice((1, 2, 5)) if projects else size
        wide = GATES[kind] * size
        shapes = (
            (times, samples, wide), (samples, state), (wide, state), (samples, size) if is_lstm else None,
            (wide,) if random.random() < 0.7 else None, (state, size) if projects else None,
            (samples,) if random.random() < 0.4 else None,
        )  # fmt: skip
        return Sample(shapes, {"kind": kind, "reverse": random.random() < 0.5}, {"lengths": times + 1})

    @classmethod
    def flops(cls, step: Step) -> int:
        kept, state = step.slots["gates"], int(step.slots["before"].shape[2])
        rows = int(prod(kept.shape[:2]))
        size = int(kept.shape[2]) // KEPT[step.attrs["kind"]]
        product = 2 * rows * GATES[step.attrs["kind"]] * size * state
        projected = 2 * rows * size * state if step.slots["projection"] is not None else 0
        if step.direction == FORWARD:
            return product + projected
        both = product * (1 + step.wants("dweight")) + projected * (1 + step.wants("dprojection"))
        return int(both)


def _joined(first: tuple[Scratch, ...], second: tuple[Scratch, ...]) -> tuple[Scratch, ...]:
    return tuple({scratch.name: scratch for scratch in (*first, *second)}.values())


class _Launch:
    """The sizes that the kernels of a step share, and their scratch memory."""

    def __init__(self, step: Step, device: Device, kept: Shape, state: int) -> None:
        self.step, self.device, self.kind = step, device, step.attrs["kind"]
        self.times, self.samples = kept[:2]
        self.size, self.state = kept[2] // KEPT[self.kind], state
        self.gates = GATES[self.kind]
        self.ctype = step.slots["gates"].dtype.ctype
        lanes = device.native_width if self.ctype == "float" else device.native_width // 2
        self.width = max(lanes, 1) if device.is_cpu else 1
        self.lanes = 1 if device.is_cpu else device.group()
        # A work-group takes several samples at once, which share what it loads of the weight.
        most = (4 if self.width >= 16 else 2) if device.is_cpu else 4
        self.block = max(1, min(most, -(-self.samples // device.compute_units)))
        self.vectors = min(4 if self.block == 1 else 2, power_of_two(-(-state // self.width))) if device.is_cpu else 1
        self.wide = round_up(self.size, self.width)
        self.state_wide = round_up(state, self.width * self.vectors)
        self.scratch: tuple[Scratch, ...] = ()

    def turned(
        self, name: str, lines: int, length: int, padded: int, panel: int, steps: Shape, groups: int = 1
    ) -> list[KernelSpec]:
        """The kernel that copies a weight in the order in which a sweep reads it, with lines of whole vectors."""
        across, down = -(-padded // BLOCK), -(-lines // BLOCK)
        target = f"{name}_lines"
        self.scratch += (Scratch(target, self.ctype, max(lines * groups * padded, 1)),)
        sizes = {
            "lines": lines, "length": length, "padded": padded, "groups": groups, "line_step": steps[0],
            "group_step": steps[1], "element_step": steps[2], "panel": panel if self.lanes == 1 else padded,
        }  # fmt: skip
        constants = {"real": self.ctype, "source": name, "target": target, "block": BLOCK}
        return [
            KernelSpec(
                "recurrence_lines", TEMPLATE, (name, target), (across, down, groups), (1, 1, 1), sizes,
                constants=constants, scratch=self.scratch, flops=0,
            )
        ]  # fmt: skip

    def sweep(self, kernel: str, buffers: tuple[str, ...]) -> KernelSpec:
        """The kernel that goes from step to step, a work-group for each block of samples."""
        projects = self.step.slots["projection"] is not None
        is_forward = kernel == "recurrence_forward"
        states = 2 if is_forward else 1
        inner = self.wide * ((self.kind == "lstm") + projects)
        each = self.block * (states * self.state_wide + inner)
        groups = -(-self.samples // self.block)
        nbytes = power_of_two(each) * (8 if self.ctype == "double" else 4)
        is_local = nbytes <= min(self.device.local_bytes, 16384)
        local: tuple[LocalArray, ...] = ()
        own = tuple(f"{name}_lines" for name in ("weight", "projection") if self.step.slots[name] is not None)
        buffers = (*buffers, *own)
        if is_local:
            local = (LocalArray("state", self.ctype, (power_of_two(each),)),)
        else:
            self.scratch += (Scratch("state", self.ctype, max(groups * each, 1)),)
            buffers = (*buffers, "state")
        sizes = {
            "times": self.times, "samples": self.samples, "size": self.size, "states": self.state, "wide": self.wide,
            "state_wide": self.state_wide, "each": each,
        }  # fmt: skip
        constants = {
            "real": self.ctype, "width": self.width, "lanes": self.lanes, "block": self.block, "vectors": self.vectors,
            "kind": self.kind, "reverse": self.step.attrs["reverse"], "projects": projects, "is_local": is_local,
        }  # fmt: skip
        return KernelSpec(
            kernel, TEMPLATE, buffers, (groups * self.lanes,), (self.lanes,), sizes, constants=constants,
            scratch=self.scratch, local=local, grouped=self.lanes > 1, is_heavy=True,
        )  # fmt: skip

    def bias_kernel(self, rows: int, columns: int) -> KernelSpec:
        """The kernel that adds up the slopes of all steps and samples."""
        group = 1 if self.device.is_cpu else self.device.group()
        items = -(-columns // self.width)
        return KernelSpec(
            "recurrence_bias", TEMPLATE, ("slopes", "dbias"), (round_up(items, group),), (group,),
            {"rows": rows, "columns": columns}, constants={"real": self.ctype, "width": self.width},
            scratch=self.scratch,
        )  # fmt: skip
