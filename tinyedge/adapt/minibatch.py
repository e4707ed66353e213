"""Batch norm where each sample is a tensor of its own: statistics of the minibatch, and cheaper choices beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tinyedge.autograd.lockstep import in_lockstep
from tinyedge.convert.graph import GraphModel
from tinyedge.convert.norms import InGroups, Renormalised
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.nn.normalization import (
    BATCH_NORMS,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    GroupNorm,
    groups_for,
)
from tinyedge.tensor import Tensor


class MinibatchNorm(Module):
    """A model that is called with the ``n`` samples of a minibatch at once, each a tensor (or tuple) of its own.

    It returns the list of their results. See ``te.adapt.minibatch_norm``.
    """

    def __init__(self, model: Module, n: int) -> None:
        super().__init__()
        self.model = model
        self.n = n

    def forward(self, samples: Sequence[Any]) -> list[Any]:
        return self._run(samples, [partial(self.model, *_arguments(sample)) for sample in samples])

    def backward(self, loss: Callable[..., Tensor], samples: Sequence[Any]) -> Tensor:
        """Add the gradients of the mean of ``loss(model, *sample)`` over the minibatch; return that mean.

        These are the gradients of one batch of ``n`` samples: an optimizer counts it as one, ``accumulate=1``.
        """
        losses = self._run(samples, [partial(loss, self.model, *_arguments(sample)) for sample in samples])
        mean: Tensor = sum(losses[1:], losses[0]) / self.n
        mean.backward()
        return mean.detach()

    def _run(self, samples: Sequence[Any], calls: Sequence[Callable[[], Any]]) -> list[Any]:
        if len(samples) != self.n:
            raise ArgumentError(
                "minibatch_norm",
                f"a minibatch of {self.n} samples",
                f"got {len(samples)}",
                "Nothing was computed. For a last, shorter minibatch call te.adapt.minibatch_norm(model, its size).",
            )
        return in_lockstep("minibatch_norm", calls)

    def extra_repr(self) -> str:
        return f"n={self.n}"


def _arguments(sample: Any) -> tuple[Any, ...]:
    return tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)


def minibatch_norm(model: Module, n: int) -> MinibatchNorm:
    """Normalise in training by the statistics of minibatches of ``n`` samples, each of which is a tensor of batch 1.

    Results, gradients and running statistics are those of one tensor with all samples, up to rounding: the gradient
    goes through mean and variance. Every batch norm of ``model`` whose statistics are not frozen gets
    ``statistics="minibatch"``; the result is called with the list of samples, and returns a list. In a model from
    ``te.load_model`` these are the batch norms of its graph, after ``model.freeze_batch_norm_statistics(False)``; a
    file whose norms were folded into its convolutions, as most TFLite files, has none.

    The samples go through the model side by side, from one norm to the next. At each norm their sums are joined, so
    backward, which walks the joined graph in reverse, has the gradients of all samples where it comes to the norm.
    Nothing is computed twice. In memory is what a batch of ``n`` would save, less of the temporary values of kernels;
    where ``Module.checkpoint`` is set on blocks, it is their inputs, and backward computes each block again, with the
    statistics of the first time. In evaluation mode, and with all statistics frozen, samples do not need each other.

    Errors: ArgumentError without such batch norms, and from a call with another number of samples; from a batch norm
            that is called otherwise.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> norm = te.adapt.minibatch_norm(model, 4)
    >>> outputs = norm([te.randn(1, 2) for _ in range(4)])
    >>> bool(te.cat(outputs).mean().abs() < 1e-5)
    True
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError("minibatch_norm", "a number of samples, 1 or more", f"got {n!r}")
    norms = [module for module in model.modules() if _normalises(module)]
    live: list[Any] = [norm for norm in norms if not norm.frozen_statistics]
    if not live:
        raise ArgumentError(
            "minibatch_norm",
            "a model with batch norms whose statistics are not frozen",
            f"of {len(norms)} in {type(model).__name__} all are frozen"
            if norms
            else f"{type(model).__name__} has none",
            "Call model.freeze_batch_norm_statistics(False) first." if norms else "",
        )
    for norm in live:
        if isinstance(norm, GraphModel):
            norm.over_minibatch = True
        else:
            norm.statistics = "minibatch"
    return MinibatchNorm(model, n)


