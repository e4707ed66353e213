"""Module: the base of every layer and model. It owns parameters, buffers and other modules, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinyedge import dtypes
from tinyedge.autograd.checkpoint import checkpoint
from tinyedge.autograd.hooks import Handle
from tinyedge.autograd.minibatch import require_no_minibatch
from tinyedge.autograd.modes import no_grad
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, DtypeError, StateDictError
from tinyedge.gradients.gate import Gates
from tinyedge.ir.values import note_leaf_change
from tinyedge.nn import state_hooks
from tinyedge.nn.older_names import OlderNames
from tinyedge.nn.selection import Chosen, selected
from tinyedge.nn.values import misfit, moved_tensor
from tinyedge.tensor import Parameter, Tensor, as_tensor, destination, require_trainable
from tinyedge.tensor.memory_format import check_memory_format

M = TypeVar("M", bound="Module")
Item = TypeVar("Item", bound=Tensor)

_hook_numbers = count()


class IncompatibleKeys(NamedTuple):
    """The names in which a state dict and a model differ, as ``load_state_dict`` returns them; else both are empty."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class RemovableHandle(Handle):
    """What registering a hook returns: ``remove()`` it, or use it as a context manager."""


_changes = 0


def member_changes() -> int:
    """How often the members and modes of any module have changed: what was learnt of one before is true until then."""
    return _changes


def _count_change() -> None:
    global _changes
    _changes += 1


class _Members(dict[Any, Any]):
    """Parameters, buffers or modules by name, hooks by number, or a module's ``__dict__``: changes are counted."""

    def __setitem__(self, name: Any, value: Any) -> None:
        _count_change()
        super().__setitem__(name, value)

    def __delitem__(self, name: Any) -> None:
        _count_change()
        super().__delitem__(name)

    def pop(self, *args: Any) -> Any:
        _count_change()
        return super().pop(*args)

    def clear(self) -> None:
        _count_change()
        super().clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        _count_change()
        super().update(*args, **kwargs)

    def setdefault(self, *args: Any) -> Any:
        _count_change()
        return super().setdefault(*args)

    def popitem(self) -> Any:
        _count_change()
        return super().popitem()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        _count_change()
        return super().__ior__(other)


