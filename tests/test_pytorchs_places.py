"""What programs for PyTorch import beside ops, layers and optimizers, by PyTorch's names: lazy layers, averages of
models, Jacobians, further distributions, streams, and modules' places.
"""

from __future__ import annotations

import importlib
import io
import math
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge import distributions as dist
from tinyedge import nn, optim
from tinyedge.backends import Backend
from tinyedge.optim.averaged import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn


@pytest.mark.parametrize(
    "name",
    ["onnx", "cuda", "cuda.amp", "nn.modules", "nn.modules.module", "nn.modules.loss", "nn.modules.utils",
     "nn.modules.batchnorm", "autograd.functional", "utils.checkpoint", "optim.swa_utils", "optim.adamw", "linalg",
     "jit", "special", "random", "distributed", "multiprocessing", "utils.data.distributed", "utils.tensorboard",
     "distributions.transforms"],
)  # fmt: skip
def test_places(name: str) -> None:
    importlib.import_module(f"tinyedge.{name}")


def test_small_names(backend: Backend) -> None:
    assert (te.pi, te.inf, te.e, te.newaxis) == (math.pi, math.inf, math.e, None)
    assert isinstance(te.zeros(size=(2, 3)).shape, te.Size)
    assert isinstance(te.rand(size=(2,)).dtype, te.dtype)
    with pytest.raises(te.ArgumentError, match="the size once"):
        te.zeros(2, size=(3,))
    x = te.tensor([-1.0, 2.0])
    assert te.relu_(x) is x
    assert x.tolist() == [0.0, 2.0]
    assert te.nn.functional.leaky_relu_(te.tensor([-1.0]), 0.5).tolist() == [-0.5]
    with pytest.warns(UserWarning, match="there is no CUDA"):
        te.cuda.amp.GradScaler()


def test_bases_of_layers(backend: Backend) -> None:
    from tinyedge.nn.modules.batchnorm import _BatchNorm
    from tinyedge.nn.modules.loss import _WeightedLoss
    from tinyedge.nn.modules.utils import _pair

    class Focal(_WeightedLoss):
        def forward(self, x: te.Tensor) -> te.Tensor:
            return x.sum() if self.reduction == "sum" else x

    assert isinstance(nn.BatchNorm2d(2), _BatchNorm)
    assert isinstance(nn.Conv1d(1, 1, 1), nn.modules.conv._ConvNd)
    assert isinstance(nn.CrossEntropyLoss(), _WeightedLoss)
    assert _pair(3) == (3, 3)
    assert nn.modules.Linear is nn.modules.linear.Linear is nn.Linear
    assert list(Focal(te.ones(2), size_average=False).state_dict()) == ["weight"]
    assert Focal(size_average=False)(te.ones(3)).item() == 3.0
    with pytest.raises(AttributeError, match=r"nn\.modules\.Nothing is not in tinyedge"):
        _ = nn.modules.linear.Nothing


def test_what_programs_ask_for(reference: Backend) -> None:
    x = te.zeros(2, 3)
    assert [x.is_sparse, x.is_meta, x.is_quantized, x.is_cuda] == [False] * 4
    assert x.is_cpu
    assert x.layout is te.strided
    assert not te.distributed.is_available()
    with pytest.raises(AttributeError, match=r"distributed\.all_reduce is not in tinyedge; use one device"):
        te.distributed.all_reduce(x)
    assert te.jit.script(math.sin) is math.sin is te.jit.ignore(math.sin)
    assert te.jit.ignore(drop=True)(math.sin) is math.sin
    with pytest.raises(AttributeError, match=r"use te\.compile"):
        te.jit.trace(math.sin, x)
    te.manual_seed(3)
    with te.random.fork_rng():
        assert te.seed() != te.seed()
    assert te.initial_seed() == 3
    with pytest.warns(FutureWarning, match=r"use nn\.init\.constant_"):
        assert nn.init.constant(x, 2.0) is x
    with pytest.warns(FutureWarning, match="use clip_grad_norm_"):
        nn.utils.clip_grad_norm(nn.Linear(2, 2).parameters(), 1.0)


