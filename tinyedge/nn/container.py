"""Modules of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from typing import Any, overload

from tinyedge.nn.module import Module

# Containers


class Sequential(Module):
    """Modules called one after the other; named 0, 1, ..., or as an ordered mapping says.

    >>> nn.Sequential(nn.Flatten(), nn.Linear(784, 10))[1].out_features
    10
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        mapping = len(args) == 1 and isinstance(args[0], Mapping)
        for name, module in args[0].items() if mapping else enumerate(args):
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return self.get_submodule(_key(self, index))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, _key(self, index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [_key(self, index)]:
            del self._modules[name]
        if all(name.isdigit() for name in names):
            _renumber(self, list(self._modules.values()))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return (module for module in self._modules.values() if module is not None)

    def append(self, module: Module) -> Sequential:
        _append(self, module)
        return self

    def extend(self, modules: Iterable[Module]) -> Sequential:
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Sequential:
        _insert(self, index, module)
        return self


class ModuleList(Module):
    """``modules`` in a list, registered; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return ModuleList(list(self)[index])
        return self.get_submodule(_key(self, index))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, _key(self, index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [_key(self, index)]:
            del self._modules[name]
        _renumber(self, list(self._modules.values()))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return (module for module in self._modules.values() if module is not None)

    def append(self, module: Module) -> ModuleList:
        _append(self, module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        _insert(self, index, module)

    def pop(self, index: int) -> Module:
        """Take a module out."""
        module = self[index]
        del self[index]
        return module

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __add__(self, modules: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *modules])

    def _child_lines(self) -> list[str]:
        lines, start = [], 0
        for text, run in groupby(repr(module) for module in self):
            length = len(list(run))
            lines.append(f"({start}): {text}" if length == 1 else f"({start}-{start + length - 1}): {length} x {text}")
            start += length
        return lines


class ModuleDict(Module):
    """``modules`` in a dict, registered; it has no forward of its own."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __getitem__(self, key: str) -> Module:
        if key not in self._modules:
            raise KeyError(key)
        return self.get_submodule(key)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        return self._modules.keys()

    def values(self) -> Iterable[Module | None]:
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module | None]]:
        return self._modules.items()

    def pop(self, key: str) -> Module:
        """Take a module out."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        for key, module in modules.items() if isinstance(modules, Mapping) else modules:
            self.add_module(key, module)


def _key(container: Sequential | ModuleList, index: int) -> str:
    names = list(container._modules)
    if not -len(names) <= index < len(names):
        raise IndexError(f"{type(container).__name__} of {len(names)} modules has no index {index}")
    return names[index]


def _append(container: Sequential | ModuleList, module: Module) -> None:
    free = (str(number) for number in count(len(container)) if str(number) not in container._modules)
    container.add_module(next(free), module)


def _renumber(container: Module, modules: Sequence[Module | None]) -> None:
    container._modules.clear()
    container._modules.update((str(number), module) for number, module in enumerate(modules))


def _insert(container: Sequential | ModuleList, index: int, module: Module) -> None:
    modules = list(container)
    if not -len(modules) <= index <= len(modules):
        raise IndexError(f"{type(container).__name__} of {len(modules)} modules has no place {index}")
    modules.insert(index, module)
    _renumber(container, modules)