class Module(OlderNames):
    """Base of layers and models: assign parameters and modules as attributes in ``__init__``, and define ``forward``.

    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter(te.tensor(2.0))
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    training: bool
    checkpointed: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]  # buffers that are not part of the state dict
    _pre_hooks: dict[int, tuple[Callable[..., Any], bool]]
    _hooks: dict[int, tuple[Callable[..., Any], bool]]
    _backward_pre_hooks: dict[int, Callable[..., Any]]
    _backward_hooks: dict[int, Callable[..., Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.__dict__ = _Members()  # what is written through vars(module) is counted; assignments count by themselves
        return self

    def __init__(self) -> None:
        self.__dict__.update(
            training=True,
            checkpointed=False,
            _parameters=_Members(),
            _buffers=_Members(),
            _modules=_Members(),
            _transient=set(),
            _pre_hooks=_Members(),
            _hooks=_Members(),
            _backward_pre_hooks=_Members(),
            _backward_hooks=_Members(),
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; call the module itself, so that its hooks run."""
        raise NotImplementedError(f"{type(self).__name__} needs a forward method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = partial(checkpoint, self.forward) if self.checkpointed else self.forward
        backward = self._backward_pre_hooks or self._backward_hooks
        if not self._pre_hooks and not self._hooks and not backward:
            return forward(*args, **kwargs)
        for hook, with_kwargs in tuple(self._pre_hooks.values()):
            result = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if result is not None and with_kwargs:
                args, kwargs = result
            elif result is not None:
                args = result if isinstance(result, tuple) else (result,)
        gates = Gates(self, self._backward_pre_hooks, self._backward_hooks) if backward else None
        if gates is not None:
            args = gates.way_in(args)
        output = forward(*args, **kwargs)
        for hook, with_kwargs in tuple(self._hooks.values()):
            result = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            if result is not None:
                output = result
        return output if gates is None else gates.way_out(output)

    # Attributes

    def __setattr__(self, name: str, value: Any) -> None:
        kinds = ((Parameter, self.__dict__.get("_parameters")), (Module, self.__dict__.get("_modules")))
        for kind, registry in kinds:
            if isinstance(value, kind):
                if registry is None:
                    raise AttributeError(f"{type(self).__name__} must call super().__init__() before it sets {name!r}")
                self._forget(name, keep=registry)
                registry[name] = value
                return
        for kind, registry in kinds:
            if registry is not None and name in registry:
                if value is not None:
                    raise ArgumentError(
                        f"{type(self).__name__}.{name}",
                        f"a {kind.__name__} or None, as that is what it holds",
                        f"got {type(value).__name__}",
                        f"Wrap it in nn.{kind.__name__}, or delete the attribute first.",
                    )
                registry[name] = None
                return
        if name in self.__dict__.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise ArgumentError(
                    f"{type(self).__name__}.{name}",
                    "a tensor or None, as it is a buffer",
                    f"got {type(value).__name__}",
                )
            self._buffers[name] = value
            return
        _count_change()
        if isinstance(value, dict) and (name == "__dict__" or isinstance(self.__dict__.get(name), _Members)):
            value = _Members(value)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if "_parameters" in own:
            for registry in (own["_parameters"], own["_modules"], own["_buffers"]):
                if name in registry:
                    return registry[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                self._transient.discard(name)
                return
        _count_change()
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str, keep: Mapping[str, Any] | None = None) -> None:
        """Free ``name`` in every place but ``keep``, before something else takes it."""
        for registry in (self.__dict__, self._parameters, self._buffers, self._modules):
            if registry is not keep:
                registry.pop(name, None)
        self._transient.discard(name)

    def _check_name(self, call: str, name: str, registry: Mapping[str, Any]) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} must call super().__init__() before {call}")
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(call, "a name that is a non-empty string without a dot", f"got {name!r}")
        if name not in registry and hasattr(self, name):
            raise ArgumentError(
                call,
                "a name that is still free",
                f"{type(self).__name__} already has {name!r}",
                "Choose another one, or delete what is there.",
            )

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter; None reserves the name."""
        self._check_name("register_parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentError(
                "register_parameter",
                "an nn.Parameter or None",
                f"got {type(param).__name__}",
                "Wrap it in nn.Parameter.",
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is not trained; without ``persistent`` it stays out of the state dict."""
        self._check_name("register_buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentError(
                "register_buffer", "a tensor or None", f"got {type(tensor).__name__}", "Convert it with te.tensor."
            )
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a module as the attribute ``name``."""
        self._check_name("add_module", name, self._modules)
        if module is not None and not isinstance(module, Module):
            raise ArgumentError("add_module", "an nn.Module or None", f"got {type(module).__name__}")
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as ``add_module``."""
        self.add_module(name, module)

    # What is inside

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module, and all inside it at any depth, by qualified name."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def _named(
        self, members: Callable[[Module], Mapping[str, Item | None]], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Item]]:
        seen: set[int] = set()
        owners = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else iter([(prefix, self)])
        )
        for path, module in owners:
            for name, item in members(module).items():
                if item is None or id(item) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(item))
                yield (f"{path}.{name}" if path else name), item

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters here and, with ``recurse``, in all modules inside, by qualified name."""
        return self._named(lambda module: module._parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers here and, with ``recurse``, in all modules inside, by qualified name."""
        return self._named(lambda module: module._buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module of that qualified name; the empty name is this one. AttributeError if there is none."""
        module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                near = get_close_matches(target, [path for path, _ in self.named_modules()])
                hint = f"; near ones: {', '.join(near)}" if near else ""
                raise AttributeError(f"{type(self).__name__} has no module {target!r}{hint}")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of that qualified name. AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        param = self.get_submodule(path)._parameters.get(name)
        if param is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {target!r}")
        return param

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of that qualified name. AttributeError if there is none."""
        path, _, name = target.rpartition(".")
        buffer = self.get_submodule(path)._buffers.get(name)
        if buffer is None:
            raise AttributeError(f"{type(self).__name__} has no buffer {target!r}")
        return buffer

    # State

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Parameters and persistent buffers by qualified name, in order; they share the model's memory.

        With ``keep_vars`` the values are the parameters themselves, else detached views of them.
        """
        modules = list(self.named_modules(prefix=prefix.removesuffix("."), remove_duplicate=False))
        state_hooks.run("before saving", modules, ..., keep_vars)
        state = {**self._own_state(modules, keep_vars), **state_hooks.extra_states(modules)}
        for path, module in modules:
            module._save_to_state_dict(state, f"{path}." if path else "", keep_vars)
        state_hooks.run("after saving", reversed(modules), state, ..., {})
        return state

    def _own_state(self, modules: Iterable[tuple[str, Module]], keep_vars: bool = False) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for path, module in modules:
            lead = f"{path}." if path else ""
            for name, param in module._parameters.items():
                if param is not None:
                    state[lead + name] = param if keep_vars else param.detach()
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._transient:
                    state[lead + name] = buffer if keep_vars else buffer.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the memory of the parameters and buffers of the same names.

        ``state_dict`` holds tensors of any device, or NumPy arrays; values are converted to the model's dtypes. Without
        ``strict``, keys that are missing or unexpected are only returned. Another shape is an error in any case.

        Errors: StateDictError, naming every key that does not fit. The model is then as it was before.
        """
        call = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping):
            raise StateDictError(
                call,
                "a mapping of names to values",
                f"got {type(state_dict).__name__}",
                "Pass what state_dict() or te.load_safetensors returned.",
            )
        modules = list(self.named_modules(remove_duplicate=False))
        missing: list[str] = []
        unexpected: list[str] = []
        problems: list[str] = []
        state_dict = {**state_dict}
        state_hooks.before_loading(modules, state_dict, strict, missing, unexpected, problems)
        for path, module in modules:
            module._before_loading(f"{path}." if path else "", state_dict)
        extra = state_hooks.take_extra_states(modules, state_dict, missing)
        own = self._own_state(modules)
        missing += [name for name in own if name not in state_dict]
        unexpected += [str(name) for name in state_dict if name not in own]
        keys = IncompatibleKeys(missing, unexpected)
        told = (missing or unexpected) and state_hooks.run("after loading", reversed(modules), keys)
        if strict and missing:
            problems.append("missing keys: " + ", ".join(missing))
        if strict and unexpected:
            problems.append("unexpected keys: " + ", ".join(unexpected))
        remedies = ["Pass strict=False to load the keys that fit."] if problems else []
        wrong = [text for name in own if name in state_dict and (text := misfit(name, own[name], state_dict[name]))]
        if wrong:
            problems += wrong
            remedies.append("To keep the model's own values for some keys, leave these out and pass strict=False.")
        if problems:
            raise StateDictError(
                call,
                "the state dict must fit the model",
                "; ".join(problems),
                " ".join([*remedies, "Nothing was loaded."]),
            )
        memory = {id(target._slot.storage) for target in own.values()}
        staged = []  # whatever can fail comes before the first write
        for name, target in own.items():
            if name not in state_dict:
                continue
            value = state_dict[name]
            if isinstance(value, Tensor):
                value = value.detach().to(target.dtype, device=target.backend)
                slot, own_slot = value._slot, target._slot
                itself = slot.storage is own_slot.storage and slot.layout() == own_slot.layout()
                if id(slot.storage) in memory and not itself:  # of this model too: it may be written before it is read
                    value = value.clone()
            else:
                value = as_tensor(np.asarray(value).astype(target.dtype.numpy, copy=False), device=target.backend)
            staged.append((target, value))
        with no_grad():
            for target, value in staged:
                target.copy_(value)
        state_hooks.set_extra_states(extra)
        if not told:
            state_hooks.run("after loading", reversed(modules), keys)
        return keys

    def _before_loading(self, prefix: str, state: Mapping[str, Any]) -> None:
        """What a module does before values are put into its parameters, whose names in ``state`` begin so."""

    # Modes

    def train(self: M, mode: bool = True) -> M:
        """Training mode, here and inside: dropout drops, batch norms normalise by the batch unless they are frozen."""
        self.training = mode
        for module in self.children():
            module.train(mode)  # one that a child defines is called
        return self

    def eval(self: M) -> M:
        """Evaluation mode, here and inside."""
        return self.train(False)

    def checkpoint(self: M, enabled: bool = True) -> M:
        """Compute ``forward`` under ``te.checkpoint``: again in backward, instead of saving what it needs there."""
        self.checkpointed = enabled
        return self

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Say for every parameter whether ``backward`` shall compute its gradient.

        Errors: DtypeError if one shall that is quantised; nothing is changed then.
        """
        for name, param in self.named_parameters() if requires_grad else ():
            require_trainable("requires_grad_", param.dtype, name)
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every parameter's gradient; without ``set_to_none``, keep its memory and fill it with zeros.

        Errors: ArgumentError in the middle of a minibatch that an optimizer accumulates: it would lose samples.
        """
        require_no_minibatch("Module.zero_grad", [param._slot for param in self.parameters()])
        for param in self.parameters():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad.zero_()

    def freeze(self: M, except_: Chosen = (), live_statistics: bool = False) -> M:
        """Train only the modules named in ``except_``: their parameters require gradients from now on, no others do.

        A name stands for the module (or parameter) of that qualified name and all inside it: "features.1" is not
        "features.17". A pattern ("features.1?", "*.bias") stands for all names that it matches, and a class of layers
        (``nn.LayerNorm``) for the modules of that class. A later call replaces an earlier one; ``freeze()`` freezes
        all.

        Batch norms everywhere normalise by their running statistics from now on, and do not update them, in training
        mode too: the statistics of one sample are a poor estimate, and with them N samples at batch 1 would not give
        what batch N gives. With ``live_statistics``, batch norms inside the modules that are trained normalise by the
        batch in training mode, as PyTorch's do.

        ``freeze_batch_norm_statistics`` does the second part alone. ``requires_grad_()`` undoes the first, and
        ``freeze_batch_norm_statistics(False)`` the second.

        Errors: ArgumentError for what names nothing of the model; DtypeError if it stands for quantised weights.
        """
        named = list(self.named_parameters(remove_duplicate=False))
        modules = list(self.named_modules(remove_duplicate=False))
        wanted = selected("freeze", except_, type(self).__name__, modules, {name for name, _ in named})

        def trained(path: str) -> bool:
            return any(path == name or path.startswith(name + ".") for name in wanted)

        for path, param in named:
            if trained(path):
                require_trainable("freeze", param.dtype, path)
        for _, param in named:
            param.requires_grad_(False)
        for path, param in named:  # apart, so that a parameter with two names is trained if one of them is
            if trained(path):
                param.requires_grad_(True)
        for path, module in self.named_modules(remove_duplicate=False):
            module._freeze_statistics(not (live_statistics and trained(path)))
        return self

    def freeze_batch_norm_statistics(self: M, frozen: bool = True) -> M:
        """Make every batch norm inside normalise by its running statistics, and keep these, in training mode too.

        Scales and biases stay trainable: this is for fine-tuning one sample at a time. A batch norm without running
        statistics has none to freeze. ``frozen=False`` undoes it.
        """
        for module in self.modules():
            module._freeze_statistics(frozen)
        return self

    def _freeze_statistics(self, frozen: bool) -> None:
        """What batch norms do in ``freeze_batch_norm_statistics``."""

    # Changes to all

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on every module inside, and then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(
        self: M, *args: Any, dtype: Any = None, device: str | Backend | None = None, non_blocking: bool = False,
        memory_format: Any = None,
    ) -> M:  # fmt: skip
        """Move parameters, gradients and buffers to a device, and convert the floating-point ones to a dtype; in place.
        Quantised weights are moved, and stay quantised. ``memory_format`` changes nothing.

        Optimizers that already hold the parameters go on with the moved ones.
        """
        check_memory_format("Module.to", memory_format)
        wanted, backend = destination("Module.to", args, dtype, device)
        if wanted is not None and not wanted.is_floating_point:
            raise DtypeError(
                "Module.to",
                "a floating-point dtype",
                f"got {wanted.name}",
                "Convert integers, such as buffers, one by one.",
            )
        for tensor in (*self.parameters(), *self.buffers()):
            floats = tensor.is_floating_point() and tensor.dtype.blocks is None
            kept = wanted if wanted is not None and floats else tensor.dtype
            (backend or tensor.backend).check_dtype(kept)
        for param in self.parameters():
            moved, gradient = moved_tensor(param, wanted, backend), param.grad
            if moved is not param:
                requires_grad = param.requires_grad
                hooks, param._slot = param._slot.hooks, moved.detach()._slot
                param._slot.hooks = hooks
                param._slot.requires_grad = requires_grad
                note_leaf_change()
                summed = None if wanted is None else wanted.computes
                param.grad = None if gradient is None else moved_tensor(gradient, summed, backend)
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = moved_tensor(buffer, wanted, backend)
        return self

    def float(self: M) -> M:
        """Convert floating-point parameters and buffers to float32."""
        return self.to(dtypes.float32)

    def half(self: M) -> M:
        """Convert floating-point parameters and buffers to float16; gradients stay float32."""
        return self.to(dtypes.float16)

    def bfloat16(self: M) -> M:
        """Convert floating-point parameters and buffers to bfloat16; gradients stay float32."""
        return self.to(dtypes.bfloat16)

    def double(self: M) -> M:
        """Convert floating-point parameters and buffers to float64, where the device has it."""
        return self.to(dtypes.float64)

    def cpu(self: M) -> M:
        """As ``to("cpu")``: on the default backend."""
        return self.to("cpu")

    def cuda(self: M, device: Any = None) -> M:
        """Refused with BackendError, as by PyTorch without CUDA. GPUs are reached through OpenCL."""
        return self.to("cuda")

    # Hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; what it returns, unless None, replaces the arguments.

        With ``with_kwargs`` it is ``hook(module, args, kwargs)``, and returns None or both.
        """
        return _register(self._pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after forward; what it returns, unless None, replaces the output.

        With ``with_kwargs`` it is ``hook(module, args, kwargs, output)``.
        """
        return _register(self._hooks, (hook, with_kwargs), prepend)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` when the gradients of the output are there, a tuple of tensors or None.

        What it returns, unless None, is used in their place.
        """
        return _register(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the positional arguments are there.

        What it returns, unless None, is used in the place of ``grad_input``. Where no argument requires a gradient it
        is called with None for each as soon as ``grad_output`` is there.
        """
        return _register(self._backward_hooks, hook, prepend)

    # Text

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses, before the modules inside."""
        return ""

    def _child_lines(self) -> list[str]:
        return [f"({name}): {module!r}" for name, module in self._modules.items()]

    def __repr__(self) -> str:
        extra, children = self.extra_repr(), self._child_lines()
        if not children and "\n" not in extra:
            return f"{type(self).__name__}({extra})"
        lines = [*extra.split("\n"), *children] if extra else children
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"


def _register(hooks: dict[int, Any], hook: Any, prepend: bool) -> RemovableHandle:
    number = next(number for number in _hook_numbers if number not in hooks)  # unpickled ones have numbers already
    before = dict(hooks) if prepend else {}
    if prepend:
        hooks.clear()
    hooks[number] = hook
    hooks.update(before)
    return RemovableHandle(hooks, number)


__all__ = ["IncompatibleKeys", "Module", "RemovableHandle"]