def test_older_names_of_modules(reference: Backend) -> None:
    class Renamed(nn.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
            if prefix + "w" in state_dict:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
            super()._load_from_state_dict(state_dict, prefix, *rest)

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "w"] = destination.pop(prefix + "weight")

    model = nn.Sequential(Renamed(2, 2, bias=False), nn.Linear(2, 1))
    model._register_load_state_dict_pre_hook(lambda state, prefix, *rest: state.pop("old", None))
    state = model.state_dict()
    assert set(state) == {"0.w", "1.weight", "1.bias"}
    assert repr(model.load_state_dict({**state, "old": te.zeros(1)})) == "<All keys matched successfully>"
    model.set_submodule("1", nn.ReLU(), strict=True)
    assert isinstance(model[1], nn.ReLU)
    with pytest.raises(AttributeError, match="no module 'nothing'"):
        model.set_submodule("nothing", nn.ReLU(), strict=True)
    assert model.type(te.DoubleTensor)[0].weight.dtype is te.float64
    assert model[0]._get_name() == "Renamed"


def test_optimizers_of_ones_own(reference: Backend) -> None:
    class Plain(optim.Optimizer):
        def __init__(self, params: Any, lr: Any = optim.optimizer.required) -> None:
            super().__init__(params, {"lr": lr})

    with pytest.raises(te.ArgumentError, match="a group with lr"):
        Plain([te.nn.Parameter(te.zeros(2))])
    made = Plain([{"params": [te.nn.Parameter(te.zeros(2))], "lr": 0.5}])

    class Halved(optim.lr_scheduler._LRScheduler):
        def get_lr(self) -> list[float]:
            return [rate * 0.5**self.last_epoch for rate in self.base_lrs]

    schedule = Halved(made)
    schedule.step()
    assert made.param_groups[0]["lr"] == 0.25
    assert isinstance(schedule, optim.lr_scheduler.LRScheduler)


