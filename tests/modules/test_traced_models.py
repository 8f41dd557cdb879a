"""Models of transformers whose code asks whether it is traced: graphs of all that JAX takes."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from comparing import assert_close
from jaxtorch_bridge import BridgeWarning, from_module, j2t, jax_callable, t2j

SMALL = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}
GROUPED = {**SMALL, "num_key_value_heads": 1, "use_cache": False}
TOKENS = jnp.asarray([[2, 7, 9, 4], [3, 8, 1, 5]], jnp.int32)
MASKS = {"no mask": None, "mask": jnp.asarray([[1, 1, 1, 1], [1, 1, 1, 0]], jnp.int32)}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS = {
    "BERT": lambda: BertModel(BertConfig(**SMALL), add_pooling_layer=False),
    "GPT-2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=30,
            n_embd=8,
            n_layer=1,
            n_head=2,
            n_positions=12,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
    ),
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "Mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(
            **GROUPED, attn_implementation="eager", num_local_experts=4, num_experts_per_tok=2
        )
    ),
}
# Torch's product for groups of experts goes only in bfloat16 as a fake; told that it is compiled,
# transformers takes another.
FLAGS = {"Mixtral": ", with torch.compiler.is_compiling()"}
# And that has no forward mode: autograd goes twice, on the function itself. Fused attention cannot.
AGAIN = {"Mixtral"}
# Parameters are moved by a constant, which normalisations take away again: numbers that are left
# of greater ones that cancel.
CANCELLED = 10.0


def scores(model, ids, mask):
    """The first result alone."""
    return model(ids, attention_mask=mask, return_dict=False)[0]


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return MODELS[name]().eval()


@pytest.fixture(params=MASKS)
def mask(request):
    return MASKS[request.param]


def torchs(model, mask, params):
    """Parameters, and torch's own function of them."""
    given = None if mask is None else j2t(mask)

    def call(named):
        return torch.func.functional_call(model, named, (j2t(TOKENS),), _keywords(given))

    return {name: j2t(value) for name, value in params.items()}, call


def _keywords(mask):
    return {"attention_mask": mask, "return_dict": False}


def gradient_of(model, params, mask, weights):
    """Torch's gradient of the weighted sum of scores by every parameter."""
    named, call = torchs(model, mask, params)
    named = {key: value.clone().requires_grad_() for key, value in named.items()}
    result = call(named)[0]
    return result.detach(), dict(
        zip(named, torch.autograd.grad((result * weights).sum(), list(named.values())), strict=True)
    )


@pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element")
def test_values_and_derivatives_are_torchs(name, model, mask, moved):
    net = from_module(model, names="flat", method=scores)
    params = moved(net.params)
    words = net.explain(params, TOKENS, mask)
    assert f"evaluated abstractly (FakeTensor: no FLOPs, no memory){FLAGS.get(name, '')}\n" in words
    assert "extra runs   0" in words
    weights = torch.linspace(-1, 1, 8 * (8 if name == "BERT" else 30)).reshape(2, 4, -1)
    value, gradient = gradient_of(model, params, mask, weights)

    def call(params):
        return net.apply(params, TOKENS, mask)

    def loss(params):
        return (call(params) * t2j(weights)).sum()

    assert_close(call(params), value)
    found = jax.jit(jax.grad(loss))(params)
    # What is left of greater numbers that cancel: every gradient is as exact as the greatest.
    scale = max(float(one.abs().max()) for one in gradient.values())
    for key, one in gradient.items():
        assert_close(found[key], one, scale=scale, label=key)
    # Forward mode, by the same gradient: the derivative along it is its square.
    out, pushed = jax.jvp(call, (params,), (found,))
    assert_close(out, value, factor=CANCELLED)
    square = sum(float((one.double() ** 2).sum()) for one in gradient.values())
    assert_close((pushed * t2j(weights)).sum(), jnp.float32(square), factor=10)
    # A part of the Jacobian, of which the rows are gradients.
    key = next(key for key, one in gradient.items() if one.ndim == 1 and float(one.abs().max()) > 0)
    jacobian = jax.jacfwd(lambda part: call({**params, key: part}))(params[key])
    rows = jnp.einsum("bsv,bsvk->k", t2j(weights), jacobian)
    assert_close(rows, gradient[key], scale=scale, factor=CANCELLED)
    words = net.explain(params, TOKENS, mask)
    assert "tape: the function runs once" in words
    assert ("torch.autograd.grad, twice" in words) == (name in AGAIN)


