"""The order of imports: lower layers never import higher ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinyedge

PACKAGE = Path(tinyedge.__file__).parent
LAYERS = (
    ("errors", "config", "files", "shapes", "dtypes", "interrupts", "bytecode", "purity", "containers"),
    ("kernels",),
    ("op",),
    ("tape",),
    ("fusion", "drawn", "chain"),
    ("backends",),
    ("plan", "arenas"),
    ("tensor", "recompute"),
    ("ops",),
    ("nn", "report", "rewrite", "guards", "recording", "program", "checking", "compiled", "optim", "budget", "tuning"),
    ("models", "data", "convert", "federated"),
    ("__init__",),
    ("bench",),
    ("cli",),
)
"""Lowest first. A module may import from its own layer and from those below. The package itself gathers what is below
it; the command line and what it measures with are its users."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}
FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])


def is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield child
        yield from runtime_nodes(child)


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """The first name below ``tinyedge`` of everything imported from it; "" for the package itself."""
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                if first == "tinyedge":
                    yield rest.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*base, *(node.module.split(".") if node.module else ()))
            if parts[:1] != ("tinyedge",):
                continue
            if len(parts) > 1:
                yield parts[1]
            else:  # from tinyedge import a, b
                yield from (alias.name if alias.name in LEVEL else "" for alias in node.names)


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level_of(module: str) -> int:
    return LEVEL[{"": "__init__", "__main__": "cli"}.get(module, module)]


@every_file
def test_imports_run_downward(path: Path) -> None:
    module = module_of(path)
    assert module in LEVEL or module == "__main__", f"{module} has no place in LAYERS"
    package = ("tinyedge", *path.relative_to(PACKAGE).parent.parts)
    for imported in imported_modules(ast.parse(path.read_text()), package):
        assert level_of(imported) <= level_of(module), f"{path.name} imports {imported or 'tinyedge'} from above"


@every_file
def test_only_config_reads_the_environment(path: Path) -> None:
    if path == PACKAGE / "config.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in ("environ", "environb", "getenv", "putenv"), f"line {node.lineno}: os.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "environb", "getenv", "putenv"}


PYTORCHS_NAMES = {Path("nn/utils.py")}


@every_file
def test_names_say_what_is_inside(path: Path) -> None:
    if path.relative_to(PACKAGE) in PYTORCHS_NAMES:
        return
    words = {word for part in path.relative_to(PACKAGE).with_suffix("").parts for word in part.lower().split("_")}
    assert not words & FORBIDDEN_NAMES


def test_an_upward_import_is_found() -> None:
    tree = ast.parse(
        "def f():\n    from tinyedge.ops import relu\nif TYPE_CHECKING:\n    from tinyedge.nn import Module\n"
    )
    assert list(imported_modules(tree, ("tinyedge",))) == ["ops"]
    relative = ast.parse("from . import tensor\nfrom ..nn import functional\n")
    assert list(imported_modules(relative, ("tinyedge", "ops"))) == ["ops", "nn"]
    assert list(imported_modules(ast.parse("import tinyedge as te"), ("tinyedge",))) == [""]
