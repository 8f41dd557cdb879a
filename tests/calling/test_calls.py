"""What a caller can pass and get back, eager and under jit, against torch itself."""

from __future__ import annotations

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import ArgumentError, jax_callable


def both_ways(function, *args, **kwargs):
    """The results of an eager call, of a second one, and of a jitted one."""
    wrapped = jax_callable(function)
    jitted = jax.jit(lambda *arrays: wrapped(*arrays, **kwargs))
    return wrapped(*args, **kwargs), wrapped(*args, **kwargs), jitted(*args)


@pytest.fixture
def x():
    return jnp.arange(6.0).reshape(2, 3)


def test_decorator_without_arguments(x):
    @jax_callable
    def double(x):
        """Twice."""
        return x * 2

    assert_equal(double(x), x * 2)
    assert_equal(jax.jit(double)(x), x * 2)
    assert double.__name__ == "double"
    assert double.__doc__ == "Twice."


def test_decorator_with_arguments(x):
    @jax_callable(name="twice")
    def double(x):
        return x * 2

    assert_equal(double(x), x * 2)
    assert double.plan(x).name == "twice"


SHARED = {
    "schema": "jaxtorch/1",
    "name": "shared",
    "version": "1.0.0",
    "inputs": {"x": "float32[n]"},
    "outputs": {"y": "float32[n]"},
}


def test_tensors_pass_straight_through():
    calls = []

    @jax_callable
    def function(x, flag):
        calls.append(x)
        return x if flag else None

    tensor = torch.ones(3, requires_grad=True)
    assert function(tensor, True) is tensor
    assert calls[0] is tensor
    assert function(tensor, flag=False) is None


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # Dynamo's, on Python 3.13.0
def test_a_compiled_torch_program_traces_through(x):
    """Code that both sides share decorates a function once; torch.compile sees the function."""

    @jax_callable(spec=SHARED)
    def shared(x):
        return torch.sin(x) * 2

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    program = torch.compile(lambda t: shared(t + 1).sum(), backend=backend, fullgraph=True)
    tensor = torch.ones(3, requires_grad=True)
    value = program(tensor)
    value.backward()
    assert_close(tensor.grad, 2 * torch.cos(torch.full((3,), 2.0)))
    assert len(graphs) == 1
    assert_close(jax.jit(shared)(x[0]), 2 * jnp.sin(x[0]))


def test_mixed_arrays_and_tensors_name_which_is_which(x):
    function = jax_callable(lambda a, b, c: a)
    with pytest.raises(
        TypeError, match=r"JAX arrays in `args\[0\]\['k'\]`, `c` and torch tensors in `args\[1\]`"
    ):
        function({"k": x}, torch.ones(2), c=x)
    with pytest.raises(ArgumentError, match="t2j or j2t"):
        function(x, x, torch.ones(2))


@pytest.mark.parametrize("jit", [False, True])
def test_pytrees_in_and_out(x, jit):
    Pair = collections.namedtuple("Pair", "first second")

    @jax_callable
    def function(tree, pair):
        return {
            "sum": tree["a"] + tree["b"][0],
            "none": None,
            "pair": Pair(pair.second, [pair.first]),
        }

    call = jax.jit(function) if jit else function
    result = call({"a": x, "b": (x * 2, None)}, Pair(x, x + 1))
    assert_equal(result["sum"], x * 3)
    assert result["none"] is None
    assert_equal(result["pair"].first, x + 1)
    assert_equal(result["pair"].second[0], x)


@dataclasses.dataclass
class Pack:
    """A dataclass that JAX knows nothing of."""

    values: object
    extra: object = None


def test_open_dataclasses_in_and_out(x):
    @jax_callable
    def function(pack):
        assert isinstance(pack, Pack)
        return Pack(pack.values * 2, {"inner": Pack(pack.extra)})

    for call in (
        function,
        lambda pack: jax.jit(lambda v, e: function(Pack(v, e)).extra["inner"].values)(
            pack.values, pack.extra
        ),
    ):
        result = call(Pack(x, x + 1))
        inner = result.extra["inner"].values if isinstance(result, Pack) else result
        assert_equal(inner, x + 1)
    assert_equal(function(Pack(x, x)).values, x * 2)


