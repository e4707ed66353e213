"""Write the stubs (.pyi) of the modules that are filled from the registry of ops: ``make stubs``.

Editors and mypy read them in place of these modules, which have next to no text of their own. ``--check`` writes
nothing, and fails if a stub is not what it would be.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import tinyedge as te
from tinyedge import gradients
from tinyedge.autograd.registry import Entry, classes_of, entries, import_all, methods_of
from tinyedge.nn import forwarding
from tinyedge.optim import Optimizer

PACKAGE = Path(te.__file__).parent
WIDTH = 120
HEADER = "# Written by tools/stubs.py: run make stubs.\n"


@cache
def imports_and_names(module: str) -> tuple[dict[str, str], frozenset[str]]:
    """Of a module's text: where each name is imported from, and the names that it binds itself."""
    tree = ast.parse(Path(str(sys.modules[module].__file__)).read_text())
    imported = {
        alias.asname or alias.name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    own = {target.id for target in assigned if isinstance(target, ast.Name)}
    own |= {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    return imported, frozenset(own)


def home(module: str, name: str) -> str:
    """The module in which the text of ``module`` finds ``name``: a stub must import it from there. What a folder shows
    in its ``__all__`` is imported from the folder.
    """
    imported, own = imports_and_names(module)
    if name in own or name not in imported or name in getattr(sys.modules[module], "__all__", ()):
        return module
    return home(imported[name], name) if imported[name].startswith("tinyedge.") else imported[name]


def kind_and_name(name: str) -> tuple[bool, bool, list[str | int]]:
    """The linter's order: constants, classes, all others; log2 before log10."""
    return not name.isupper(), not name[0].isupper(), natural(name)


def natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def import_lines(names: Iterable[tuple[str, str]], again: bool = False) -> Iterator[str]:
    """``from module import name`` for (module, name), ``as name`` where the stub's readers may import it again."""
    by_module: dict[str, set[str]] = {}
    for module, name in names:
        by_module.setdefault(module, set()).add(name)
    for module in sorted(by_module, key=lambda module: (module.startswith("tinyedge"), module)):
        found = sorted(by_module[module], key=lambda name: (*kind_and_name(name)[:2], natural(name.lower())))
        if again:
            yield from (f"from {module} import {name} as {name}" for name in found)
        else:
            yield f"from {module} import {', '.join(found)}"


def import_block(names: Iterable[tuple[str, str]]) -> str:
    lines = list(import_lines(names))
    standard = [line for line in lines if "tinyedge" not in line]
    own = [line for line in lines if "tinyedge" in line]
    return "\n".join([HEADER.rstrip(), "", *standard, "", *own, ""])


def all_line(names: Iterable[str]) -> str:
    return "\n".join(["__all__ = [", *(f'    "{name}",' for name in sorted(names, key=kind_and_name)), "]"])


def names_in(signature: inspect.Signature) -> set[str]:
    """What its annotations mention."""
    texts = [signature.return_annotation, *(parameter.annotation for parameter in signature.parameters.values())]
    words = {word for text in texts if text is not inspect.Signature.empty for word in re.findall(r"\w+", text)}
    return {word for word in words if not hasattr(builtins, word)}


def definition(name: str, signature: inspect.Signature, doc: str | None = None) -> str:
    """A method's stub, as the formatter has it."""
    parameters, seen_star = [], False
    for number, (parameter_name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind is parameter.VAR_POSITIONAL:
            seen_star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not seen_star:
            parameters.append("*")
            seen_star = True
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = "self" if number == 0 else f"{star}{parameter_name}: {parameter.annotation}"
        default = parameter.default
        if default is not parameter.empty:
            text += f' = "{default}"' if isinstance(default, str) else f" = {default!r}"
        parameters.append(text)
    head, tail = f"    def {name}(", f") -> {signature.return_annotation}:" + ("" if doc else " ...")
    line = head + ", ".join(parameters) + tail
    if len(line) > WIDTH:
        line = "\n".join([head, *(f"        {parameter}," for parameter in parameters), f"    {tail}"])
    return f"{line}\n{docstring(doc, ' ' * 8)}\n" if doc else line


def docstring(doc: str, indent: str) -> str:
    """The first paragraph."""
    first = " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())
    lines = textwrap.wrap(first, WIDTH - len(indent) - 6, break_on_hyphens=False)
    if len(lines) == 1:
        return f'{indent}"""{lines[0]}"""'
    return "\n".join([f'{indent}"""{lines[0]}', *(f"{indent}{line}" for line in lines[1:]), f'{indent}"""'])


def methods_stub() -> str:
    names: set[tuple[str, str]] = {("tinyedge.tensor", "Tensor")}
    found: list[tuple[str, str]] = []
    for entry in entries.values():
        for name, method in methods_of(entry).items():
            signature = inspect.signature(method)
            if name.startswith("__"):  # what operators take is checked by the functions
                own, *others = signature.parameters.values()
                count = 2 if name == "__setitem__" else 1
                taken = [other.replace(annotation="Any") for other in others[:count] if other.default is other.empty]
                signature = inspect.Signature([own, *taken], return_annotation=signature.return_annotation)
            names |= {(home(entry.function.__module__, word), word) for word in names_in(signature)}
            found.append((name, definition(name, signature, method.__doc__)))
    body = "\n".join(text for _, text in sorted(found))
    return f"{import_block(names)}\nclass Methods:\n{body.rstrip()}\n"


def functions_stub(belonging: list[Entry], extra: Iterable[tuple[str, str]] = ()) -> str:
    found = {(entry.function.__module__, entry.name) for entry in belonging} | set(extra)
    return f"{HEADER}\n" + "\n".join(import_lines(found, again=True)) + f"\n\n{all_line(name for _, name in found)}\n"


def space_stub(belonging: list[Entry]) -> str:
    """As functions_stub, of a module that shows functions by names of its own."""
    lines = sorted(f"from {entry.function.__module__} import {entry.name} as {entry.shown_name}" for entry in belonging)
    return f"{HEADER}\n" + "\n".join(lines) + f"\n\n{all_line(entry.shown_name for entry in belonging)}\n"


def layers_stub() -> str:
    names = {("tinyedge.nn.module", "Module"), ("tinyedge.tensor", "Tensor")}
    classes = []
    for entry in sorted(entries.values(), key=lambda entry: str(entry.module)):
        if entry.module is None:
            continue
        made, forwarded = forwarding.signatures(entry)
        for signature in (made, forwarded):
            names |= {(home(entry.function.__module__, word), word) for word in names_in(signature)}
        attributes = [f"    {p.name}: {p.annotation}" for p in list(made.parameters.values())[1:]]
        classes.append(
            "\n".join([
                f"class {entry.module}(Module):",
                docstring(str(entry.function.__doc__), "    "),
                "",
                *attributes,
                definition("__init__", made),
                definition("forward", forwarded),
                "",
            ])
        )  # fmt: skip
    return f"{import_block(names)}\n" + "\n".join(classes)


def classes_stub(found: dict[str, type], extra: Iterable[tuple[str, str]]) -> str:
    names = {(value.__module__, name) for name, value in found.items()} | set(extra)
    return f"{HEADER}\n" + "\n".join(import_lines(names, again=True)) + f"\n\n{all_line(name for _, name in names)}\n"


def stubs() -> dict[Path, str]:
    """The text of each stub, by its path."""
    own = [entry for entry in entries.values() if entry.function.__module__.startswith("tinyedge.")]
    random = [
        ("tinyedge.ops.random", name)
        for name in ("Generator", "get_rng_state", "initial_seed", "manual_seed", "set_rng_state")
    ]
    layers = classes_of(import_all("tinyedge.nn", te.nn.__path__))
    optimizers = classes_of(import_all("tinyedge.optim", te.optim.__path__))
    modules = [("tinyedge.nn", name) for name in ("functional", "init", "utils")]
    surroundings = [("tinyedge.gradients", name) for name in gradients.__all__]
    return {
        PACKAGE / "autograd/__init__.pyi": classes_stub({}, surroundings),
        PACKAGE / "autograd/methods.pyi": methods_stub(),
        PACKAGE / "ops/__init__.pyi": functions_stub([entry for entry in own if entry.top], random),
        **{
            PACKAGE / f"ops/{space}.pyi": space_stub([entry for entry in own if entry.space == space])
            for space in ("linalg", "special")
        },
        PACKAGE / "nn/functional.pyi": functions_stub([entry for entry in own if entry.functional]),
        PACKAGE / "nn/layers.pyi": layers_stub(),
        PACKAGE / "nn/__init__.pyi": classes_stub(layers, [*modules, ("tinyedge.tensor", "Parameter")]),
        PACKAGE / "optim/__init__.pyi": classes_stub(
            {name: found for name, found in optimizers.items() if issubclass(found, Optimizer)},
            [("tinyedge.optim", "lr_scheduler"), ("tinyedge.gradients.anomaly", "detect_anomaly")],
        ),
    }


def main() -> None:
    stale = [path for path, text in stubs().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(map(str, stale))}. Run make stubs." if stale else 0)
    for path in stale:
        path.write_text(stubs()[path])


if __name__ == "__main__":
    main()
