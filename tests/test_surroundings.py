"""What a program for PyTorch asks of its surroundings, with ``import tinyedge as torch``."""

from __future__ import annotations

import copy
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F


def test_devices_are_names(backend: Backend) -> None:
    here = te.device(backend.name)
    x = te.ones(2)
    assert x.device == here == backend.name
    assert hash(here) == hash(backend.name)
    assert isinstance(x.device, te.device)
    assert x.to(here) is x
    assert te.ones(2, device=here).device == here
    assert nn.Linear(2, 2).to(here).weight.device == here
    assert te.device(here) == te.device(backend) == here
    assert pickle.loads(pickle.dumps(here)) == copy.deepcopy(here) == here


def test_the_cpu_is_the_default_backend(backend: Backend) -> None:
    """So that a program which finds no CUDA runs on the device that its user chose."""
    cpu, name = te.device("cpu"), backend.name
    assert (cpu, cpu.type, cpu.index, repr(cpu), str(cpu)) == (name, "cpu", None, "device(type='cpu')", name)
    x = te.ones(2)
    assert x.cpu().device == x.to("cpu").device == x.to(cpu).device == x.to("cpu", te.float32).device == cpu
    assert te.zeros(1, device="cpu").device == name
    assert te.ones(2, device="numpy").cpu().device == name
    assert te.device("cpu:0") == cpu


def test_numbered_devices() -> None:
    gpu = te.device("opencl:1")
    assert (gpu.type, gpu.index, repr(gpu)) == ("opencl", 1, "device(type='opencl', index=1)")
    assert te.device("opencl", 1) == gpu
    assert te.device("cuda", 0) == "cuda:0"


def test_a_device_is_the_default_in_a_block(opencl: Backend) -> None:
    with te.use_backend("numpy"), te.device(opencl.name) as outer:
        assert te.ones(1).device == opencl.name
        with te.device("numpy"):
            assert te.ones(1).device == "numpy"
        with outer:
            assert te.ones(1).device == opencl.name
        assert te.ones(1).device == opencl.name


def test_a_device_is_compiled(backend: Backend) -> None:
    here = te.device(backend.name)

    @te.compile
    def double(x: te.Tensor) -> te.Tensor:
        return x.to(here) * te.full((2,), 2.0, device=x.device)

    for value in (1.0, 3.0):
        assert double(te.full((2,), value)).tolist() == [2 * value] * 2


@pytest.mark.parametrize("name", ["gpu", "opencl:x", "cpu:", ""])
def test_what_names_no_device(name: str) -> None:
    with pytest.raises(te.ArgumentError, match='device: "cpu", "numpy"'):
        te.device(name)


def test_cuda_is_refused_where_it_is_used(backend: Backend) -> None:
    assert not te.cuda.is_available()
    assert te.cuda.device_count() == 0
    assert not te.mps.is_available()
    assert not te.backends.mps.is_built()
    te.cuda.manual_seed_all(0)
    te.cuda.empty_cache()
    uses: list[Any] = [
        lambda: te.ones(1).cuda(),
        lambda: te.ones(1).to("cuda:0"),
        lambda: te.ones(1).to(te.device("cuda")),
        lambda: te.ones(1, device="mps"),
        lambda: nn.Linear(1, 1).cuda(),
        lambda: te.cuda.synchronize(),
    ]
    for use in uses:
        with pytest.raises(te.BackendError, match=r"te\.accelerator"):
            use()


def test_switches_of_cudnn_are_settable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(te.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(te.backends.cuda.matmul, "allow_tf32", True)
    assert te.backends.cudnn.benchmark


def test_the_accelerator_is_the_opencl_device(opencl: Backend) -> None:
    assert te.accelerator.is_available()
    found = te.accelerator.current_accelerator()
    assert found is not None
    assert found == opencl.name
    assert te.accelerator.device_count() >= 1
    te.accelerator.synchronize()
    te.synchronize()


def test_threads_and_default_dtype() -> None:
    assert te.get_num_threads() >= 1
    with pytest.warns(UserWarning, match="OMP_NUM_THREADS"):
        te.set_num_threads(1)
    assert te.get_default_dtype() is te.float32
    te.set_default_dtype(te.float32)
    with pytest.raises(te.ArgumentError, match="got float64"):
        te.set_default_dtype(te.float64)


def test_tensors_by_their_types(backend: Backend) -> None:
    assert (te.Tensor([1, 2]).dtype, te.Tensor(2, 3).shape, te.Tensor().shape) == (te.float32, (2, 3), (0,))
    assert te.LongTensor([1.0, 2.0]).dtype is te.int64
    assert (te.FloatTensor(2).shape, te.BoolTensor([0, 1]).tolist()) == ((2,), [False, True])
    assert isinstance(te.tensor([1]), te.LongTensor)
    assert not isinstance(te.tensor([1.0]), te.LongTensor)
    assert te.is_tensor(te.ones(1))
    assert not te.is_tensor(1.0)
    assert te.numel(te.ones(2, 3)) == 6
    with pytest.raises(te.ArgumentError, match="values, or sizes as ints, but got list, int"):
        te.Tensor([1], 2)


def test_to_copies_where_it_is_asked(backend: Backend) -> None:
    x = te.ones(2)
    assert x.to(backend.name, non_blocking=True) is x
    assert x.to(te.float32, copy=True) is not x


def test_inference_mode(reference: Backend) -> None:
    x = te.ones(1, requires_grad=True)

    @te.inference_mode()
    def inside() -> bool:
        return (x * 2).requires_grad

    @te.inference_mode
    def bare() -> bool:
        return (x * 2).requires_grad

    assert not inside()
    assert not bare()
    with te.inference_mode(), te.inference_mode(mode=False):
        assert (x * 2).requires_grad
    assert te.is_grad_enabled()


def test_the_state_of_random_numbers(reference: Backend) -> None:
    state = te.get_rng_state()
    first = te.randn(3).tolist()
    te.set_rng_state(state)
    assert te.randn(3).tolist() == first


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda: te.matmull, "te.matmull is not in tinyedge; near ones: matmul"),
        (lambda: te.complex64, "te.complex64 is not in tinyedge; use two tensors of float32"),
        (lambda: te.zzz, r"te.zzz is not in tinyedge; te.ops.__all__"),
        (lambda: nn.Conv2dd, "nn.Conv2dd is not in tinyedge; near ones: Conv2d"),
        (lambda: F.crossentropy, "nn.functional.crossentropy is not in tinyedge; near ones: cross_entropy"),
        (lambda: optim.SparseAdam, "optim.SparseAdam is not in tinyedge; use optim.Adam"),
        (lambda: te.ones(1).data_ptr, "Tensor.data_ptr is not in tinyedge; use x.numpy"),
        (lambda: te.ones(1).squeez, "Tensor.squeez is not in tinyedge; near ones: squeeze"),
    ],
)
def test_what_is_not_there_names_what_is(reference: Backend, use: Any, text: str) -> None:
    with pytest.raises(AttributeError, match=text):
        use()
    assert not hasattr(te, "zzz")
    with pytest.raises(ImportError, match="cannot import name 'zzz'"):
        from tinyedge import zzz  # type: ignore[attr-defined]  # noqa: F401


