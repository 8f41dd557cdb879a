"""Results and arguments of classes that torch's pytree registry knows."""

import collections
import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.utils._pytree as torch_pytree
import transformers

from comparing import assert_close, assert_equal
from jaxtorch_bridge import MutationError, jax_callable, tree_j2t, tree_t2j
from jaxtorch_bridge.calling.pytrees.torch_nodes import Unopened
from jaxtorch_bridge.errors import OutputError

X = jnp.array([[3.0, 1.0, 2.0], [0.5, 0.25, 4.0]])
SQUARE = jnp.array([[2.0, 1.0], [1.0, 3.0]])

RETURN_TYPES = [
    (lambda x: x.max(-1), X),
    (lambda x: x.min(0), X),
    (lambda x: torch.topk(x, 2), X),
    (torch.sort, X),
    (lambda x: x.mode(-1), X),
    (lambda x: x.median(-1), X),
    (lambda x: x.cummax(0), X),
    (lambda x: x.kthvalue(2), X),
    (lambda x: torch.aminmax(x), X),
    (torch.linalg.qr, SQUARE),
    (torch.linalg.slogdet, SQUARE),
    (torch.linalg.eigh, SQUARE),
    (torch.linalg.svd, SQUARE),
    (torch.linalg.lu_factor, SQUARE),
    (torch.frexp, X),
]


@pytest.mark.parametrize(("function", "x"), RETURN_TYPES)
def test_torchs_named_results_are_named_tuples_of_arrays(function, x):
    f = jax_callable(function)
    want = function(torch.tensor(x.tolist()))
    for found in (f(x), jax.jit(f)(x)):
        assert isinstance(found, tuple)
        assert list(found._fields) == list(type(want).__match_args__)
        for name in found._fields:
            expected = getattr(want, name)
            # JAX holds indices in 32 bits.
            wide = expected.dtype == torch.int64
            assert_close(getattr(found, name), expected.int() if wide else expected)


def test_named_results_under_every_transformation():
    f = jax_callable(lambda x: x.max(-1))
    values, indices = f(X)
    assert_equal(jax.vmap(f)(X).values, values)
    assert_equal(jax.grad(lambda x: f(x).values.sum())(X), jax.nn.one_hot(indices, 3))
    pushed, moved = jax.jvp(f, (X,), (X,))
    assert_equal(moved.values, pushed.values)
    assert jax.eval_shape(f, X).indices.shape == (2,)
    assert [sig.path for sig in f.plan(X).outputs] == ["values", "indices"]
    # It is a tree for JAX, and back into torch.
    again = jax_callable(lambda found: found.values * found.indices)
    assert_close(again(f(X)), values * indices)
    kept = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, f(X))))
    assert type(kept) is type(f(X))
    assert copy.deepcopy(f(X)).indices.shape == (2,)


class Pair:
    def __init__(self, one, others, name="pair"):
        self.one, self.others, self.name = one, others, name


def make_pair(x):
    return Pair(x, {"twice": 2 * x}, "made")


def test_a_class_that_is_registered_late():
    f = jax_callable(make_pair)
    with pytest.raises(OutputError, match="register_pytree_node"):
        f(X)
    torch_pytree.register_pytree_node(
        Pair, lambda p: ([p.one, p.others], p.name), lambda parts, name: Pair(*parts, name)
    )
    for found in (f(X), jax.jit(f)(X)):
        assert type(found) is Pair
        assert found.name == "made"
        assert_close(found.others["twice"], 2 * X)
    g = jax_callable(lambda pair: pair.one * pair.others["twice"])
    pair = f(X)
    assert_close(g(pair), 2 * X * X)
    slope = jax.grad(lambda pair: g(pair).sum())(pair)
    assert type(slope) is Pair
    assert_close(slope.others["twice"], X)
    # What is no array in it is static: another one is another call.
    named = jax_callable(lambda pair: pair.one * len(pair.name))
    assert_close(named(Pair(X, {}, "ab")), 2 * X)
    assert_close(named(Pair(X, {}, "abc")), 3 * X)


class Strict:
    """Can be made of tensors alone."""

    def __init__(self, tensor):
        self.tensor = torch.as_tensor(tensor).clone()


def test_a_class_that_needs_tensors_stands_unopened_on_the_jax_side():
    torch_pytree.register_pytree_node(Strict, lambda s: ([s.tensor], None), lambda t, _: Strict(*t))
    f = jax_callable(lambda x: Strict(2 * x))
    g = jax_callable(lambda strict: strict.tensor * 3)
    for found in (f(X), jax.jit(f)(X)):
        assert type(found) is Unopened
        assert found.kind is Strict
        assert "Strict" in repr(found)
        assert_close(found.children[0], 2 * X)
        assert_close(g(found), 6 * X)
    assert_close(jax.jit(lambda x: g(f(x)))(X), 6 * X)
    carried, _ = jax.lax.scan(lambda c, _: (jax_callable(twice)(c), None), f(X), None, length=3)
    assert_close(carried.children[0], 16 * X)