def test_batches_are_one_call(model, mask, moved):
    net = from_module(model, names="flat", method=scores)
    params = moved(net.params)
    many = jnp.stack([TOKENS, TOKENS[::-1], (TOKENS + 3) % 30])
    found = jax.jit(jax.vmap(lambda ids: net.apply(params, ids, mask)))(many)
    expected = jnp.stack([net.apply(params, ids, mask) for ids in many])
    assert_close(found, expected, factor=CANCELLED)
    assert "one by one" not in net.explain(params, TOKENS, mask)


def test_second_derivatives_are_by_graphs(model, moved):
    net = from_module(model, names="flat", method=scores)
    params = moved(net.params)
    named, call = torchs(model, None, params)
    key = next(key for key in reversed(params) if "norm" in key.lower() or "ln" in key)

    def theirs(part):
        return (call({**named, key: part})[0] ** 2).sum()

    expected = torch.autograd.functional.hessian(theirs, named[key])

    def ours(part):
        return (net.apply({**params, key: part}, TOKENS, None) ** 2).sum()

    with warnings.catch_warnings():
        if isinstance(model, MixtralForCausalLM):
            # Its experts are a custom op, of whose backward torch.func would not show what it takes
            # for constants: autograd goes twice, which torch cannot do for a batch.
            warnings.filterwarnings("ignore", ".*once for each element", BridgeWarning)
        found = jax.hessian(ours)(params[key])
    assert_close(found, expected, factor=10)  # a sum over all tokens of squares of sums


def test_the_graph_backend(model):
    contract = {
        "schema": "jaxtorch/1",
        "name": "scores",
        "version": "1.0.0",
        "inputs": {"ids": "int32[b, s]"},
        "outputs": {"scores": "float32[b, s, d]"},
        "execution": {"backend": "graph"},
    }
    model.requires_grad_(False)

    def of_ids(ids):
        return scores(model, ids, None)

    wrapped = jax_callable(of_ids, spec=contract)
    assert_close(wrapped(TOKENS), of_ids(j2t(TOKENS)))
    assert_close(jax.jit(wrapped)(TOKENS[::-1]), of_ids(j2t(TOKENS[::-1])))


def test_parameters_by_functional_call(name, model, mask, moved):
    @jax_callable
    def apply(params, ids, mask):
        return torch.func.functional_call(model, params, (ids,), _keywords(mask))[0]

    net = from_module(model, names="flat")
    params = moved(net.params)
    weights = torch.linspace(-1, 1, 8 * (8 if name == "BERT" else 30)).reshape(2, 4, -1)
    value, gradient = gradient_of(model, params, mask, weights)
    assert apply.plan(params, TOKENS, mask).inference.traced
    assert_close(apply(params, TOKENS, mask), value)
    found = jax.jit(jax.grad(lambda p: (apply(p, TOKENS, mask) * t2j(weights)).sum()))(params)
    scale = max(float(one.abs().max()) for one in gradient.values())
    for key, one in gradient.items():
        assert_close(found[key], one, scale=scale, label=key)


def test_what_has_no_forward_mode_is_told_and_not_taken_for_a_constant(moved):
    config = MixtralConfig(**GROUPED, **EXPERTS)
    net = from_module(MixtralForCausalLM(config).eval(), names="flat", method=scores)
    params = moved(net.params)
    with pytest.raises(Exception, match="derivative for aten::_scaled_dot_product_flash"):
        jax.block_until_ready(jax.jvp(lambda p: net.apply(p, TOKENS, None), (params,), (params,)))
