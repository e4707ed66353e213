"""Bad calls: each fails with its exception, which is also a builtin, and says what to do."""

from __future__ import annotations

import inspect

import pytest

import tinyedge as te
from tinyedge import errors
from tinyedge.backends import Backend
from tinyedge.errors import TinyedgeError
from tinyedge.ir.step import ErrorSample, registry

SAMPLES = [(name, number, sample) for name in sorted(registry) for number, sample in enumerate(registry[name].errors)]


@pytest.mark.parametrize("sample", [s for _, _, s in SAMPLES], ids=[f"{name}-{number}" for name, number, _ in SAMPLES])
def test_bad_call_is_refused(sample: ErrorSample, opencl: Backend) -> None:
    with pytest.raises(sample.error) as caught:
        sample.call(te)
    assert type(caught.value) is sample.error
    assert sample.text in str(caught.value)
    assert caught.value.call
    assert caught.value.expected


PUBLIC = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, TinyedgeError)]


def test_every_error_is_listed_and_public() -> None:
    assert sorted(e.__name__ for e in PUBLIC) == sorted(errors.__all__)
    assert all(getattr(te, name) is getattr(errors, name) for name in errors.__all__)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        ("ShapeError", ValueError),
        ("ArgumentError", ValueError),
        ("DtypeError", TypeError),
        ("AxisError", IndexError),
        ("IndexRangeError", IndexError),
        ("NumberRangeError", OverflowError),
        ("ZeroDivisorError", ZeroDivisionError),
        ("AutogradError", RuntimeError),
        ("CaptureError", RuntimeError),
        ("AnomalyError", FloatingPointError),
        ("StateDictError", RuntimeError),
        ("CheckpointError", ValueError),
        ("BackendError", RuntimeError),
        ("KernelBuildError", RuntimeError),
        ("OutOfMemoryError", MemoryError),
    ],
)
def test_error_is_the_builtin(error: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, error), builtin)


def test_every_error_is_some_builtin() -> None:
    for error in PUBLIC:
        if error is not TinyedgeError:
            bases = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert set(bases) - {Exception, BaseException, object}, f"{error.__name__} is no builtin"


def test_text_is_built_from_the_fields() -> None:
    fields = ("matmul", "equal inner sizes", "got 3 and 4", "Try a @ b.T.")
    error = errors.ShapeError(*fields)
    assert str(error) == "matmul: equal inner sizes, but got 3 and 4. Try a @ b.T."
    assert (error.call, error.expected, error.got, error.remedy) == (
        "matmul",
        "equal inner sizes",
        "got 3 and 4",
        "Try a @ b.T.",
    )
    assert str(errors.ArgumentError("clamp", "at least one limit")) == "clamp: at least one limit."
