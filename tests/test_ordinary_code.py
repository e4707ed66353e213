"""Ordinary code in compiled functions is recorded once, and replayed: guards refuse none of it."""

from __future__ import annotations

import abc
import collections
import contextlib
import copy
import dataclasses
import datetime
import enum
import fractions
import functools
import itertools
import json
import logging
import math
import operator
import os
import random
import re
import string
import sys
import threading
import time
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.situations import into, seen
from tests.situations import sample as x
from tinyedge import nn
from tinyedge.backends import Backend
from tinyedge.nn import functional as F

pytestmark = pytest.mark.check
ALLOWED: list[Any] = []
allowed = into(ALLOWED)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width / heads)
        self.project = nn.Linear(width, 3 * width)
        self.log = logging.getLogger(__name__)
        self.file = sys.stderr
        self.rng = random.Random(0)

    def forward(self, y: te.Tensor) -> te.Tensor:
        assert y.ndim == 2, f"got {y.shape}"
        if y.shape[0] == 0:
            raise ValueError(f"{type(self).__name__} got nothing: {y.shape!r}")
        q, k, v = self.project(y).chunk(3, 1) if hasattr(y, "chunk") else (self.project(y),) * 3
        self.log.debug("shapes %s", q.shape)
        warnings.warn_explicit if False else None  # noqa: B018
        return F.softmax(q @ k.t() * self.scale, 1) @ v


@allowed
def an_ordinary_model() -> Any:
    model = Attention(3, 1)

    def function(y: Any) -> Any:
        return F.mse_loss(model(y.reshape(1, 3)).flatten(), y.repeat(3) if hasattr(y, "repeat") and False else y[:1])

    return lambda y: model(y.reshape(1, 3)).sum()


@allowed
def a_trainer_with_bookkeeping() -> Any:
    class Trainer:
        def __init__(self) -> None:
            self.model, self.rng, self.history = nn.Linear(3, 1), random.Random(0), []
            self.file, self.started, self.lock = sys.stdout, time.time(), threading.Lock()
            self.data = iter([1])

        def __repr__(self) -> str:
            return f"Trainer({self.started})"

        def step(self, y: Any) -> Any:
            loss = self.model(y).square().sum()
            loss.backward()
            return loss

    return Trainer().step


@allowed
def printing_and_logging() -> Any:
    log = logging.getLogger("quiet")

    def function(y: Any) -> Any:
        print("shape", y.shape, file=sys.stderr)
        log.info("shape %s", y.shape)
        logging.getLogger(__name__).debug("x")
        return y * 2

    return function


@allowed
def a_warning() -> Any:
    def function(y: Any) -> Any:
        if y.ndim > 4:
            warnings.warn("many dims", stacklevel=2)
        return y * 2

    return function


@allowed
def types_and_casts() -> Any:
    def function(y: Any) -> Any:
        value = typing.cast("te.Tensor", y)
        assert isinstance(value, te.Tensor)
        assert issubclass(type(value), object)
        assert callable(function)
        return value * 2

    return function


@allowed
def builtins_of_many_kinds() -> Any:
    def function(y: Any) -> Any:
        pairs = list(zip(range(3), reversed([1, 2, 3]), strict=True))
        total = sum(a * b for a, b in pairs) + max(1, 2) + min([3], default=0) + abs(-1) + round(2.5) + len("abc")
        total += int("3") + float("2") + bool(1) + divmod(7, 2)[0] + pow(2, 3) + ord("a") + hash("a") * 0
        names = sorted({"b", "a"}) + [str(k) for k in enumerate("ab")] + list(map(str, filter(None, [1, 0])))
        return y * total + len(names) + any([True]) + all([])

    return function


@allowed
def the_pure_library() -> Any:
    def function(y: Any) -> Any:
        k = math.sqrt(4.0) + functools.reduce(operator.add, itertools.chain([1], [2])) + math.prod([1, 2])
        k += len(string.digits) + len(re.sub("a", "b", "aaa")) + len(json.dumps({"a": 1})) + len(os.path.join("a", "b"))
        k += copy.copy([1])[0] + collections.OrderedDict(a=1)["a"] + float(fractions.Fraction(1, 2))
        with contextlib.suppress(ValueError), contextlib.nullcontext():
            k += len(collections.namedtuple("Pair", "a b")._fields) * 0 + 1
        return y * k

    return function


@allowed
def numpy_functions() -> Any:
    return lambda y: y * float(np.prod([2, 3])) + float(np.sqrt(4.0)) + float(np.linalg.norm([3.0, 4.0])) + np.pi


@allowed
def an_abstract_base() -> Any:
    class Base(abc.ABC):
        @abc.abstractmethod
        def scale(self, y: Any) -> Any: ...

    class Derived(Base, typing.Generic[typing.TypeVar("T")]):  # type: ignore[misc]
        def scale(self, y: Any) -> Any:
            return y * 2

    thing = Derived()
    return lambda y: thing.scale(y)


@allowed
def an_error_of_the_user() -> Any:
    class ConfigError(ValueError):
        def __init__(self, text: str) -> None:
            super().__init__(text)

    def function(y: Any) -> Any:
        try:
            if y.ndim != 1:
                raise ConfigError(f"{y.ndim}")
        except (ConfigError, KeyError) as error:
            raise RuntimeError("no") from error
        return y * 2

    return function


@allowed
def no_grad_inside() -> Any:
    @te.no_grad()
    def inner(y: Any) -> Any:
        return y * 2

    def function(y: Any) -> Any:
        with te.no_grad():
            return inner(y) + te.zeros(3) + te.tensor([1.0, 2.0, 3.0])

    return function


@allowed
def a_checkpoint() -> Any:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).checkpoint()
    return lambda y: te.checkpoint(model, y).sum()


@allowed
def dropout_of_a_generator() -> Any:
    generator = te.Generator().manual_seed(0)
    return lambda y: F.dropout(y, 0.0, generator=generator)


@allowed
def a_configuration() -> Any:
    @dataclasses.dataclass(frozen=True)
    class Config:
        width: int = 3
        path: Path = Path("a")
        started: datetime.datetime = datetime.datetime(2000, 1, 1)
        mode: enum.Enum = enum.Enum("Mode", "A B").A  # type: ignore[attr-defined]
        dtype: Any = te.float32
        extra: Any = dataclasses.field(default_factory=dict)

    config = Config()
    return lambda y: (
        y * config.width + len(config.path.name) + config.started.year + len(config.mode.name) + len(config.extra)
    )


@allowed
def a_setup_at_the_first_call() -> Any:
    cache: dict[str, Any] = {}

    def function(y: Any) -> Any:
        if "k" not in cache:
            cache["k"] = 2.0
        return y * cache["k"]

    return function


@allowed
def a_type_as_a_table() -> Any:
    table = {"relu": F.relu, "tanh": F.tanh, "layer": nn.ReLU, "np": np.float32}
    return lambda y: table["relu"](y)


@pytest.mark.parametrize("case", ALLOWED)
def test_ordinary_code_is_recorded(case: Callable[[], Any], reference: Backend) -> None:
    function = case()
    compiled = te.compile(function)
    for _ in range(4):
        assert seen(compiled(x())) == seen(function(x()))
    assert len(compiled.programs) == 1