def twice(strict):
    return Strict(2 * strict.tensor)


def test_deques():
    f = jax_callable(lambda x: collections.deque([x, 2 * x]))
    assert_close(jax.jit(f)(X)[1], 2 * X)


@pytest.fixture(scope="module")
def language_model():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=16,
        n_layer=2,
        n_head=2,
        vocab_size=20,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config).eval()


def test_a_language_model_as_it_is_returns_its_cache_and_takes_it_back(language_model):
    step = jax_callable(language_model)
    ids = jnp.array([[1, 2, 3, 4, 5]], jnp.int32)
    with torch.no_grad():
        want = language_model(torch.tensor(ids.tolist())).logits
    for call in (step, jax.jit(step)):
        first = call(ids[:, :3])
        assert_close(first.logits, want[:, :3], factor=4)
        cache = first.cache
        assert cache.kind is transformers.DynamicCache
        for place in (3, 4):
            now = call(ids[:, place : place + 1], cache=cache)
            assert_close(now.logits[:, 0], want[:, place], factor=4)
            cache = now.cache
        # The caller's cache is left as it was.
        assert first.cache.children[0].shape[2] == 3

    # One of torch's own, still empty, may be passed too.
    empty = transformers.DynamicCache(config=language_model.config)
    assert_close(step(ids[:, :3], cache=empty).logits, want[:, :3], factor=4)
    assert empty.get_seq_length() == 0


def static_cache(model, length, *, early):
    cache = transformers.StaticCache(config=model.config, max_cache_len=length)
    if early:
        cache.early_initialization(1, 2, 8, torch.float32, torch.device("cpu"))
    return cache


@pytest.mark.parametrize("early", [True, False])
def test_a_cache_of_fixed_size_is_carried_by_scan(language_model, early):
    step = jax_callable(language_model, copies=("cache",))
    ids = jnp.array([[1, 2, 3, 4, 5, 6, 7]], jnp.int32)
    with torch.no_grad():
        want = language_model(torch.tensor(ids.tolist())).logits
    empty = tree_t2j(static_cache(language_model, 9, early=early))
    assert type(empty) is Unopened
    before = [np.array(child) for child in empty.children]

    def decode(ids, cache):
        first = step(ids[:, :3], cache=cache)

        def go_on(cache, word):
            answer = step(word[None, None], cache=cache)
            return answer.cache, answer.logits[0, 0]

        last, rest = jax.lax.scan(go_on, first.cache, ids[0, 3:])
        return jnp.concatenate([first.logits[0], rest]), last

    for call in (decode, jax.jit(decode)):
        logits, last = call(ids, empty)
        assert_close(logits, want[0], factor=4)
        # The caller's is left as it was.
        for child, value in zip(empty.children, before, strict=True):
            assert_equal(child, value)
    back = tree_j2t(last)
    assert type(back) is transformers.StaticCache
    assert int(back.get_seq_length()) == 7

    slope = jax.grad(lambda cache: step(ids[:, 6:], cache=cache).logits.sum(), allow_int=True)(last)
    assert any(jnp.abs(part).max() > 0 for part in slope.children if part.ndim)


def test_a_cache_that_is_written_to_names_the_cure(language_model):
    empty = tree_t2j(static_cache(language_model, 9, early=True))
    with pytest.raises(MutationError, match=r"input `cache\[0\]`.*copies=\(\"cache\","):
        jax_callable(language_model)(jnp.array([[1, 2]], jnp.int32), cache=empty)


def test_gradients_by_a_cache(language_model):
    step = jax_callable(language_model)
    ids = jnp.array([[1, 2, 3, 4]], jnp.int32)
    cache = step(ids[:, :3]).cache
    weights = torch.randn(20)
    loss = lambda logits: (logits * weights.numpy()).sum()  # noqa: E731
    slope = jax.grad(lambda cache: loss(step(ids[:, 3:], cache=cache).logits))(cache)

    made = language_model(torch.tensor(ids[:, :3].tolist())).cache
    for layer in made.layers:  # the arrays of a cache know nothing of each other
        layer.keys = layer.keys.detach().requires_grad_()
        layer.values = layer.values.detach().requires_grad_()
    tensors = [t for layer in made.layers for t in (layer.keys, layer.values)]
    out = language_model(torch.tensor(ids[:, 3:].tolist()), cache=made).logits.mul(weights).sum()
    for found, want in zip(slope.children, torch.autograd.grad(out, tensors), strict=True):
        assert_close(found, want, factor=8)