def _normalises(module: Module) -> bool:
    """Whether it is a batch norm, or a model from a file with batch norms in its graph."""
    return isinstance(module, BATCH_NORMS) or (isinstance(module, GraphModel) and module.has_batch_norms)


def to_group_norm(model: Module, groups: int = 32) -> Module:
    """Put a ``GroupNorm`` in the place of each batch norm, in place; return the model.

    It has the batch norm's scale and shift, and no statistics: each sample is normalised by itself, in evaluation too.
    So the model computes something else, and must be trained. A layer has as many groups as divide its channels, at
    most ``groups``.

    Errors: ArgumentError if there is no batch norm, or ``model`` itself is one.
    Source: Wu and He, Group Normalization, arXiv:1803.08494.
    """
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ArgumentError("to_group_norm", "a number of groups, 1 or more", f"got {groups!r}")

    def made(norm: Any) -> Module:
        channels = norm.num_features
        return GroupNorm(
            groups_for(channels, groups), channels, norm.eps, norm.affine, *_where(norm), bias=norm.bias is not None
        )

    return _replace("to_group_norm", model, made, ("weight", "bias"), InGroups(groups))


def to_batch_renorm(model: Module, r_max: float = 3.0, d_max: float = 5.0) -> Module:
    """Put a ``BatchRenorm`` in the place of each batch norm, with all that it has, in place; return the model.

    In evaluation the model computes what it did. For a trained model, whose running statistics are good from the
    first step on, constant limits do. In a model from ``te.load_model`` it is what its batch norms do in training after
    ``model.freeze_batch_norm_statistics(False)``.

    Errors: ArgumentError if there is no batch norm, or ``model`` itself is one, or one has no running statistics, or
            limits are out of range.
    Source: Ioffe, Batch Renormalization, arXiv:1702.03275.
    """
    if not (r_max >= 1.0 and d_max >= 0.0):
        raise ArgumentError("to_batch_renorm", "r_max >= 1 and d_max >= 0", f"got {r_max} and {d_max}")
    kinds = {BatchNorm1d: BatchRenorm1d, BatchNorm2d: BatchRenorm2d, BatchNorm3d: BatchRenorm3d}

    def made(norm: Any) -> Module:
        kind = next(new for old, new in kinds.items() if isinstance(norm, old))
        renorm = kind(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, *_where(norm),
            r_max=r_max, d_max=d_max, bias=norm.bias is not None,
        )  # fmt: skip
        renorm.frozen_statistics = norm.frozen_statistics
        return renorm

    kept = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return _replace("to_batch_renorm", model, made, kept, Renormalised(r_max, d_max))


def _where(norm: Module) -> tuple[Any, Any]:
    """The device and the dtype of what a norm has."""
    first = next(iter([*norm.parameters(), *norm.buffers()]), None)
    return (None, None) if first is None else (first.backend, first.dtype)


def _replace(
    call: str, model: Module, make: Callable[[Any], Module], kept: Sequence[str], in_graphs: InGroups | Renormalised
) -> Module:
    """Put other norms in the places of batch norms: with the very parameters, which an optimizer may hold already.
    Those in the graphs of files compute as ``in_graphs`` says.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    graphs = [module for module in model.modules() if isinstance(module, GraphModel) and module.has_batch_norms]
    if not (norms or graphs) or isinstance(model, BATCH_NORMS):
        raise ArgumentError(
            call, "a model with batch norms inside", f"{type(model).__name__} {'is one' if norms else 'has none'}"
        )
    new = {id(norm): make(norm) for norm in norms}  # whatever can fail comes before the first change
    for norm in norms:
        made = new[id(norm)]
        for name in kept:
            if name in norm._parameters:
                made._parameters[name] = norm._parameters[name]
            else:
                made._buffers[name] = norm._buffers[name]
        made.train(norm.training)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is not None and id(child) in new:
                module._modules[name] = new[id(child)]
    for graph in graphs:
        graph.other_norms = in_graphs
    return model
