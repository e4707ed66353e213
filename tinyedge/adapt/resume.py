"""Checkpoints of a training run: what is needed to go on to the bit, in one file that is whole or absent."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyedge import files
from tinyedge.adapt.lora import plain_name
from tinyedge.convert.checks import shown
from tinyedge.convert.safetensors import load_safetensors, save
from tinyedge.errors import ArgumentError, CheckpointError, TinyedgeError
from tinyedge.nn.module import Module
from tinyedge.ops.random import Generator, default_generator
from tinyedge.tensor import Tensor, blocks_of

VERSION = 2
SEAL = "sha256"
FAULTS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What the parts raise for states that are none of theirs."""

PathLike = str | os.PathLike[str]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def seal(content: Mapping[str, Any]) -> str:
    """The sha256 of all that a checkpoint holds, but this: a file of which a byte has rotted says another."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inside in value.items():
                found.update(f"{key!r}: ".encode())
                add(inside)
            found.update(b"}")
        elif isinstance(value, (list, tuple)):
            for inside in value:
                add(inside)
            found.update(b"]")
        elif isinstance(value, (Tensor, np.ndarray)):
            if isinstance(value, Tensor):
                value = (value if value.dtype.blocks is None else blocks_of("save_checkpoint", value)).detach().numpy()
            found.update(f"{value.dtype} {value.shape} ".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(f"{float(value) if isinstance(value, float) else value!r}, ".encode())  # NumPy's as Python's

    add({key: value for key, value in content.items() if key != SEAL})
    return found.hexdigest()


def _numbered(path: Path, step: int) -> Path:
    return path.with_name(f"{path.stem}-{step:09d}{path.suffix}")


def _rotation(path: Path) -> list[Path]:
    """The checkpoints that were written with ``keep``, the oldest first."""
    pattern = re.compile(re.escape(path.stem) + r"-\d{9,}" + re.escape(path.suffix))
    found = [item for item in path.parent.glob("*") if pattern.fullmatch(item.name)] if path.parent.is_dir() else []
    return sorted(found, key=lambda item: (len(item.name), item.name))


def save_checkpoint(
    path: PathLike,
    *,
    model: Module | None = None,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    generator: Generator | None = None,
    step: int = 0,
    base: PathLike | None = None,
    keep: int | None = None,
) -> Path:
    """Write what a training run needs to go on as if it had never stopped. Returns the file's path.

    It holds the model's parameters and buffers, the optimizer's state (with the gradients of a minibatch that was
    begun), the schedule, the state of a ``GradScaler``, that of the random numbers (``generator``'s, or the default
    one's), and ``step``.

    ``base``: a safetensors file, such as the pretrained model. Tensors that are equal to the file's are not copied: the
    checkpoint says the file's name and sha256, and ``load_checkpoint`` reads them there.
    ``keep``: the file gets the step's number before its suffix, and of such files the newest ``keep`` stay.

    The file appears whole or not at all, see ``te.save``.

    Errors: ArgumentError for a negative step, or ``keep`` below 1; as ``te.save``.
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 0 or (keep is not None and keep < 1):
        raise ArgumentError("save_checkpoint", "step an int of at least 0, and keep at least 1", f"got {step}, {keep}")
    content: dict[str, Any] = {"checkpoint": VERSION, "step": step}
    content["generator"] = list((generator or default_generator).get_state())
    if model is not None:
        state = model.state_dict()
        if base is not None:
            bytes_of_base = files.read_whole(base)
            known = load_safetensors(base, device="numpy")
            content["base"] = {"name": Path(base).name, "sha256": _digest(bytes_of_base)}
            state = {name: value for name, value in state.items() if not _is_equal(known.get(plain_name(name)), value)}
        content["model"] = state
    if optimizer is not None:
        content["optimizer"] = optimizer.state_dict()
    if scheduler is not None:
        content["scheduler"] = scheduler.state_dict()
    if scaler is not None:
        content["scaler"] = scaler.state_dict()
    content[SEAL] = seal(content)
    target = Path(path) if keep is None else _numbered(Path(path), step)
    save(content, target)
    for old in _rotation(Path(path))[: -keep or None] if keep is not None else ():
        if old != target:
            with suppress(OSError):
                old.unlink()
    return target


def _is_equal(known: Any, value: Tensor) -> bool:
    if not isinstance(known, Tensor) or known.dtype is not value.dtype or known.shape != value.shape:
        return False
    return np.array_equal(known.numpy(), value.detach().numpy())


def load_checkpoint(
    path: PathLike,
    *,
    model: Module | None = None,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    generator: Generator | None = None,
    base: PathLike | None = None,
) -> int:
    """Put back what ``save_checkpoint`` wrote, and return its step.

    Where ``path`` was written with ``keep``, the newest file of it is read. ``base`` says where the file with the
    pretrained tensors lies, if not beside the checkpoint.

    Errors: CheckpointError, with nothing changed, if the file is no whole checkpoint, lacks what is asked for, or was
            made on another base; StateDictError, with nothing changed, if it is of another model or optimizer.
            FileNotFoundError if there is none.
    """
    call = f"load_checkpoint({os.fspath(path)!r})"
    source = Path(path)
    if not source.exists() and (written := _rotation(source)):
        source = written[-1]
    content = load_safetensors(source, device="numpy")
    if content.get("checkpoint") != VERSION:
        raise CheckpointError(
            call, f"a checkpoint of version {VERSION}", f"it says {content.get('checkpoint')!r}",
            "te.load reads state dicts; save_checkpoint writes checkpoints.",
        )  # fmt: skip
    wanted = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    if content.get(SEAL) != seal(content):
        raise CheckpointError(
            call,
            f"what was written, sha256 {content.get(SEAL)}",
            "some of it is damaged",
            "Take an earlier checkpoint.",
        )
    for name, value in wanted.items():
        if value is not None and not isinstance(content.get(name), dict):
            raise CheckpointError(call, f"a checkpoint with the {name}", "it has none", f"Leave out {name}=.")
    step, seed = content.get("step"), content.get("generator")
    if type(step) is not int or not isinstance(seed, list) or [type(n) for n in seed] != [int, int]:
        raise CheckpointError(call, "a step and the state of a generator", f"got {step!r} and {seed!r}")
    undo: list[Callable[[], Any]] = []
    try:
        if model is not None:
            state = content["model"]
            if "base" in content:
                state = {**_of_base(call, model, content["base"], base, source, state), **state}
            before = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(state)
            undo.append(lambda: model.load_state_dict(before))
        if optimizer is not None:
            earlier = optimizer.state_dict()
            optimizer.load_state_dict(content["optimizer"])
            undo.append(lambda: optimizer.load_state_dict(earlier))
        for part, name in ((scheduler, "scheduler"), (scaler, "scaler")):
            if part is not None:
                undo.append(partial(part.load_state_dict, part.state_dict()))
                part.load_state_dict(content[name])
        (generator or default_generator).set_state((seed[0], seed[1]))
    except BaseException as error:
        for restore in reversed(undo):
            restore()
        if isinstance(error, FAULTS) and not isinstance(error, TinyedgeError):
            raise CheckpointError(
                call, "states as save_checkpoint writes them", f"{type(error).__name__}: {shown(error)}",
                "Take an earlier checkpoint.",
            ) from None  # fmt: skip
        raise
    return step


def _of_base(
    call: str, model: Module, stated: Any, base: PathLike | None, source: Path, state: Any
) -> dict[str, Tensor]:
    """The tensors that the checkpoint leaves to its base."""
    if (
        not isinstance(stated, dict)
        or not isinstance(stated.get("name"), str)
        or Path(stated["name"]).name != stated["name"]
    ):
        raise CheckpointError(call, "the name and sha256 of a base", f"got {stated!r}")
    place = source.parent / stated["name"] if base is None else Path(base)
    if not place.exists():
        raise CheckpointError(
            call, f"its base, {stated['name']}, beside it", f"{place} is not there", "Pass base=PATH."
        )
    found = _digest(files.read_whole(place))
    if found != stated.get("sha256"):
        raise CheckpointError(
            call, f"the base on which it was made, sha256 {stated.get('sha256')}", f"{place} has {found}",
            "Pass base=PATH of that file.",
        )  # fmt: skip
    known = load_safetensors(place, device="numpy")
    return {
        name: known[plain_name(name)] for name in model.state_dict() if name not in state and plain_name(name) in known
    }