def test_lazy_layers(backend: Backend) -> None:
    model = nn.Sequential(
        nn.LazyConv2d(4, 3, groups=2), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(te.ArgumentError, match="has not seen an input"):
        sum(param.numel() for param in model.parameters())
    with pytest.raises(te.ShapeError, match="3 or 4 dims"):
        model[0](te.zeros(5))
    x = te.randn(2, 4, 5, 5)
    model(x).sum().backward()
    assert type(model[0]) is nn.Conv2d
    assert (model[0].in_channels, model[1].num_features, model[4].in_features) == (4, 4, 36)
    before = model[4].weight.detach().numpy()
    optimizer.step()
    assert (model[4].weight.detach().numpy() != before).any()
    again = nn.Sequential(
        nn.LazyConv2d(4, 3, groups=2), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.eval()(x).detach().numpy(), model.eval()(x).detach().numpy())


def test_averaged_models(reference: Backend) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    swa, ema = AveragedModel(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    seen = []
    for k in range(3):
        with te.no_grad():
            model[0].weight.fill_(float(k))
        seen.append(k)
        swa.update_parameters(model)
        ema.update_parameters(model)
    np.testing.assert_allclose(swa.module[0].weight.detach().numpy(), np.mean(seen))
    np.testing.assert_allclose(ema.module[0].weight.detach().numpy(), (0 * 0.5 + 1 * 0.5) * 0.5 + 2 * 0.5)
    assert int(swa.n_averaged) == 3
    batches = [te.randn(4, 2) for _ in range(3)]
    update_bn(batches, swa)
    through = te.cat([swa.module[0](x) for x in batches])
    np.testing.assert_allclose(
        swa.module[1].running_mean.numpy(), through.mean(0).detach().numpy(), rtol=1e-5, atol=1e-6
    )
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    schedule, rates = SWALR(optimizer, 0.1, anneal_epochs=4, anneal_strategy="linear"), []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [1.0, 0.775, 0.55, 0.325, 0.1, 0.1])


def test_jacobians(reference: Backend) -> None:
    from tinyedge.autograd.functional import hessian, hvp, jacobian, jvp, vjp

    x, y, v = te.tensor([1.0, 2.0]), te.tensor([3.0, 4.0]), te.tensor([1.0, -1.0])
    by_x, by_y = jacobian(lambda x, y: x * y.sum() + y, (x, y))
    assert by_x.tolist() == [[7.0, 0.0], [0.0, 7.0]]
    assert by_y.tolist() == [[2.0, 1.0], [2.0, 3.0]]
    assert hessian(lambda x: (x**3).sum(), x).tolist() == [[6.0, 0.0], [0.0, 12.0]]
    assert hvp(lambda x: (x**3).sum(), x, v)[1].tolist() == [6.0, -12.0]
    assert jvp(lambda x: x**2, x, v)[1].tolist() == [2.0, -4.0]
    assert vjp(lambda x: x**2, x, v)[1].tolist() == [2.0, -4.0]


def test_streams_and_onnx(reference: Backend, tmp_path: Any) -> None:
    model, stream = nn.Linear(2, 3), io.BytesIO()
    te.save(model.state_dict(), stream)
    stream.seek(0)
    assert te.load(stream)["bias"].tolist() == model.bias.tolist()
    with open(tmp_path / "a.safetensors", "wb") as file:
        te.save({"epoch": 3, "model": model.state_dict()}, file)
    assert te.load(tmp_path / "a.safetensors")["epoch"] == 3
    with pytest.raises(te.ArgumentError, match="opset_version"):
        te.onnx.export(model, te.zeros(1, 2), tmp_path / "a.onnx", opset_version=99)


def test_fractional_pooling(backend: Backend) -> None:
    x = te.arange(50, dtype="float32").reshape(1, 2, 5, 5).requires_grad_()
    samples = te.tensor([[[0.0, 0.9], [0.5, 0.5]]])
    y, places = nn.functional.fractional_max_pool2d(x, 2, 2, return_indices=True, _random_samples=samples)
    np.testing.assert_array_equal(y.detach().numpy().reshape(2, -1), x.detach().numpy().reshape(2, -1)[
        np.arange(2)[:, None], places.numpy().reshape(2, -1)])  # fmt: skip
    assert y.shape == (1, 2, 2, 2)
    y.sum().backward()
    assert float(x.grad.sum()) == 8.0
    assert nn.FractionalMaxPool3d(2, output_ratio=0.5)(te.randn(2, 1, 4, 4, 4)).shape == (2, 1, 2, 2, 2)


def test_rows_are_shortened(backend: Backend) -> None:
    table = nn.Embedding(3, 2, max_norm=1.0, _weight=te.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]]))
    y = table(te.tensor([0, 1, 0]))
    np.testing.assert_allclose(y.detach().numpy(), [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(table.weight.detach().numpy()[2], [6.0, 8.0])
    y.sum().backward()
    assert table.weight.grad.tolist() == [[2.0, 2.0], [1.0, 1.0], [0.0, 0.0]]


def integral(d: Any, low: float, high: float) -> tuple[float, float, float]:
    """Of the density, and the mean and the variance that it says; each of a distribution of one number."""
    x = np.linspace(low, high, 200_001)
    middle = (x[1:] + x[:-1]) / 2
    p = np.exp(d.log_prob(te.tensor(middle)).numpy()) * (x[1] - x[0])
    mean = float((p * middle).sum())
    return float(p.sum()), mean, float((p * (middle - mean) ** 2).sum())


ONE: dict[str, tuple[Any, float, float]] = {
    "laplace": (lambda f: dist.Laplace(f(0.5), f(1.5)), -40, 40),
    "gumbel": (lambda f: dist.Gumbel(f(0.5), f(1.5)), -15, 60),
    "half normal": (lambda f: dist.HalfNormal(f(1.5)), 0, 15),
    "exponential": (lambda f: dist.Exponential(f(0.7)), 0, 60),
    "gamma": (lambda f: dist.Gamma(f(2.5), f(0.7)), 0, 60),
    "beta": (lambda f: dist.Beta(f(2.5), f(1.7)), 0, 1),
    "log normal": (lambda f: dist.LogNormal(f(0.2), f(0.4)), 0, 40),
    "mixture": (
        lambda f: dist.MixtureSameFamily(
            dist.Categorical(te.tensor([0.3, 0.7], dtype="float64")),
            dist.Normal(te.tensor([0.0, 2.0], dtype="float64"), f(1.0)),
        ),
        -12,
        14,
    ),
}


@pytest.mark.parametrize("name", ONE)
def test_densities_and_samples(name: str, reference: Backend) -> None:
    make, low, high = ONE[name]
    d = make(lambda number: te.tensor(number, dtype="float64"))
    total, mean, variance = integral(d, low, high)
    assert total == pytest.approx(1.0, abs=1e-3)
    assert float(d.mean) == pytest.approx(mean, rel=1e-2)
    assert float(d.variance) == pytest.approx(variance, rel=2e-2)
    te.manual_seed(0)
    drawn = d.sample((20_000,)).numpy()
    assert drawn.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / 20_000))
    assert drawn.var() == pytest.approx(variance, rel=0.1)


