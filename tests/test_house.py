"""What every file of the package keeps: its length, what it says of itself, the glossary's words."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import tinyedge
from tinyedge import nn, optim
from tinyedge.autograd.registry import entries

PACKAGE = Path(tinyedge.__file__).parent
ROOT = Path(__file__).parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))

FILE_LINES = 700
FUNCTION_LINES = 60
"""Without the signature and the docstring."""
LEVELS = 4

LONGER = {("kernels/gemm.py", "gemm_kernels"), ("kernels/tile.py", "tile_kernels")}
"""Each makes one KernelSpec, whose sizes and constants are one list; parts of it would pass all of them on."""
DEEPER = {
    ("adapt/live.py", "prepare"),
    ("backends/opencl/drivers.py", "_try"),
    ("backends/opencl/memory.py", "trim"),
    ("optim/optimizer.py", "_plan_update"),
}

PRIVATE_WORDS = re.compile(
    r"\b(?:heirs?|slack|surroundings|settled|tickets?|stand-?ins?|standing.in|bake[ds]?|first summands|rehearsals?)\b",
    re.IGNORECASE,
)
"""Words that ideas once had here, where the field has others: CONTRIBUTING.md's last rule."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions_in(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its signature and its docstring."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def levels(node: ast.AST) -> int:
    """How deeply blocks lie in each other; ``elif`` is no deeper than its ``if``, and what is defined inside counts by
    itself.
    """
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        is_block = isinstance(child, (ast.If, ast.For, ast.While, ast.With, ast.Try)) and not is_elif
        deepest = max(deepest, levels(child) + is_block)
    return deepest


def test_a_file_answers_one_question() -> None:
    """It has at most 700 lines, tests too, and its docstring says what it is for."""
    for path in (*FILES, *(ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= FILE_LINES, f"split {path}"
        assert ast.get_docstring(tree_of(path)) or not text, f"say in a docstring what {path} is for"


def test_a_function_does_one_thing() -> None:
    problems = []
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        for function in functions_in(path):
            name = (place, function.name)
            if name not in LONGER and body_lines(function) > FUNCTION_LINES:
                problems.append(f"{place}: {function.name} has {body_lines(function)} lines")
            if name not in DEEPER and levels(function) > LEVELS:
                problems.append(f"{place}: blocks of {function.name} lie {levels(function)} deep")
    assert not problems, "\n".join(problems)


def test_words_are_the_glossarys() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in [*FILES, *PACKAGE.rglob("*.jinja"), *documents]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in PRIVATE_WORDS.finditer(line)
    ]
    assert not found, "\n".join(found)


EXPLAINED_FOR_ALL = {"self", "args", "kwargs", "device", "dtype", "inplace", "reduction", "size_average", "reduce"}
"""By the docstring of ``nn``."""


def explained(cls: type) -> str:
    """The docstring of a class, and those of the classes and functions that it refers to."""
    doc = inspect.getdoc(cls) or ""
    named = [getattr(nn, name, None) or entries.get(name) for name in re.findall(r"``(?:F\.|te\.)?(\w+)``", doc)]
    others = [each.function if hasattr(each, "function") else each for each in named if each is not None]
    return "\n".join([doc, *[inspect.getdoc(each) or "" for each in others]])


def test_a_layer_explains_its_arguments() -> None:
    without = {nn.Parameter, nn.RemovableHandle, nn.IncompatibleKeys, nn.ParameterList}
    problems = []
    for name in nn.__all__:
        cls = getattr(nn, name)
        if not isinstance(cls, type) or cls in without:
            continue
        text = explained(cls)
        arguments = set(inspect.signature(cls.__init__).parameters) - EXPLAINED_FOR_ALL
        problems += [f"{name}: {each}" for each in sorted(arguments) if not re.search(rf"\b{each}\b", text)]
        has_forward = getattr(cls, "forward", nn.Module.forward) is not nn.Module.forward
        if has_forward and cls is not nn.Sequential and "Shapes:" not in text:
            problems.append(f"{name}: Shapes")
    assert not problems, "\n".join(problems)


def test_an_optimizer_explains_its_options() -> None:
    said_of_all = {"self", "params", *re.findall(r"\w+", inspect.getdoc(optim.Optimizer) or "")}
    for cls in [getattr(optim, name) for name in optim.__all__]:
        if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer:
            text = (inspect.getdoc(cls) or "") + (inspect.getdoc(optim.Adam) if issubclass(cls, optim.Adam) else "")
            missing = set(inspect.signature(cls.__init__).parameters) - said_of_all - set(re.findall(r"\w+", text))
            assert not missing, f"{cls.__name__}: {missing}"


def test_the_measures_measure() -> None:
    tree = ast.parse(
        'def f(\n    a,\n):\n    """Text.\n\n    More.\n    """\n    if a:\n        for x in a:\n            pass\n'
        "    elif not a:\n        pass\n    return a\n"
    )
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    assert body_lines(function) == 6
    assert levels(function) == 2
    assert PRIVATE_WORDS.search("its stand-in") and not PRIVATE_WORDS.search("to stand in a file")  # noqa: PT018
