"""Models of transformers: dataclasses out, optional inputs, leaves that are None, tied weights."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    StaticCache,
)

from comparing import assert_close, assert_equal
from jaxtorch_bridge import from_module, j2t, tree_t2j

SMALL = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}
TOKENS = jnp.asarray([[2, 7, 9, 4], [3, 8, 0, 0]], jnp.int32)
MASK = jnp.asarray([[1, 1, 1, 1], [1, 1, 0, 0]], jnp.int32)


def test_a_model_output_comes_out_with_its_none_leaves(moved, in_torch):
    model = BertModel(BertConfig(**SMALL)).eval()
    net = from_module(model)
    params = moved(net.params)
    theirs = in_torch(net, model, params)
    for mask in (None, MASK):
        found = net.apply(params, input_ids=TOKENS, attention_mask=mask)
        expected = theirs(j2t(TOKENS), attention_mask=None if mask is None else j2t(mask))
        assert type(found) is type(expected)
        assert found.hidden_states is None
        for name in ("last_hidden_state", "pooler_output"):
            assert_close(found[name], expected[name].detach(), label=name)
    for _ in range(3):  # the model installs hooks for this
        states = net.apply(params, TOKENS, output_hidden_states=True).hidden_states
        assert len(states) == 3


def test_gradients_under_jit_and_batches(moved, in_torch):
    model = BertModel(BertConfig(**SMALL), add_pooling_layer=False).eval()
    net = from_module(model)
    params = moved(net.params)

    @jax.jit
    def pooled(params, tokens, mask):
        hidden = net.apply(params, tokens, attention_mask=mask).last_hidden_state
        return (hidden * mask[..., None]).sum(1)

    grads = net.dump(jax.grad(lambda p: (pooled(p, TOKENS, MASK) ** 2).sum())(params))
    theirs = in_torch(net, model, params)
    hidden = theirs(j2t(TOKENS), attention_mask=j2t(MASK)).last_hidden_state
    ((hidden * j2t(MASK)[..., None]).sum(1) ** 2).sum().backward()
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad, label=name)


def test_tied_weights_and_losses(moved, in_torch):
    model = BertForMaskedLM(BertConfig(**SMALL)).eval()
    # Torch's losses take 64-bit classes, which JAX holds in 32 bits by default.
    net = from_module(
        model, names="flat", method=lambda model, ids, labels: model(ids, labels=labels.long()).loss
    )
    assert "cls.predictions.decoder.weight" not in net.params
    params = moved(net.params)
    loss, grads = jax.value_and_grad(net.apply)(params, TOKENS, TOKENS)
    theirs = in_torch(net, model, params)
    expected = theirs(j2t(TOKENS), labels=j2t(TOKENS).long()).loss
    expected.backward()
    assert_close(loss, expected.detach())
    name = "bert.embeddings.word_embeddings.weight"
    tied = theirs.bert.embeddings.word_embeddings.weight
    assert theirs.cls.predictions.decoder.weight is tied
    assert_close(grads[name], tied.grad)


def test_a_decoder(compare):
    config = GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=12)
    model = GPT2LMHeadModel(config).eval()
    model.config.use_cache = False
    compare(model, TOKENS, first=lambda result: result.logits)


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_a_cache_goes_in_and_out(kind):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2)).eval()
    net = from_module(model, copies=("cache",))
    expected = model(j2t(TOKENS)).logits.detach()
    sizes = {"max_cache_len": 6} if kind is StaticCache else {}
    empty = tree_t2j(kind(config=model.config, **sizes))
    for apply in (net.apply, jax.jit(net.apply)):
        first = apply(net.params, TOKENS[:, :2], cache=empty)
        second = apply(net.params, TOKENS[:, 2:], cache=first.cache)
        assert_close(jnp.concatenate([first.logits, second.logits], 1), expected)
        assert second.cache.kind is kind


def test_a_function_of_the_model_hands_a_cache_in_and_out():
    def step(model, ids, states):
        cache = DynamicCache(states or None)
        name = (
            "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        )
        logits = model(ids, use_cache=True, **{name: cache}).logits
        return logits, [(layer.keys, layer.values) for layer in cache.layers]

    config = GPT2Config(vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=12)
    model = GPT2LMHeadModel(config).eval()
    net = from_module(model, method=step)
    expected = model(j2t(TOKENS)).logits.detach()
    first, states = net.apply(net.params, TOKENS[:, :2], None)
    second, states = jax.jit(net.apply)(net.params, TOKENS[:, 2:], states)
    assert_close(jnp.concatenate([first, second], 1), expected)
    assert states[0][0].shape == (2, 2, 4, 4)


def test_the_model_stays_as_it_was():
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SMALL))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {name: set(vars(part)) for name, part in model.named_modules()}
    net = from_module(model)
    jax.jit(lambda p: net.apply(p, TOKENS, train=False).last_hidden_state)(net.params)
    for name, value in model.state_dict().items():
        assert_equal(value, before[name], label=name)
    assert {name: set(vars(part)) for name, part in model.named_modules()} == attributes
    assert model.training
