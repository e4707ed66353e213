"""Adapters on a decoder: every way to train them gives the same gradients, moves lora_B, and leaves the base alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.llama_configs import FAMILIES
from tests.test_gguf import smollm2
from tinyedge.backends import Backend
from tinyedge.models import Llama

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
LENGTHS = (8, 16)
QUESTIONS = [([3, 5, 7], [9, 11, 2]), ([4, 4, 8, 1, 30, 31, 32], [12, 13, 14, 2]), ([6], [7, 2])]


def samples() -> list[tuple[te.Tensor, te.Tensor]]:
    return [te.data.answer_sample(question, answer, LENGTHS) for question, answer in QUESTIONS]


def decoder(base: str, checkpointed: bool = False, targets: Any = TARGETS, **changes: Any) -> Llama:
    """With an adapter that is not the one that it begins with, whose gradient of A would be zero."""
    te.manual_seed(1)
    model = te.models.llama({**FAMILIES["llama"], **changes})
    for param in model.parameters():
        if param.ndim == 2:
            te.nn.init.normal_(param, 0.0, 0.2)
    if base != "float32":
        te.quantize(model, base.removesuffix(" as floats"))
    if base.endswith("as floats"):
        te.adapt.dequantize(model)
    te.manual_seed(2)
    te.adapt.lora(model, rank=2, alpha=4, targets=targets)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            te.nn.init.normal_(param, 0.0, 0.1)
    if checkpointed:
        model.gradient_checkpointing_enable()
    return model.train()


def bytes_of(model: Llama) -> dict[str, Any]:
    return {name: param.dequantize().detach().numpy() for name, param in model.named_parameters()}


def gradients(model: Llama) -> dict[str, Any]:
    return {name: param.grad.numpy() for name, param in model.named_parameters() if param.grad is not None}


def trained(model: Llama) -> list[te.Tensor]:
    return [param for param in model.parameters() if param.requires_grad]


@pytest.mark.parametrize("compiled", [False, True], ids=("eager", "compiled"))
@pytest.mark.parametrize("checkpointed", [False, True], ids=("saved", "checkpointed"))
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("base", ["float32", "q8_0", "q4_1"])
def test_every_way_gives_the_same_gradients(
    base: str, accumulate: int, checkpointed: bool, compiled: bool, backend: Backend
) -> None:
    model = decoder(base, checkpointed)
    with te.use_backend("numpy"):
        plain = decoder(base if base == "float32" else f"{base} as floats")

    def sample(ids: te.Tensor, labels: te.Tensor) -> te.Tensor:
        loss = model.loss(ids, labels, chunk_size=5)
        loss.backward()
        return loss

    run = te.compile(sample) if compiled else sample
    optimizer = te.optim.SGD(trained(model), lr=0.1, accumulate=accumulate)
    before = bytes_of(model)
    for start in range(0, 6, accumulate):  # the second time compiled functions are replayed
        plain.zero_grad()
        for number in range(start, start + accumulate):
            ids, labels = samples()[number % 3]
            with te.use_backend("numpy"):
                expected = plain.loss(ids.to("numpy"), labels.to("numpy"))
                expected.backward()
            np.testing.assert_allclose(run(ids, labels).item(), expected.item(), rtol=1e-4)
            if number + 1 < start + accumulate:
                optimizer.step()
        wanted = gradients(plain)
        got = gradients(model)
        assert set(got) == set(wanted)
        assert len(got) == 2 * len(TARGETS) * len(model.model.layers)
        for name, gradient in got.items():
            scale = np.abs(wanted[name]).max()
            assert scale > 0
            np.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-4 * scale, err_msg=name)
        optimizer.step()
        with te.no_grad():
            for name, param in plain.named_parameters():
                if param.requires_grad:
                    param.copy_(dict(model.named_parameters())[name].to("numpy"))
    after = bytes_of(model)
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert moved == {name for name in after if "lora_" in name}, "every adapter moved, and no base did"


def test_clipping_and_updates_are_compiled(backend: Backend) -> None:
    """The whole of a step, with its norm, in programs: as eager, with other lengths, and with a schedule."""
    found = []
    for compiled in (False, True):
        model = decoder("q8_0", checkpointed=True)
        params = trained(model)
        optimizer = te.optim.AdamW(params, lr=0.05, accumulate=2)
        schedule = te.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                te.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2),
                te.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4),
            ],
            [2],
        )

        def sample(ids: te.Tensor, labels: te.Tensor, model: Llama = model) -> te.Tensor:
            loss = model.loss(ids, labels, chunk_size=5)
            loss.backward()
            return loss

        def clip(params: Any = params) -> te.Tensor:
            return te.nn.utils.clip_grad_norm_(params, 0.5)

        run, clipped = (te.compile(sample), te.compile(clip)) if compiled else (sample, clip)
        norms = []
        for number in range(8):
            run(*samples()[number % 3])
            if optimizer.pending == 1:
                norms.append(clipped().item())
                total = math.sqrt(sum(float(np.square(g).sum()) for g in gradients(model).values()))
                assert total == pytest.approx(min(0.5, norms[-1]), rel=1e-3)
            optimizer.step()
            if not optimizer.pending:
                schedule.step()
        assert min(norms) > 0.5, "the test clips"
        found.append((norms, bytes_of(model)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3)
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_sample_that_is_not_finite_is_left_out(backend: Backend) -> None:
    model = decoder("q8_0")
    optimizer = te.optim.AdamW(trained(model), lr=0.05, accumulate=1, nonfinite="skip")
    ids, labels = samples()[0]
    step = te.compile(lambda ids, labels, scale: (model.loss(ids, labels) * scale).backward())
    before = bytes_of(model)
    for scale, skipped in ((math.nan, 1), (math.inf, 2), (1.0, 2)):
        step(ids, labels, te.tensor(scale))
        te.nn.utils.clip_grad_norm_(trained(model), 1.0)
        optimizer.step()
        assert optimizer.skipped == skipped
        moved = any(not np.array_equal(value, before[name]) for name, value in bytes_of(model).items())
        assert moved is (scale == 1.0)


@pytest.mark.replays("the eager call takes memory too")
def test_a_few_programs_serve_all_lengths_with_one_arena(opencl: Backend) -> None:
    model = decoder("q8_0", checkpointed=True)

    @te.compile
    def step(ids: te.Tensor, labels: te.Tensor) -> te.Tensor:
        loss = model.loss(ids, labels)
        loss.backward()
        return loss

    for length in LENGTHS:
        step.prepare(*te.data.answer_sample([1], [2], (length,)))
    opencl.memory.reset_peak()
    before = opencl.memory.allocated_bytes
    for ids, labels in samples() * 2:
        step(ids, labels)
    assert len(step.programs) == len(LENGTHS)
    largest = max(program.arena_bytes for program in step.programs.values())
    held = sum(param.nbytes for param in trained(model))
    assert opencl.memory.peak_bytes - before <= largest + held + 4096


def test_rematerialised_layers_keep_their_input_alone(opencl: Backend) -> None:
    """Of each layer one tensor waits for backward; a fused kernel of the forward pass makes nothing for later."""
    width, length, layers = 64, 32, 6
    model = decoder("float32", True, hidden_size=width, num_hidden_layers=layers, intermediate_size=64)

    @te.compile
    def step(ids: te.Tensor) -> None:
        model.loss(ids, ids, chunk_size=8).backward()

    plan = step.prepare(te.tensor(np.arange(length)[None])).plan
    ends = sorted(interval.last for interval in plan.intervals.values())
    nbytes = 4 * width * length
    waiting = [
        interval
        for interval in plan.intervals.values()
        if interval.nbytes >= nbytes and interval.last - interval.first > ends[-1] / layers
    ]
    assert layers - 1 <= len(waiting) <= layers + 1, waiting


def test_samples_of_answers(backend: Backend) -> None:
    ids, labels = te.data.answer_sample([1, 2], [3, 4], (3, 6, 12), pad_id=9)
    assert ids.tolist() == [[1, 2, 3, 4, 9, 9]]
    assert labels.tolist() == [[-100, -100, 3, 4, -100, -100]]
    model = decoder("float32")
    short, shorter = (te.data.answer_sample([1, 2], [3, 4], (n,)) for n in (4, 6))
    assert model.loss(*short).item() == pytest.approx(model.loss(*shorter).item(), rel=1e-5)
    with pytest.raises(te.ShapeError, match="at most 12 tokens"):
        te.data.answer_sample([1] * 12, [3], (3, 6, 12))
    with pytest.raises(te.ArgumentError, match="an answer"):
        te.data.answer_sample([1], [], (3,))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("base", ["float32", "q8_0", "q4_1"])
def test_gradients_are_those_of_peft_and_its_model_loads_ours(base: str, backend: Backend, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    model = decoder(base, checkpointed=True)
    config = transformers.LlamaConfig(**FAMILIES["llama"], rms_norm_eps=model.config.rms_norm_eps)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    names = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    theirs.load_state_dict({name: torch.tensor(names[name].dequantize().numpy()) for name in theirs.state_dict()})
    te.adapt.save_adapter(model, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True)
    step = te.compile(lambda ids, labels: model.loss(ids, labels, chunk_size=5).backward())
    for ids, labels in samples():
        step(ids, labels)
        adapted(torch.tensor(ids.numpy()), labels=torch.tensor(labels.numpy())).loss.backward()
        with torch.no_grad(), te.no_grad():
            got, wanted = model(ids).numpy(), adapted(torch.tensor(ids.numpy())).logits.numpy()
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    expected = {
        name.removeprefix("base_model.model."): param.grad.numpy()
        for name, param in adapted.named_parameters()
        if param.grad is not None
    }
    got = {f"{name.replace('.default', '')}.default.weight": value for name, value in gradients(model).items()}
    assert set(got) == set(expected)
    for name, value in got.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.wheels
def test_smollm2_is_trained_within_its_budget(opencl: Backend) -> None:
    """LoRA of rank 8 on q, k, v and o at 128 tokens: at most 40 % more than the quantised base, all counted."""
    opencl.trim()
    opencl.memory.reset_peak()
    start = opencl.memory.reserved_bytes
    model: Any = te.load_model(smollm2())
    base = sum(param.nbytes for param in model.parameters())
    te.adapt.lora(model, rank=8, targets=TARGETS)
    model.train().gradient_checkpointing_enable()
    optimizer = te.optim.AdamW(trained(model), lr=1e-3, accumulate=1, nonfinite="skip")

    @te.compile
    def step(ids: te.Tensor, labels: te.Tensor) -> te.Tensor:
        loss = model.loss(ids, labels, chunk_size=32)
        loss.backward()
        return loss

    clip = te.compile(lambda: te.nn.utils.clip_grad_norm_(trained(model), 1.0))
    ids = te.tensor(np.random.default_rng(0).integers(0, 49152, (1, 128)))
    step.prepare(ids, ids)
    losses = []
    for _ in range(3):
        losses.append(step(ids, ids).item())
        clip()
        optimizer.step()
    assert losses[2] < losses[0]
    assert opencl.memory.peak_reserved_bytes - start <= 1.4 * base
