"""The loss of sequences whose alignment is unknown: connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyedge.autograd.recorder import forbid_in_recording, recorder
from tinyedge.autograd.registry import functions, public
from tinyedge.dtypes import int32, int64
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ir.spec import Device, KernelSpec, Scratch
from tinyedge.ir.step import Op, Step
from tinyedge.ir.values import Spec
from tinyedge.ops.movement import reshape, unsqueeze
from tinyedge.ops.promotion import floating
from tinyedge.ops.reduce import sum as total
from tinyedge.ops.reduction import reduction_of
from tinyedge.ops.selection import clamp, where
from tinyedge.ops.with_gradient import WithGradient
from tinyedge.tensor import Tensor, call, call_all, tensor

Array = np.ndarray[Any, Any]


class Ctc(Op):
    """The loss of each sample, and the slopes of the log-probabilities."""

    signature = "(t,n,c),(n,s),(n),(n)->(n),(t,n,c)"
    outputs = ("nll", "slope")
    sample: Any = classmethod(vars(Op)["sample"].__func__)  # lengths are no more than those of the shapes

    @classmethod
    def infer(cls, *inputs: Spec | None, **attrs: Any) -> tuple[Spec, ...]:
        log_probs = inputs[0]
        assert log_probs is not None
        return Spec(log_probs.dtype, log_probs.shape[1:2]), log_probs

    @classmethod
    def kernels_forward(cls, step: Step, device: Device) -> list[KernelSpec]:
        log_probs, targets = step.slots["log_probs"], step.slots["targets"]
        times, samples, classes = log_probs.shape
        most, ctype = targets.shape[1], log_probs.dtype.ctype
        lanes = 1 if device.is_cpu else device.group()
        states = samples * times * (2 * most + 1)
        sizes = {
            "samples": samples, "times": times, "classes": classes, "most": most, "blank": step.attrs["blank"],
        }  # fmt: skip
        scratch = (
            Scratch("ahead", ctype, states), Scratch("behind", ctype, states), Scratch("found", ctype, log_probs.numel),
        )  # fmt: skip
        buffers = (*step.reads, "nll", "slope", "ahead", "behind", "found")
        return [
            KernelSpec(
                "ctc", "ctc.cl.jinja", buffers, (samples * lanes,), (lanes,), sizes, scratch=scratch,
                constants={"real": ctype, "lanes": lanes}, grouped=lanes > 1,
            )
        ]  # fmt: skip

    @staticmethod
    def forward(log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, *, blank: int) -> Any:
        samples = log_probs.shape[1]
        nll, slope = np.zeros(samples, log_probs.dtype), np.zeros_like(log_probs)
        for n in range(samples):
            length, given = int(input_lengths[n]), int(target_lengths[n])
            labels = np.full(2 * given + 1, blank)
            labels[1::2] = targets[n, :given]
            nll[n], slope[:length, n] = _one(log_probs[:length, n].astype(np.float64), labels)
        return nll, slope


def _one(log_probs: Array, labels: Array) -> tuple[Any, Array]:
    """Of one sample, whose ``labels`` are the states' classes."""
    times, states = len(log_probs), len(labels)
    if not times:
        return (0.0 if states == 1 else np.inf), log_probs
    emitted = log_probs[:, labels]
    skips = np.zeros(states, bool)
    skips[3::2] = labels[3::2] != labels[1:-2:2]

    def walk(emitted: Array, skips: Array) -> Array:
        ways = np.full((times, states), -np.inf)
        ways[0, :2] = emitted[0, :2]
        for t in range(1, times):
            ways[t] = ways[t - 1]
            ways[t, 1:] = np.logaddexp(ways[t, 1:], ways[t - 1, :-1])
            skipped = np.where(skips[2:], ways[t - 1, :-2], -np.inf)
            ways[t, 2:] = np.logaddexp(ways[t, 2:], skipped)
            ways[t] += emitted[t]
        return ways

    ahead = walk(emitted, skips)
    back = np.zeros(states, bool)
    back[:-2] = skips[2:]
    behind = walk(emitted[::-1, ::-1], back[::-1])[::-1, ::-1]
    every = np.logaddexp.reduce(ahead[-1, -2:])
    found = np.full_like(log_probs, -np.inf)
    for s, label in enumerate(labels):
        found[:, label] = np.logaddexp(found[:, label], ahead[:, s] + behind[:, s])
    with np.errstate(invalid="ignore", over="ignore"):
        return -every, np.exp(log_probs) - np.exp(found - every - log_probs)


Lengths = Tensor | Sequence[int] | int


def _numbers(lengths: Lengths) -> list[int] | None:
    """On the host, or None where te.compile must not look."""
    if not isinstance(lengths, Tensor):
        return [int(lengths)] if isinstance(lengths, (int, np.integer)) else [int(length) for length in lengths]
    return None if recorder() is not None else [int(length) for length in lengths.numpy().reshape(-1)]


