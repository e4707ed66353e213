"""Which functions of Python and its libraries always return the same for equal arguments.

In: a function, class or module. Out: whether compiled functions may use it without its code being looked into. Whatever
is not listed here is refused.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import fractions
import io
import itertools
import operator
import os
import random
import sys
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

PURE = frozenset({
    "__future__", "_bisect", "_collections", "_collections_abc", "_datetime", "_decimal", "_functools", "_hashlib",
    "_heapq", "_operator", "_sre", "_string", "_struct", "_typing", "abc", "base64", "binascii", "bisect", "cmath",
    "collections", "colorsys", "contextlib", "copy", "copyreg", "dataclasses", "datetime", "decimal", "difflib",
    "enum", "fractions", "functools", "genericpath", "graphlib", "hashlib", "heapq", "html", "itertools", "json",
    "keyword", "math", "mypy_extensions", "ntpath", "numbers", "operator", "pathlib", "posixpath", "pprint", "re",
    "reprlib", "statistics", "string", "struct", "textwrap", "types", "typing", "typing_extensions", "unicodedata",
    "zlib",
})  # fmt: skip
"""Modules whose functions and classes are pure, except for the names in ``IMPURE``."""

SILENT = frozenset(
    {"logging", "warnings", "_warnings", "traceback", "typing", "types", "typing_extensions", "__future__"}
)
"""Modules that print to the user or serve type checkers, and return nothing that a result could depend on."""

IMPURE = {
    "datetime": {"now", "today", "utcnow", "fromtimestamp", "utcfromtimestamp", "astimezone", "timestamp"},
    "pathlib": {
        "absolute", "chmod", "cwd", "exists", "expanduser", "glob", "group", "home", "is_block_device",
        "is_char_device", "is_dir", "is_fifo", "is_file", "is_mount", "is_socket", "is_symlink", "iterdir",
        "lchmod", "link_to", "lstat",
        "mkdir", "open", "owner", "read_bytes", "read_text", "readlink", "rename", "rglob", "rmdir", "samefile", "stat",
        "symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text", "hardlink_to",
    },
    "posixpath": {
        "abspath", "exists", "expanduser", "expandvars", "getatime", "getctime", "getmtime", "getsize", "isdir",
        "isfile",
        "islink", "ismount", "lexists", "realpath", "relpath", "samefile", "sameopenfile", "samestat", "isjunction",
        "isdevdrive",
    },
    "traceback": {"extract_stack", "extract_tb", "format_stack", "walk_stack", "walk_tb", "StackSummary"},
    "typing": {"get_type_hints"},
    "json": {"load", "dump"},
    "decimal": {"getcontext", "setcontext", "localcontext"},
    "types": {"FrameType", "TracebackType"},
    "hashlib": {"file_digest"},
    "numpy": {
        "random", "load", "loadtxt", "genfromtxt", "fromfile", "memmap", "open_memmap", "lib", "DataSource", "save",
        "savez",
        "savetxt", "savez_compressed", "geterr", "seterr", "get_printoptions", "test", "ctypeslib", "f2py", "testing",
        "array2string", "array_repr", "array_str", "show_config", "show_runtime", "distutils", "core", "_core",
        "fromregex",
    },
}  # fmt: skip
"""Names in pure modules that depend on the world outside: the time, files, contexts."""
IMPURE["ntpath"] = IMPURE["genericpath"] = IMPURE["posixpath"]

IMPURE_BUILTINS = frozenset({
    "__import__", "breakpoint", "compile", "copyright", "credits", "eval", "exec", "exit", "globals", "help", "id",
    "input", "license", "locals", "memoryview", "open", "quit",
})  # fmt: skip

HIDDEN = frozenset({
    "__builtins__", "__closure__", "__globals__", "__loader__", "__spec__", "__subclasses__", "ag_frame",
    "cell_contents", "cr_frame", "f_back", "f_builtins", "f_globals", "f_locals", "gi_frame", "tb_frame",
})  # fmt: skip
"""Attributes that lead to any object."""

READS_ALL = {vars, dir, dataclasses.asdict, dataclasses.astuple, copy.replace} if hasattr(copy, "replace") else {
    vars, dir, dataclasses.asdict, dataclasses.astuple,
}  # fmt: skip
"""Functions that read attributes which no code names."""

BY_NAME = {getattr: slice(1, 2), hasattr: slice(1, 2), setattr: slice(1, 2), delattr: slice(1, 2)}
"""Functions that read the attributes named by some of their arguments: known if these are text constants."""
BY_NAME |= {operator.attrgetter: slice(0, None), operator.methodcaller: slice(0, 1)}  # type: ignore[dict-item]

MAKES_TEXT = {str, repr, format, ascii, operator.mod, operator.imod}

TEXT_NAMES = frozenset({
    "__format__", "__mod__", "__repr__", "__rmod__", "__str__", "format", "format_map", "safe_substitute",
    "substitute", "vformat",
})  # fmt: skip
"""Methods that make text of values."""

COMPARES = {
    operator.eq, operator.ne, operator.contains, operator.countOf, operator.indexOf, operator.is_, operator.is_not,
    itertools.groupby,
}  # fmt: skip
COMPARING_NAMES = frozenset({"__contains__", "__eq__", "__ne__", "count", "index", "remove"})
"""Functions, and methods, that ask whether values are equal."""

_READ_BY = {
    contextlib.closing: ("close",),
    fractions.Fraction: ("numerator", "denominator", "as_integer_ratio"),
}


def read_by(function: Any) -> tuple[str, ...]:
    """The attributes that a library function reads of what it is given, and that no code of the user mentions."""
    try:
        found = _READ_BY.get(function, ())
    except TypeError:  # it cannot be hashed
        return ()
    if not found and is_numpy(getattr(function, "__module__", None)):  # np.sum(thing) calls thing.sum()
        return (function.__name__,)
    return found


@cache
def top_of(module: str | None) -> str:
    """The outermost package; nothing for one of the user's that has the name of one of Python's."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        file = getattr(sys.modules.get(top), "__file__", None)
        if file is not None and not Path(file).is_relative_to(Path(os.__file__).parent):
            return ""
    return top