def test_vectors_and_transforms(backend: Backend) -> None:
    normal = dist.MultivariateNormal(te.tensor([1.0, 2.0]), te.tensor([[2.0, 0.5], [0.5, 1.0]]))
    x = np.array([0.5, 1.0]) - [1, 2]
    cov = np.array([[2.0, 0.5], [0.5, 1.0]])
    expected = -0.5 * (x @ np.linalg.inv(cov) @ x + np.log(np.linalg.det(cov)) + 2 * math.log(2 * math.pi))
    assert float(normal.log_prob(te.tensor([0.5, 1.0]))) == pytest.approx(expected, rel=1e-5)
    assert normal.rsample((3,)).shape == (3, 2)
    dirichlet = dist.Dirichlet(te.tensor([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(dirichlet.sample((5,)).sum(-1).numpy(), np.ones(5), rtol=1e-5)
    assert float(dirichlet.log_prob(te.tensor([0.2, 0.3, 0.5]))) == pytest.approx(math.log(60 * 0.3 * 0.25), rel=1e-5)
    base = dist.Independent(dist.Normal(te.zeros(2), te.ones(2)), 1)
    moved = dist.TransformedDistribution(base, [dist.AffineTransform(1.0, 0.5), dist.TanhTransform()])
    y = np.array([0.1, 0.7])
    inner = (np.arctanh(y) - 1) / 0.5
    expected = (-0.5 * inner**2 - 0.5 * math.log(2 * math.pi) - math.log(0.5) - np.log(1 - y**2)).sum()
    assert float(moved.log_prob(te.tensor([0.1, 0.7]))) == pytest.approx(expected, rel=1e-4)
    loc = te.zeros(2, requires_grad=True)
    dist.Laplace(loc, 1.0).rsample((4,)).sum().backward()
    assert loc.grad.tolist() == [4.0, 4.0]
    with pytest.raises(NotImplementedError, match="Poisson has no rsample"):
        dist.Poisson(1.0).rsample()


def test_what_tensorboard_shows(reference: Backend, tmp_path: Any) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tinyedge.utils.tensorboard import SummaryWriter

    values = np.array([-1.0, 0.0, 0.0, 2.5], np.float32)
    with SummaryWriter(tmp_path) as writer:
        for step in range(3):
            writer.add_scalar("loss", te.tensor(0.5 * step), step)
            writer.add_scalars("rates", {"a": step}, step)
        writer.add_histogram("weights", te.tensor(values), 1)
        writer.add_image("image", te.zeros(3, 4, 5))
        writer.add_images("images", te.ones(3, 1, 4, 5))
        writer.add_text("note", "hello")
        with pytest.warns(UserWarning, match="writes nothing"):
            writer.add_graph(nn.Linear(1, 1))
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(each.step, each.value) for each in found.Scalars("loss")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    counted = found.Histograms("weights")[0].histogram_value
    assert (counted.min, counted.max, counted.num, counted.sum, sum(counted.bucket)) == (-1.0, 2.5, 4.0, 1.5, 4.0)
    assert len(counted.bucket) == len(counted.bucket_limit)
    assert [(found.Images(tag)[0].width, found.Images(tag)[0].height) for tag in ("image", "images")] == [
        (5, 4),
        (10, 8),
    ]
    assert found.Tensors("note/text_summary")[0].tensor_proto.string_val == [b"hello"]
    assert (tmp_path / "rates_a").is_dir()


def test_parts_for_processes(reference: Backend) -> None:
    sampler = [te.utils.data.DistributedSampler(range(10), 4, rank, shuffle=False) for rank in range(4)]
    assert [list(each) for each in sampler] == [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    drawn = [te.utils.data.DistributedSampler(range(10), 3, rank, drop_last=True) for rank in range(3)]
    first = [list(each) for each in drawn]
    assert len({number for part in first for number in part}) == 9
    for each in drawn:
        each.set_epoch(1)
    assert first != [list(each) for each in drawn]


def test_how_tensors_are_shown(reference: Backend) -> None:
    try:
        te.set_printoptions(precision=2, sci_mode=False)
        assert repr(te.tensor([1.23456789, 1e-9])).startswith("tensor([1.23, 0.  ]")
        te.set_printoptions(profile="short", threshold=3)
        assert "..." in repr(te.zeros(5))
        with pytest.raises(te.ArgumentError, match="default, short, full"):
            te.set_printoptions(profile="long")
    finally:
        te.set_printoptions(profile="default")
    assert repr(te.tensor([1.23456789])).startswith("tensor([1.2346]")
