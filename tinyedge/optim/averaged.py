"""Averages of a model's weights over its training, by PyTorch's names: ``AveragedModel``, ``SWALR``, ``update_bn``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.optim.lr_scheduler.base import LRScheduler
from tinyedge.optim.optimizer import Optimizer
from tinyedge.tensor import Tensor, full

Averaged = Callable[[Any, Any, Any], None]


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averaged:
    """A function that moves averages towards lists of values: ``average = decay * average + (1 - decay) * value``."""
    _require_decay(decay)

    def move(averages: Iterable[Tensor], values: Iterable[Tensor], count: Any) -> None:
        with no_grad():
            for average, value in zip(averages, values, strict=True):
                average.copy_(average * decay + value.to(average.dtype) * (1 - decay))

    return move


def get_swa_multi_avg_fn() -> Averaged:
    """A function that makes averages those of one more value each."""

    def move(averages: Iterable[Tensor], values: Iterable[Tensor], count: Any) -> None:
        with no_grad():
            for average, value in zip(averages, values, strict=True):
                average.copy_(average + (value.to(average.dtype) - average) / (float(count) + 1))

    return move


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """As ``get_ema_multi_avg_fn``, of one value; it returns the new average."""
    _require_decay(decay)
    return lambda average, value, count: average * decay + value * (1 - decay)


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, Any], Tensor]:
    """As ``get_swa_multi_avg_fn``, of one value; it returns the new average."""
    return lambda average, value, count: average + (value - average) / (float(count) + 1)


def _require_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ArgumentError("AveragedModel", "a decay in [0, 1]", f"got {decay}")


class AveragedModel(Module):
    """A copy of ``model`` whose parameters are averages of those that ``update_parameters`` was called with.

    By default each counts alike (SWA). ``avg_fn`` gives a new average from the old one, a value and the number of
    values before it; ``multi_avg_fn`` changes lists of averages in place. With ``use_buffers`` buffers are averaged
    too, else they are copied.

    Source: Izmailov et al., arXiv:1803.05407.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable[[Tensor, Tensor, Any], Tensor] | None = None,
        multi_avg_fn: Averaged | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("AveragedModel", "either avg_fn or multi_avg_fn", "got both")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module.to(device)
        self.register_buffer("n_averaged", full((), 0, device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _averaged(self, model: Module) -> list[Tensor]:
        return [*model.parameters(), *(model.buffers() if self.use_buffers else ())]

    def update_parameters(self, model: Module) -> None:
        """Take the present values of ``model`` into the averages."""
        own = [each.detach() for each in self._averaged(self.module)]
        values = [each.detach() for each in self._averaged(model)]
        pairs = list(zip(own, values, strict=True))
        count = int(self.n_averaged)
        with no_grad():
            if count == 0:
                for average, value in pairs:
                    average.copy_(value)
            else:
                whole = [pair for pair in pairs if not pair[0].is_floating_point()]
                moved = [pair for pair in pairs if pair[0].is_floating_point()]
                for average, value in whole:
                    average.copy_(value)
                if self.avg_fn is not None:
                    for average, value in moved:
                        average.copy_(self.avg_fn(average, value.to(average.dtype), count))
                else:
                    move = self.multi_avg_fn or get_swa_multi_avg_fn()
                    move([average for average, _ in moved], [value for _, value in moved], count)
            if not self.use_buffers:
                for average, value in zip(self.module.buffers(), model.buffers(), strict=True):
                    average.detach().copy_(value.detach())
            self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of the batch norms of ``model`` anew, over the batches of ``loader``."""
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    if not norms:
        return
    momenta = {}
    was_training = model.training
    for norm in norms:
        momenta[norm] = norm.momentum
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with no_grad():
        for batch in loader:
            given = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(given if device is None else given.to(device))
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """The rate goes to ``swa_lr`` in ``anneal_epochs`` steps, along a cosine or a line, and stays there."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        rates = [*swa_lr] if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise ArgumentError("SWALR", f"one swa_lr or {len(optimizer.param_groups)}", f"got {len(rates)}")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError("SWALR", 'anneal_strategy must be "cos" or "linear"', f"got {anneal_strategy!r}")
        if isinstance(anneal_epochs, bool) or not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError("SWALR", "anneal_epochs must be an int of at least 0", f"got {anneal_epochs!r}")
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(max(0, step - 1)), self._share(max(0, step))
        rates = []
        for group in self.optimizer.param_groups:
            swa, rate = group["swa_lr"], group["lr"]
            start = swa if before == 1 else (rate - before * swa) / (1 - before)
            rates.append(swa * now + start * (1 - now))
        return rates


__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn",
    "update_bn",
]  # fmt: skip