def is_tinyedge(module: str | None) -> bool:
    """Whether a module is of this package."""
    return top_of(module) == __name__.partition(".")[0]


@cache
def _is_standard(top: str) -> bool:
    return top in sys.stdlib_module_names and top != "__main__"


def is_standard(module: str | None) -> bool:
    """Whether a module belongs to Python itself, whose code is not looked into."""
    return _is_standard(top_of(module))


def is_pure(module: str | None) -> bool:
    """Whether a module is pure, except for its ``impure_names``."""
    return top_of(module) in PURE or is_tinyedge(module)


def has_settings(module: str | None) -> bool:
    """Whether a module of this package has classes whose instances compute from attributes that the user may set."""
    top, _, below = str(module).partition(".")
    return is_tinyedge(top) and below.partition(".")[0] in ("data", "distributions", "models")


def is_silent(module: str | None) -> bool:
    """Whether what a module does, such as logging, is no part of the result."""
    return top_of(module) in SILENT


def is_numpy(module: str | None) -> bool:
    """Whether a module is NumPy's, but for what is random, or files."""
    return top_of(module) == "numpy" and not str(module).startswith(
        ("numpy.random", "numpy.lib.npyio", "numpy.testing")
    )


def is_library(module: str | None) -> bool:
    """Whether the code of a module is not looked into, allowed or not: Python's own, NumPy's and this package's."""
    return is_standard(module) or top_of(module) == "numpy" or is_pure(module)


def impure_names(module: str | None) -> set[str]:
    """The names of a pure module that depend on the world outside."""
    return IMPURE.get(top_of(module), set())


def is_allowed(function: Any) -> bool:
    """Whether a function or class of a library, or one written in C, returns the same for equal arguments."""
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None)
    if isinstance(function, type):
        if issubclass(function, BaseException):
            return True
    elif isinstance(function, FunctionType):
        module = function.__globals__.get("__name__")
    elif module is None and isinstance(owner := getattr(function, "__objclass__", None), type):
        module = owner.__module__  # a method of a class that is written in C
    if module == "builtins":
        return name not in IMPURE_BUILTINS
    if is_tinyedge(module) or is_silent(module):
        return name not in impure_names(module)
    if top_of(module) in PURE or is_numpy(module) or isinstance(function, np.ufunc):
        return name not in impure_names(module)
    return False


def is_opaque(value: Any) -> bool:
    """Whether a value has no state on which a result could depend."""
    return is_silent(type(value).__module__) and not isinstance(value, (ModuleType, BuiltinFunctionType, FunctionType))


def is_namespace(cls: type) -> bool:
    """Whether a class of Python's does nothing but hold attributes that the user chose."""
    return cls is SimpleNamespace or (cls.__module__, cls.__qualname__) == ("argparse", "Namespace")


def makes_text(function: Any) -> bool:
    """Whether a library function may make text of what it is given."""
    try:
        return function in MAKES_TEXT or top_of(getattr(function, "__module__", None)) in ("pprint", "reprlib")
    except TypeError:  # it cannot be hashed
        return False


def advances(value: Any) -> bool:
    """Whether a value gives another result each time it is used: a source of random numbers, or an iterator."""
    made: type = type(value)
    sources = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
    return issubclass(made, sources) or (hasattr(made, "__next__") and not issubclass(made, io.IOBase))


__all__ = [
    "BY_NAME",
    "COMPARES",
    "COMPARING_NAMES",
    "HIDDEN",
    "IMPURE_BUILTINS",
    "READS_ALL",
    "TEXT_NAMES",
    "advances",
    "has_settings",
    "impure_names",
    "is_allowed",
    "is_library",
    "is_namespace",
    "is_opaque",
    "is_pure",
    "is_silent",
    "is_standard",
    "is_tinyedge",
    "makes_text",
    "read_by",
]
