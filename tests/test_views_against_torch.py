"""Random programs of views and changes in place: PyTorch's gradients, or a refusal. Run with ``-m torch``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.backends import Backend
from tinyedge.errors import TinyedgeError

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

VIEWS = {
    "select": lambda x, n: x[n % x.shape[0]] if x.dim() else x,
    "last": lambda x, n: x[..., -1] if x.dim() else x,
    "slice": lambda x, n: x[n % 2 :: 1 + n % 2] if x.dim() and x.shape[0] > 1 else x,
    "transpose": lambda x, n: x.transpose(0, -1) if x.dim() else x,
    "unsqueeze": lambda x, n: x.unsqueeze(n % (x.dim() + 1)),
    "view": lambda x, n: x.view(1, *x.shape),
    "diagonal": lambda x, n: x.diagonal() if x.dim() == 2 else x,
    "detach": lambda x, n: x.detach(),
    "not recorded": lambda x, n: view_under_no_grad(x),
    "expand": lambda x, n: x.expand(2, *x.shape),
}
NEW = {
    "double": lambda x, y: x * 2,
    "sine": lambda x, y: x.sin(),
    "square": lambda x, y: x.square(),
    "clone": lambda x, y: x.clone(),
    "sum": lambda x, y: x.sum(0) if x.dim() else x + 1,
    "product": lambda x, y: x * y.sum(),
}
CHANGES = {
    "mul_": lambda x, y, lib: x.mul_(1.5),
    "add_": lambda x, y, lib: x.add_(y.sum()),
    "sigmoid_": lambda x, y, lib: x.sigmoid_(),
    "copy_": lambda x, y, lib: x.copy_(y.sum() * 0.5),
    "zero_": lambda x, y, lib: x.zero_(),
    "set": lambda x, y, lib: x.__setitem__(0, y.mean()) if x.dim() else x.mul_(y.mean()),
    "mask": lambda x, y, lib: x.masked_fill_(x > 0.5, 0.25),
    "unseen": lambda x, y, lib: unseen(x, lib),
}


def view_under_no_grad(x: Any) -> Any:
    if x.requires_grad:  # PyTorch's says that it requires grad, and has no history
        return x
    lib = te if isinstance(x, te.Tensor) else pytest.importorskip("torch")
    with lib.no_grad():
        return x[None]


def unseen(x: Any, lib: Any) -> None:
    with lib.no_grad():
        x.mul_(0.5)


def program(seed: int) -> list[tuple[str, str, int, int]]:
    random = np.random.default_rng(seed)
    kinds = {"view": VIEWS, "new": NEW, "change": CHANGES}
    chosen = random.choice(["view", "new", "change"], 12, p=[0.4, 0.25, 0.35])
    return [(kind, str(random.choice([*kinds[kind]])), *map(int, random.integers(0, 1000, 2))) for kind in chosen]


def run(steps: list[tuple[str, str, int, int]], lib: Any) -> list[Any]:
    """Values and gradients after a program, in one library."""
    random = np.random.default_rng(0)
    leaf = lib.tensor(random.standard_normal((3, 4)).astype(np.float32), requires_grad=True)
    buffer = lib.tensor(random.standard_normal((3, 3)).astype(np.float32))
    known = [leaf * 1, buffer, leaf[0].tanh()]
    for kind, name, first, second in steps:
        x, y = known[first % len(known)], known[second % len(known)]
        if kind == "view":
            known.append(VIEWS[name](x, second))
        elif kind == "new":
            known.append(NEW[name](x, y))
        else:
            CHANGES[name](x, y, lib)
    flags = [bool(x.requires_grad) for x in known]
    total: Any = sum((x.sum() * (1 + k / 7) for k, x in enumerate(known)), start=leaf.sum() * 0)
    total.backward()
    return [flags, float(total), leaf.grad.numpy().copy(), *[x.detach().numpy().copy() for x in known]]


@pytest.mark.parametrize("part", range(8))
def test_views_that_are_changed(part: int, backend: Backend, record_property: Any) -> None:
    torch = pytest.importorskip("torch")
    agree, refused = 0, []
    for seed in range(part * 150, (part + 1) * 150):
        steps = program(seed)
        try:
            expected = run(steps, torch)
        except RuntimeError:
            continue
        try:
            got = run(steps, te)
        except TinyedgeError as error:
            refused.append(f"{seed}: {error}")
            continue
        assert got[0] == expected[0], (seed, steps)
        for mine, theirs in zip(got[1:], expected[1:], strict=True):
            np.testing.assert_allclose(mine, theirs, 1e-4, 1e-4, err_msg=f"{seed}: {steps}")
        agree += 1
    record_property("against torch", (f"views {part}", backend.name, agree, len(refused), 0))
    record_property("refused", refused[:3])
    assert agree > 20