class Watches(nn.Module):
    def train(self, mode: bool = True) -> Watches:
        self.told = mode
        return super().train(mode)


def test_a_childs_own_train_is_called(reference: Backend) -> None:
    """As in PyTorch: a child may keep a part of itself in evaluation mode."""
    child = Watches()
    model = nn.Sequential(nn.Sequential(child), nn.Dropout())
    model.eval()
    assert (child.told, child.training, model[1].training, model.training) == (False, False, False, False)
    model.train()
    assert (child.told, child.training, model[1].training) == (True, True, True)


def test_memory_formats_change_nothing(backend: Backend) -> None:
    x = te.tensor(np.arange(24.0, dtype=np.float32).reshape(1, 2, 3, 4), device=backend)
    for given in (
        x.to(memory_format=te.channels_last), x.contiguous(memory_format=te.contiguous_format),
        x.clone(memory_format=te.preserve_format), x.double().float(memory_format=te.channels_last),
        te.zeros_like(x, memory_format=te.channels_last) + x,
    ):  # fmt: skip
        np.testing.assert_array_equal(given.numpy(), x.numpy())
    layer = nn.Conv2d(2, 2, 1)
    assert layer.to(memory_format=te.channels_last) is layer
    with pytest.raises(ArgumentError, match="memory_format must be"):
        x.to(memory_format="channels_last")  # type: ignore[arg-type]


def test_switches_of_whole_programs() -> None:
    te.set_float32_matmul_precision("high")
    assert te.get_float32_matmul_precision() == "high"
    te.set_float32_matmul_precision("highest")
    with pytest.raises(ArgumentError, match="one of highest, high, medium"):
        te.set_float32_matmul_precision("low")
    te.use_deterministic_algorithms(True)
    assert te.are_deterministic_algorithms_enabled()


def test_modules_by_pytorchs_names() -> None:
    for place, name, expected in (
        ("utils.data.dataset", "random_split", te.data.random_split),
        ("utils.data.sampler", "BatchSampler", te.data.BatchSampler),
        ("utils.data.dataloader", "DataLoader", te.data.DataLoader),
        ("distributions.categorical", "Categorical", te.distributions.Categorical),
        ("distributions.bernoulli", "Bernoulli", te.distributions.Bernoulli),
        ("distributions.normal", "Normal", te.distributions.Normal),
        ("distributions.uniform", "Uniform", te.distributions.Uniform),
        ("distributions.kl", "kl_divergence", te.distributions.kl_divergence),
        ("nn.parameter", "Parameter", nn.Parameter),
    ):
        assert getattr(import_module(f"tinyedge.{place}"), name) is expected
    assert te.utils.data.sampler.RandomSampler is te.data.RandomSampler
    parallel = import_module("tinyedge.nn.parallel")
    assert parallel.data_parallel(nn.Identity(), te.ones(2), range(1)).tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="got 2"):
        parallel.data_parallel(nn.Identity(), te.ones(2), range(2))


def test_load_takes_the_arguments_of_torch(tmp_path: Path) -> None:
    te.save({"a": te.ones(2)}, tmp_path / "state.pt")
    for options in ({"weights_only": True}, {"map_location": "cpu"}, {"map_location": lambda storage, _: storage}):
        assert te.load(tmp_path / "state.pt", **options)["a"].tolist() == [1, 1]  # type: ignore[arg-type]
    assert te.load(tmp_path / "state.pt", te.device("numpy"))["a"].device == "numpy"
    with pytest.raises(ArgumentError, match="a device as map_location"):
        te.load(tmp_path / "state.pt", {"cuda:0": "cpu"})


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam"])
def test_optimizers_take_pytorchs_ways_to_launch(name: str) -> None:
    weight = nn.Parameter(te.ones(2))
    optimizer = getattr(te.optim, name)([weight], lr=0.1, foreach=True, capturable=False, fused=None)
    weight.sum().backward()
    optimizer.step()
    with pytest.raises(ArgumentError, match="differentiable=False"):
        getattr(te.optim, name)([weight], differentiable=True)
