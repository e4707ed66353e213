"""Decoders: families, loss, tied embeddings, checkpointing, adapters, and generation from a cache of fixed capacity."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.llama_configs import BASE, FAMILIES
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, DtypeError, IndexRangeError, ShapeError, StateDictError
from tinyedge.models.generation import PREFILL, sampled
from tinyedge.models.llama import Llama, LlamaConfig
from tinyedge.nn import functional as F

every_family = pytest.mark.parametrize("family", FAMILIES)
Array = np.ndarray[Any, Any]


def make(family: str = "llama", seed: int = 0, **changes: Any) -> Llama:
    te.manual_seed(seed)
    model = te.models.llama({**FAMILIES[family], **changes})
    for param in model.parameters():
        if param.ndim == 2:
            te.nn.init.normal_(param, 0.0, 0.2)
    return model


def tokens(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, BASE["vocab_size"], shape)


# What it is


@every_family
def test_shapes_are_those_of_the_parameters(family: str, reference: Backend) -> None:
    model = make(family)
    shapes = model.config.shapes()
    assert {name: param.shape for name, param in model.named_parameters()} == shapes
    assert set(model.state_dict()) - set(shapes) == ({"lm_head.weight"} if model.config.tie_word_embeddings else set())


def test_names_are_hugging_faces(reference: Backend) -> None:
    names = list(make("qwen3").state_dict())
    layer = "model.layers.0."
    assert names[0] == "model.embed_tokens.weight"
    assert names[-2:] == ["model.norm.weight", "lm_head.weight"]
    for name in ("self_attn.q_proj.weight", "self_attn.k_norm.weight", "mlp.gate_proj.weight", "input_layernorm.weight",
                 "post_attention_layernorm.weight"):  # fmt: skip
        assert layer + name in names
    assert [n for n in make("qwen2").state_dict() if n.endswith("bias") and ".0." in n] == [
        f"{layer}self_attn.{name}_proj.bias" for name in "qkv"
    ]


@every_family
def test_a_token_does_not_see_later_ones(family: str, backend: Backend) -> None:
    model = make(family)
    ids = tokens(2, 9)
    changed = ids.copy()
    changed[:, 6:] = 1
    with te.no_grad():
        a, b = model(te.tensor(ids)).numpy(), model(te.tensor(changed)).numpy()
    np.testing.assert_allclose(a[:, :6], b[:, :6], rtol=1e-4, atol=1e-5)
    assert np.abs(a[:, 6:] - b[:, 6:]).max() > 1e-3


def test_padding_in_front_changes_nothing(backend: Backend) -> None:
    model = make()
    ids = tokens(1, 7)
    padded = np.concatenate([np.zeros((1, 3), np.int64), ids], 1)
    mask = np.array([[0] * 3 + [1] * 7])
    places = np.maximum(np.arange(10) - 3, 0)
    with te.no_grad():
        a = model(te.tensor(ids)).numpy()
        b = model(te.tensor(padded), te.tensor(mask), te.tensor(places)).numpy()
    np.testing.assert_allclose(b[:, 3:], a, rtol=1e-4, atol=1e-5)


def test_configurations(reference: Backend) -> None:
    old = {**BASE, "model_type": "llama", "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {**BASE, "model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}}
    a, b = LlamaConfig.of(old), LlamaConfig.of(new)
    assert (a.rope_theta, b.rope_theta) == (5e5, 5e5)
    x = tokens(1, 5)
    with te.no_grad():
        te.manual_seed(1)
        first = te.models.llama(a)(te.tensor(x)).numpy()
        te.manual_seed(1)
        np.testing.assert_array_equal(te.models.llama(b)(te.tensor(x)).numpy(), first)
    assert LlamaConfig.of(FAMILIES["smollm3"]).no_rope_layers == (1, 1, 1, 0)
    for change, words in (
        ({"model_type": "gemma"}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": 30}, "hidden_size"),
        ({"hidden_size": 20}, "even head_dim"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}, "finite angles"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -2.0}}, "finite angles"),
        ({"rope_theta": 0.0}, "finite angles"),
        ({"head_dim": 2**30}, "head_dim of at most"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"no_rope_layers": [1]}, "no_rope_layers"),
        ({"quantization_config": {}}, "quantization_config"),
    ):
        with pytest.raises(ArgumentError, match=words):
            LlamaConfig.of({**FAMILIES["llama"], **change})


def test_shapes_that_do_not_fit(reference: Backend) -> None:
    model = make()
    with pytest.raises(ShapeError, match="batch, time"):
        model(te.tensor([1, 2]))
    with pytest.raises(ShapeError, match="attention_mask"):
        model(te.tensor([[1, 2]]), te.tensor([[1]]))
    with pytest.raises(ShapeError, match="labels"):
        model.loss(te.tensor([[1, 2]]), te.tensor([[1]]))


def test_no_tokens(backend: Backend) -> None:
    model = make()
    assert model(te.tensor(np.zeros((2, 0), np.int64))).shape == (2, 0, BASE["vocab_size"])
    assert model(te.tensor(np.zeros((0, 3), np.int64))).shape == (0, 3, BASE["vocab_size"])
    for shape in ((2, 0), (0, 3), (1, 1)):
        none = te.tensor(np.zeros(shape, np.int64))
        assert np.isnan(model.loss(none, none).item())


# Tied embeddings


def test_tied_embeddings_have_one_name_or_both(reference: Backend) -> None:
    model, other = make("qwen2"), make("qwen2", seed=1)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    state = {name: value.numpy() for name, value in other.state_dict().items()}
    model.load_state_dict(state)
    del state["lm_head.weight"]
    model = make("qwen2")
    model.load_state_dict(state)
    np.testing.assert_array_equal(model.lm_head.weight.detach().numpy(), other.lm_head.weight.detach().numpy())
    with pytest.raises(StateDictError, match="tied"):
        model.load_state_dict({**state, "lm_head.weight": state["model.embed_tokens.weight"] + 1})
    with pytest.raises(StateDictError, match="missing"):
        model.load_state_dict({})


# Loss


def expected_loss(model: Llama, ids: Array, labels: Array) -> te.Tensor:
    logits = model(te.tensor(ids))[:, :-1].reshape(-1, BASE["vocab_size"])
    return F.cross_entropy(logits, te.tensor(labels[:, 1:].reshape(-1)), ignore_index=-100)


def gradients(model: Llama) -> dict[str, Array]:
    return {name: param.grad.numpy() for name, param in model.named_parameters() if param.grad is not None}


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_loss_is_that_of_the_next_tokens_of_the_answer(family: str, chunk_size: int | None, backend: Backend) -> None:
    ids = tokens(2, 9)
    labels = ids.copy()
    labels[:, :4] = -100
    model, other = make(family), make(family)
    loss, expected = (
        model.loss(te.tensor(ids), te.tensor(labels), chunk_size=chunk_size),
        expected_loss(other, ids, labels),
    )
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-5)
    loss.backward()
    expected.backward()
    wanted = gradients(other)
    for name, gradient in gradients(model).items():
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_checkpointing_changes_no_bit(backend: Backend) -> None:
    ids = te.tensor(tokens(1, 8))
    plain, saving = make("qwen3"), make("qwen3")
    saving.gradient_checkpointing_enable()
    for model in (plain, saving):
        model.loss(ids, ids).backward()
    wanted = gradients(plain)
    for name, gradient in gradients(saving).items():
        np.testing.assert_array_equal(gradient, wanted[name])
    saving.gradient_checkpointing_disable()
    assert not any(module.checkpointed for module in saving.modules())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_16_bits(dtype: str, backend: Backend) -> None:
    model, wide = make().eval(), make().eval()
    model.to(dtype)
    wide.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    ids = te.tensor(tokens(1, 6))
    with te.no_grad():
        a, b = model(ids).float().numpy(), wide(ids).numpy()
    assert np.abs(a - b).max() < 0.05 * np.abs(b).max()
    assert model.generate(ids, 3, do_sample=False).shape == (1, 9)


# Adapters

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def adapted(family: str = "llama", targets: Any = TARGETS, checkpointed: bool = False) -> Llama:
    model = make(family)
    te.adapt.lora(model, rank=2, alpha=4, targets=targets)
    te.manual_seed(7)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            te.nn.init.normal_(param, 0.0, 0.1)
    if checkpointed:
        model.gradient_checkpointing_enable()
    return model


@pytest.mark.parametrize("checkpointed", [False, True])
@every_family
def test_an_adapter_is_trained_by_one_compiled_step(family: str, checkpointed: bool, backend: Backend) -> None:
    ids = tokens(1, 10)
    labels = ids.copy()
    labels[:, :5] = -100
    x, y = te.tensor(ids), te.tensor(labels)
    eager, compiled = adapted(family, checkpointed=checkpointed), adapted(family, checkpointed=checkpointed)

    @te.compile
    def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = compiled.loss(x, y)
        loss.backward()
        return loss

    for _ in range(2):
        for model in (eager, compiled):
            model.zero_grad()
        expected = eager.loss(x, y)
        expected.backward()
        loss = step(x, y)
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-5)
        wanted = gradients(eager)
        got = gradients(compiled)
        layers = len(eager.model.layers)
        assert set(got) == set(wanted)
        assert len(wanted) == 2 * len(TARGETS) * layers
        for name, gradient in got.items():
            np.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-6, err_msg=name)
            assert np.abs(gradient).max() > 0, name
    optimizer = te.optim.AdamW([p for p in compiled.parameters() if p.requires_grad], lr=1e-2)
    first = loss.item()
    for _ in range(5):
        compiled.zero_grad()
        loss = step(x, y)
        optimizer.step()
    assert loss.item() < first


def test_an_adapted_head_is_part_of_the_loss(backend: Backend) -> None:
    ids = tokens(1, 8)
    model, other = adapted(targets=["lm_head"]), adapted(targets=["lm_head"])
    for chunk_size in (None, 3):
        model.zero_grad()
        other.zero_grad()
        loss, expected = (
            model.loss(te.tensor(ids), te.tensor(ids), chunk_size=chunk_size),
            expected_loss(other, ids, ids),
        )
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-5)
        loss.backward()
        expected.backward()
        wanted = gradients(other)
        assert len(wanted) == 2
        for name, gradient in gradients(model).items():
            np.testing.assert_allclose(gradient, wanted[name], rtol=1e-3, atol=1e-6)


def test_all_linear_leaves_out_the_head(reference: Backend) -> None:
    for family in ("llama", "qwen2"):
        model = adapted(family, "all-linear")
        names = [name for name, param in model.named_parameters() if param.requires_grad]
        assert not any("lm_head" in name for name in names)
        assert sum("down_proj" in name for name in names) == 2 * len(model.model.layers)


# Generation


def greedy_by_hand(model: Llama, ids: Array, count: int) -> Array:
    for _ in range(count):
        with te.no_grad():
            best = model(te.tensor(ids)).numpy()[:, -1].argmax(-1)
        ids = np.concatenate([ids, best[:, None]], 1)
    return ids


@every_family
def test_greedy_tokens_are_those_without_a_cache(family: str, backend: Backend) -> None:
    model = make(family).eval()
    for length in (1, 5):
        ids = tokens(2, length)
        made = model.generate(te.tensor(ids), 6, do_sample=False, eos_token_id=())
        np.testing.assert_array_equal(made.numpy(), greedy_by_hand(model, ids, 6))


@pytest.mark.replays("programs are counted")
def test_two_programs_serve_prompts_and_answers_of_any_length(opencl: Backend) -> None:
    model = make().eval()
    for length, count in ((5, 9), (PREFILL, 2), (PREFILL + 1, 3), (2 * PREFILL + 7, 4), (1, 3)):
        ids = tokens(1, length)
        made = model.generate(ids, count, do_sample=False, eos_token_id=()).numpy()
        np.testing.assert_array_equal(made, greedy_by_hand(model, ids, count))
    step = model.__dict__["_kept_decoding"].step
    assert len(step.programs) == 2


def test_generation_sees_new_weights(backend: Backend) -> None:
    model = make().eval()
    ids = tokens(1, 4)
    model.generate(ids, 3, do_sample=False)
    with te.no_grad():
        for param in model.parameters():
            if param.ndim == 2:
                param.mul_(-1.5)
    np.testing.assert_array_equal(model.generate(ids, 3, do_sample=False).numpy(), greedy_by_hand(model, ids, 3))
    adapted_model = te.adapt.lora(model, rank=2, targets=["q_proj", "v_proj"])
    te.manual_seed(2)
    with te.no_grad():
        for name, param in adapted_model.named_parameters():
            if "lora_B" in name:
                te.nn.init.normal_(param, 0.0, 2.0)
    np.testing.assert_array_equal(model.generate(ids, 3, do_sample=False).numpy(), greedy_by_hand(model, ids, 3))


def test_rows_end_and_are_filled(backend: Backend) -> None:
    model = make().eval()
    ids = tokens(2, 4)
    free = greedy_by_hand(model, ids, 6)
    end = int(free[0, 5])
    assert end not in free[1, 4:]
    made = model.generate(ids, 6, do_sample=False, eos_token_id=end, pad_token_id=3).numpy()
    np.testing.assert_array_equal(made[0, :6], free[0, :6])
    assert (made[0, 6:] == 3).all()
    np.testing.assert_array_equal(made[1], free[1])
    alone = model.generate(ids[0].tolist(), 6, do_sample=False, eos_token_id=[end]).numpy()
    np.testing.assert_array_equal(alone, free[0, :6])
    assert model.generate(ids, 0).shape == (2, 4)


def test_prompts_that_are_padded_in_front(backend: Backend) -> None:
    model = make().eval()
    short, long = tokens(1, 3, seed=1), tokens(1, 6, seed=2)
    ids = np.concatenate([np.pad(short, ((0, 0), (3, 0))), long])
    mask = np.array([[0, 0, 0, 1, 1, 1], [1] * 6])
    made = model.generate(ids, 5, do_sample=False, eos_token_id=(), attention_mask=mask).numpy()
    np.testing.assert_array_equal(made[0, 3:], greedy_by_hand(model, short, 5)[0])
    np.testing.assert_array_equal(made[1], greedy_by_hand(model, long, 5)[0])


def test_samples_follow_the_generator(backend: Backend) -> None:
    model = make().train()
    ids = tokens(1, 4)
    made = []
    for seed in (1, 1, 2):
        made.append(model.generate(ids, 12, 1.5, eos_token_id=(), generator=te.Generator().manual_seed(seed)).numpy())
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()
    assert model.training
    best = model.generate(ids, 4, temperature=0, eos_token_id=()).numpy()
    np.testing.assert_array_equal(model.generate(ids, 4, top_k=1, eos_token_id=()).numpy(), best)
    np.testing.assert_array_equal(model.generate(ids, 4, top_p=1e-9, eos_token_id=()).numpy(), best)


def test_how_often_a_token_is_drawn() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    generator = te.Generator().manual_seed(0)

    def shares(**options: Any) -> Array:
        given = {"temperature": 1.0, "top_k": None, "top_p": None, **options}
        drawn = sampled(np.repeat(logits, 20_000, 0), generator=generator, **given)
        return np.bincount(drawn, minlength=4) / len(drawn)

    np.testing.assert_allclose(shares(), [0.5, 0.3, 0.15, 0.05], atol=0.015)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.7), [0.625, 0.375, 0, 0], atol=0.015)
    colder = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(shares(temperature=0.5), colder / colder.sum(), atol=0.015)
    assert shares(top_k=100).min() > 0


def test_what_generate_refuses(reference: Backend) -> None:
    model = make()
    ids = [[1, 2]]
    for error, words, given, options in (
        (ArgumentError, "max_new_tokens", ids, {"max_new_tokens": -1}),
        (ArgumentError, "temperature", ids, {"temperature": -1.0}),
        (ArgumentError, "temperature", ids, {"temperature": float("nan")}),
        (ArgumentError, "top_k", ids, {"top_k": 0}),
        (ArgumentError, "top_p", ids, {"top_p": 0.0}),
        (ArgumentError, "max_position_embeddings", ids, {"max_new_tokens": 511}),
        (ArgumentError, "front", ids, {"attention_mask": [[1, 0]]}),
        (ShapeError, "attention_mask", ids, {"attention_mask": [[1]]}),
        (ShapeError, "at least one", [[]], {}),
        (DtypeError, "integers", [[0.5]], {}),
        (IndexRangeError, "ids in", [[61]], {}),
        (IndexRangeError, "ids in", [[-1]], {}),
    ):
        with pytest.raises(error, match=words):
            model.generate(np.array(given, np.int64) if given == [[]] else given, **options)


def test_copies_after_generation(backend: Backend) -> None:
    model = make().eval()
    ids = tokens(1, 3)
    made = model.generate(ids, 3, do_sample=False).numpy()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.generate(ids, 3, do_sample=False).numpy(), made)
        with te.no_grad():
            other.lm_head.weight.mul_(-1.0)
        np.testing.assert_array_equal(model.generate(ids, 3, do_sample=False).numpy(), made)