def test_keyword_and_static_arguments(x):
    seen = []

    @jax_callable
    def reduce(x, *, dim=-1, mode="sum", scale=1.0, flags=()):
        seen.append((dim, mode, scale, flags))
        return getattr(x, mode)(dim) * scale

    assert_close(reduce(x, dim=0, mode="mean", scale=2.0), x.mean(0) * 2)
    assert_close(reduce(x, dim=1), x.sum(1))
    assert_close(jax.jit(lambda x: reduce(x=x, dim=0, flags=("a", 1)))(x), x.sum(0))
    assert seen[0][1:3] == ("mean", 2.0)
    assert type(seen[0][0]) is int


def test_static_values_that_are_equal_but_not_the_same_are_told_apart(x):
    function = jax_callable(
        lambda x, k: x * k if type(k) is float else (x > 0) if k is True else x.int() * k
    )
    assert function(x, 1.0).dtype == jnp.float32
    assert function(x, True).dtype == jnp.bool_
    assert function(x, 1).dtype == jnp.int32
    signs = jax_callable(lambda x, zero: torch.copysign(x, torch.tensor(zero)))
    assert_equal(np.signbit(signs(x + 1, 0.0)), np.zeros((2, 3), bool))
    assert_equal(np.signbit(signs(x + 1, -0.0)), np.ones((2, 3), bool))


def test_unhashable_static_argument_is_named(x):
    with pytest.raises(
        ArgumentError,
        match=r"argument `opts`: expected an array or a static value, got an unhashable set",
    ):
        jax_callable(lambda x, opts: x)(x, opts={1, 2})


def test_module_lambda_partial_and_bound_method(x):
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 4)
    expected = module(torch.from_numpy(np.array(x))).detach().numpy()

    class Holder:
        scale = 3

        def method(self, x):
            return x * self.scale

        @jax_callable
        def decorated(self, x):
            return x * self.scale

    for result in both_ways(module, x):
        assert_close(result, expected)
    for result in both_ways(lambda x: x + 1, x):
        assert_equal(result, x + 1)
    for result in both_ways(functools.partial(torch.sum, dim=0), x):
        assert_equal(result, x.sum(0))
    for result in both_ways(Holder().method, x):
        assert_equal(result, x * 3)
    holder = Holder()
    assert_equal(holder.decorated(x), x * 3)
    assert holder.decorated is holder.decorated


def test_builtin_torch_functions(x):
    for result in both_ways(torch.exp, x):
        assert_close(result, jnp.exp(x))


def test_numpy_arguments_are_arrays(x):
    function = jax_callable(lambda a, b: a + b)
    assert_equal(function(np.ones((2, 3), np.float32), x), x + 1)
    assert function(np.float64(2.0), x).dtype == jnp.float32


def test_no_arguments_at_all():
    function = jax_callable(lambda: torch.arange(3))
    assert_equal(function(), [0, 1, 2])
    assert_equal(jax.jit(function)(), [0, 1, 2])


def test_new_shapes_are_planned_as_they_come_and_known_ones_do_nothing_more(x, recwarn):
    bodies, planned = [], []
    note_plan = planned.append  # out of reach of what is put back

    @jax_callable
    def function(x):
        kind = type(x).__name__
        bodies.append(kind)
        if kind == "FakeTensor":
            note_plan(kind)
        return x * 2

    function(x)
    assert bodies == ["Tensor"]  # what the abstract evaluation did to the list was put back
    assert planned == ["FakeTensor"]
    function(x + 1)
    assert (len(bodies), len(planned)) == (2, 1)
    function(jnp.ones(5))
    assert (len(bodies), len(planned)) == (3, 2)
    function(x)
    jax.jit(function)(x)
    jax.jit(function)(x)
    assert (len(bodies), len(planned)) == (6, 2)
    assert not recwarn


