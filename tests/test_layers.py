"""The order of stages: nothing imports what comes later, and no files import each other in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinyedge

PACKAGE = Path(tinyedge.__file__).parent
STAGES = (
    "errors",
    "config",
    "files",
    "shapes",
    "blocks",
    "dtypes",
    "containers",
    "ir",
    "kernels",
    "backends",
    "autograd",
    "tensor",
    "ops",
    "gradients",
    "distributions",
    "nn",
    "func",
    "report",
    "compiler",
    "optim",
    "amp",
    "models",
    "data",
    "utils",
    "convert",
    "onnx",
    "adapt",
    "federated",
    "__init__",
    "bench",
    "cli",
    "__main__",
)
"""Each is a folder or a file, and imports only from those before it, for the sake of types too. The package itself
gathers what is before it; the command line and what it measures with are its users."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}
FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])


def name_of(path: Path) -> str:
    """``ops.conv``; ``ops`` for the file of the folder itself, and "" for that of the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported_modules(tree: ast.AST, package: tuple[str, ...], modules: frozenset[str]) -> Iterator[str]:
    """The modules below ``tinyedge`` that are imported anywhere in a file; "" for the package itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                if first == "tinyedge":
                    yield rest
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*base, *(node.module.split(".") if node.module else ()))
            if parts[:1] != ("tinyedge",):
                continue
            module = ".".join(parts[1:])
            for alias in node.names:  # a module, or what is in one
                below = f"{module}.{alias.name}".lstrip(".")
                yield below if below in modules else module


def imports_of(path: Path) -> set[str]:
    package = ("tinyedge", *path.relative_to(PACKAGE).parent.parts)
    return set(imported_modules(ast.parse(path.read_text()), package, frozenset(MODULES)))


def stage_of(module: str) -> int:
    return STAGES.index(module.partition(".")[0] or "__init__")


@every_file
def test_imports_run_downward(path: Path) -> None:
    module = name_of(path)
    for imported in imports_of(path) - {module}:
        above = stage_of(imported) > stage_of(module)
        assert not above, f"{path.name} imports {imported or 'tinyedge'} from a later stage"


def test_no_files_import_each_other() -> None:
    imports = {module: imports_of(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for imported in sorted(imports[module] - {""}):
                visit(imported, (*above, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_stages_are_few_files_and_folders() -> None:
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} == set(STAGES)
    assert len(list(PACKAGE.glob("*.py"))) <= 11


@every_file
def test_only_config_reads_the_environment(path: Path) -> None:
    if path == PACKAGE / "config.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in ("environ", "environb", "getenv", "putenv"), f"line {node.lineno}: os.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "environb", "getenv", "putenv"}


PYTORCHS_NAMES = {Path("nn/utils"), Path("utils"), Path("utils/data")}


@every_file
def test_names_say_what_is_inside(path: Path) -> None:
    place = path.relative_to(PACKAGE)
    parts = [place.stem] if place.parent in PYTORCHS_NAMES else place.with_suffix("").parts
    words = {word for part in parts for word in part.lower().split("_")}
    assert not words & FORBIDDEN_NAMES


def test_an_upward_import_is_found() -> None:
    modules = frozenset({"", "ops", "ops.conv", "nn"})
    tree = ast.parse(
        "def f():\n    from tinyedge.ops import relu, conv\nif TYPE_CHECKING:\n    from tinyedge.nn import Module\n"
    )
    assert list(imported_modules(tree, ("tinyedge",), modules)) == ["ops", "ops.conv", "nn"]
    relative = ast.parse("from . import tensor\nfrom ..nn import functional\n")
    assert list(imported_modules(relative, ("tinyedge", "ops"), modules)) == ["ops", "nn"]
    assert list(imported_modules(ast.parse("import tinyedge as te"), ("tinyedge",), modules)) == [""]


@every_file
def test_private_names_stay_in_their_file(path: Path) -> None:
    """What another file needs is no private name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tinyedge":
            taken = [alias.name for alias in node.names if re.match(r"_[a-z]", alias.name, re.IGNORECASE)]
            assert not taken, f"{path.name} imports {', '.join(taken)} of {node.module}"