def _lengths(name: str, what: str, lengths: Lengths, samples: int, most: int | None, like: Tensor) -> Tensor:
    numbers = _numbers(lengths)
    if isinstance(lengths, Tensor) and lengths.dtype not in (int32, int64):
        raise DtypeError(name, f"{what} of integers", f"got {lengths.dtype.name}", "Convert it with .long().")
    count = lengths.numel() if isinstance(lengths, Tensor) else len(numbers or ())
    if count != samples:
        raise ShapeError(name, f"{what} of {samples} samples", f"got {count}")
    if numbers is not None and any(length < 0 or (most is not None and length > most) for length in numbers):
        raise ArgumentError(name, f"{what} in [0, {most}]", f"got {numbers}")
    if isinstance(lengths, Tensor):
        return reshape(lengths.to(like.backend), (samples,))
    return tensor(numbers, dtype=int64, device=like.backend)


def _padded(name: str, targets: Tensor, lengths: Lengths, samples: int) -> Tensor:
    """Targets that follow each other in one dim, as rows."""
    forbid_in_recording(name, "where each target starts is known on the host only; pass targets of two dims")
    numbers = _numbers(lengths) or []
    if len(numbers) != samples or sum(numbers) != targets.numel() or min(numbers, default=0) < 0:
        raise ShapeError(name, f"target_lengths that add up to {targets.numel()}", f"got {numbers}")
    values, rows, start = targets.numpy(), np.zeros((samples, max(numbers, default=0)), np.int64), 0
    for row, length in zip(rows, numbers, strict=True):
        row[:length] = values[start : start + length]
        start += length
    return tensor(rows, dtype=int64, device=targets.backend)


@public(functional=True, module="CTCLoss", arguments="blank, reduction, zero_infinity")
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability that a sequence of classes, without repeats and blanks, gives the target.

    The mean divides each loss by its target's length first. A target that does not fit into its input has an infinite
    loss, which ``zero_infinity`` makes 0. The gradient is that of the logits of which ``log_probs`` are the
    log_softmax, as PyTorch's.

    ``input_lengths`` and ``target_lengths`` say how much of each counts.

    Shapes: log_probs (times, batch, classes) or (times, classes); targets (batch, longest) or all in one dim; lengths
            (batch,) or (); returns () unless reduction="none".
    Units:  nats.
    Saves:  a slope for each of log_probs.
    Errors: ShapeError or ArgumentError unless lengths fit, and blank is a class; te.compile does not look at lengths
            that are tensors, and takes targets of two dims alone.
    Source: Graves et al., Connectionist temporal classification (ICML 2006).
    """
    name = "ctc_loss"
    reduction = reduction_of(name, reduction)
    log_probs = floating(name, log_probs)
    if log_probs.ndim not in (2, 3):
        raise ShapeError(name, "log_probs (times, batch, classes) or (times, classes)", f"got {log_probs.shape}")
    is_single = log_probs.ndim == 2
    x = unsqueeze(log_probs, 1) if is_single else log_probs
    times, samples, classes = x.shape
    if not isinstance(targets, Tensor) or targets.dtype not in (int32, int64):
        found = targets.dtype.name if isinstance(targets, Tensor) else type(targets).__name__
        raise DtypeError(name, "targets of integers", f"got {found}", "Convert it with .long().")
    if not 0 <= blank < classes:
        raise ArgumentError(name, f"blank must be a class, in [0, {classes})", f"got {blank}")
    if is_single and targets.ndim == 1:
        rows = unsqueeze(targets, 0)
    else:
        rows = _padded(name, targets, target_lengths, samples) if targets.ndim == 1 else targets
    if rows.ndim != 2 or rows.shape[0] != samples:
        raise ShapeError(name, f"targets of {samples} samples", f"got {targets.shape}")
    ends = _lengths(name, "input_lengths", input_lengths, samples, times, x)
    sizes = _lengths(name, "target_lengths", target_lengths, samples, rows.shape[1], x)
    value, slope = call_all(Ctc, x.detach(), _no_less(rows), ends, sizes, blank=int(blank))
    if zero_infinity:
        endless = functions["eq"](value, float("inf"))
        value = where(endless, 0.0, value)
        slope = where(reshape(endless, (1, samples, 1)), 0.0, slope)
    losses = call(WithGradient, value, total(x * slope, (0, 2)), formula="ctc_loss") if x.requires_grad else value
    if reduction == "mean":
        return functions["mean"](losses / clamp(sizes, min=1).to(x.dtype))  # type: ignore[no-any-return]
    if reduction == "sum":
        return total(losses)
    return reshape(losses, ()) if is_single else losses


def _no_less(rows: Tensor) -> Tensor:
    """``rows``, or of targets that are all empty a column that nobody reads: a kernel takes no empty buffer."""
    if rows.shape[1]:
        return rows
    return functions["zeros"](rows.shape[0], 1, dtype=int64, device=rows.backend)  # type: ignore[no-any-return]