def test_inside_scan_cond_and_while(x):
    step = jax_callable(lambda x: x * 2)
    carry, _ = jax.lax.scan(lambda carry, _: (step(carry), None), x, length=3)
    assert_equal(carry, x * 8)
    assert_equal(jax.lax.cond(True, step, lambda x: x, x), x * 2)
    looped = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, step(s[1])), (0, x))
    assert_equal(looped[1], x * 8)


def test_vmap_calls_one_by_one(x):
    softmax = jax_callable(lambda x, y: torch.softmax(x, 0) + y)
    assert_close(
        jax.vmap(softmax, in_axes=(1, None), out_axes=1)(x, jnp.ones(2)),
        jax.nn.softmax(x, axis=0) + 1,
    )


def test_donation_and_aliasing_outputs_give_right_values():
    function = jax_callable(lambda x, y: (y, x.T, x[0], x))
    x, y = jnp.arange(4.0).reshape(2, 2), jnp.ones((2, 2)) * 7
    expected = [np.array(v) for v in (y, x.T, x[0], x)]
    results = jax.jit(function, donate_argnums=(0, 1))(x, y)
    for result, wanted in zip(results, expected, strict=True):
        assert_equal(result, wanted)


def test_results_with_lazy_conjugation_and_negation():
    z = jnp.asarray([1 + 2j, 3 - 4j])
    for result in both_ways(lambda z: (z.conj(), z.conj().imag, z.real), z):
        assert_equal(result[0], jnp.conj(z))
        assert_equal(result[1], -z.imag)
        assert_equal(result[2], z.real)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_method_of_a_module_in_a_closure_sees_its_mode(x):
    dropout = torch.nn.Dropout(0.5)
    function = jax_callable(lambda x: dropout(x))
    assert (np.array(function(jnp.ones(1000))) == 0).any()
    dropout.eval()
    assert not (np.array(function(jnp.ones(1000))) == 0).any()


def test_mode_of_the_calling_thread_is_kept(x):
    function = jax_callable(lambda x: torch.tensor(float(torch.is_grad_enabled())))
    assert function(x) == 1.0
    with torch.no_grad():
        assert function(x) == 0.0
        jitted = jax.jit(function)
        assert jitted(x) == 0.0
    # A compiled program keeps the mode it was traced under, whatever the thread's mode is.
    assert jitted(x) == 0.0
    # (jax.jit knows nothing of torch's modes: another jit, another trace.)
    traced_outside = jax.jit(lambda x: function(x))
    assert traced_outside(x) == 1.0
    with torch.no_grad(), torch.inference_mode():
        assert traced_outside(x) == 1.0
    matmul = jax_callable(lambda x: x @ x.T)
    assert matmul(x).dtype == jnp.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert matmul(x).dtype == jnp.bfloat16
        assert jax.jit(lambda x: matmul(x))(x).dtype == jnp.bfloat16
    assert matmul(x).dtype == jnp.float32


def test_under_disable_jit(x):
    wrapped = jax_callable(lambda x: x.sin())
    with jax.disable_jit():
        assert_close(wrapped(x), jnp.sin(x))
        assert_close(jax.grad(lambda x: wrapped(x).sum())(x), jnp.cos(x))


@jax_callable(name="tripled")
def tripled(x):
    return x * 3


def test_pickle_and_copy(x):
    import copy
    import pickle

    assert pickle.loads(pickle.dumps(tripled)) is tripled
    made = jax_callable(torch.exp)
    again = pickle.loads(pickle.dumps(made))
    assert_equal(again(x), made(x))
    local = jax_callable(lambda x: x + 1)
    assert_equal(copy.deepcopy(local)(x), x + 1)
    assert_equal(copy.copy(local)(x), x + 1)


def test_abstract_evaluation_by_jax(x):
    wrapped = jax_callable(lambda x: {"y": x.sum(0)})
    assert jax.eval_shape(wrapped, x)["y"].shape == (3,)
    assert "torch_call" in str(jax.make_jaxpr(wrapped)(x))
