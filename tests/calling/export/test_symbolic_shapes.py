"""Exported programs for arrays of any size (`jax.export.symbolic_shape`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export

from comparing import assert_close
from jaxtorch_bridge import ffi_target_names, from_module, jax_callable
from jaxtorch_bridge.errors import DynamicSizeError, SpecMismatchError

FAILURES = (jax.errors.JaxRuntimeError, ValueError)


def exported(f, *arguments):
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    made = export.export(jax.jit(f), disabled_checks=allowed)(*arguments)
    return export.deserialize(made.serialize())


def rows(text="b", dtype=jnp.float32, constraints=()):
    shape = export.symbolic_shape(f"{text}, 3", constraints=constraints)
    return jax.ShapeDtypeStruct(shape, dtype)


def some(count):
    return jnp.asarray(np.random.default_rng(count).standard_normal((count, 3)), jnp.float32)


LAYERS = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.GELU())
CONVOLUTION = torch.nn.Conv1d(3, 4, 3, stride=2, padding=1)
FUNCTIONS = {
    "double": lambda x: x * 2,
    "layers": LAYERS,
    "outer": lambda x: x @ x.T,
    "twice as long": lambda x: torch.cat([x, -x]),
    "flat": lambda x: x.flatten(),
    "half": lambda x: x[::2],
    "a sum": lambda x: x.sum(0),
    "repeated": lambda x: x.repeat(3, 1),
    "convolution": lambda x: CONVOLUTION(x.T[None]),
    "padded to fours": lambda x: torch.nn.functional.pad(x, (0, 0, 0, -x.shape[0] % 4)),
    "positions": lambda x: x + torch.arange(x.shape[0])[:, None],
    "several": lambda x: {"mean": x.mean(0), "centred": [x - x.mean(0)]},
    "softmax": lambda x: torch.softmax(x @ x.T, -1) @ x,
    "attention": lambda x: torch.nn.functional.scaled_dot_product_attention(
        x[None], x[None], x[None]
    ),
    "sizes as numbers": lambda x: x * x.shape[0],
    "a branch on sizes": lambda x: x * 2 if x.shape[0] > 5 else x * 3,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_one_program_for_all_sizes(function):
    f = jax_callable(function)
    program = exported(f, rows())
    for count in (1, 2, 3, 4, 7, 30):
        x = some(count)
        want = function(torch.tensor(np.asarray(x)))
        for one, other in zip(jax.tree.leaves(program.call(x)), jax.tree.leaves(want), strict=True):
            assert_close(one, other)


def test_sizes_of_results_are_formulas():
    f = jax_callable(lambda x: (torch.cat([x, x]), x @ x.T, x[1:]))
    shapes = [str(aval.shape) for aval in exported(f, rows()).out_avals]
    assert shapes == ["(2*b, 3)", "(b, b)", "(b - 1, 3)"]


def test_several_sizes_and_computed_ones():
    shape = export.symbolic_shape("b, c, 2*c + 1")
    first = jax.ShapeDtypeStruct(shape[:2], jnp.float32)
    second = jax.ShapeDtypeStruct(shape[1:], jnp.float32)
    f = jax_callable(torch.matmul)  # a program holds no function
    program = exported(f, first, second)
    assert str(program.out_avals[0].shape) == "(b, 2*c + 1)"
    x, y = jnp.ones((4, 2)), jnp.ones((2, 5))
    assert_close(program.call(x, y), x @ y)


def test_gradients():
    cube = jax_callable(lambda x: (x**3).sum())
    program = exported(jax.grad(cube), rows())
    taken = from_module(LAYERS)

    def loss(params, x):
        return (taken.apply(params, x) ** 2).sum()

    described = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), taken.params)
    step = exported(jax.value_and_grad(loss), described, rows())
    for count in (1, 4, 9):
        x = some(count)
        assert_close(program.call(x), 3 * x**2)
        value, slopes = step.call(taken.params, x)
        wanted, expected = jax.value_and_grad(loss)(taken.params, x)
        assert_close(value, wanted)
        assert_close(slopes, expected)


@pytest.mark.parametrize("count", [1, 2])
def test_calls_whose_results_are_empty_for_some_sizes_are_made(count):
    def unfolded(x):
        return x.unfold(0, 2, 1)

    wrapped = jax_callable(unfolded)
    program = exported(wrapped, rows())
    if count == 1:
        with pytest.raises(FAILURES, match="maximum size for tensor"):
            jax.block_until_ready(program.call(some(count)))
    else:
        assert_close(program.call(some(count)), some(count).T[None])


CONSTANTS = {
    "detached": lambda x: x.detach() * 2,
    "compared": lambda x: (x > 0).float(),
    "zeros": torch.zeros_like,
    "identity": lambda x: torch.eye(x.shape[0], 3),
    "one hot": lambda x: torch.nn.functional.one_hot(x.argmax(-1), 3).float(),
}


@pytest.mark.parametrize("function", CONSTANTS.values(), ids=CONSTANTS.keys())
def test_gradients_of_what_does_not_depend_on_it(function):
    f = jax_callable(function)
    program = exported(jax.grad(lambda x: (f(x) ** 2).sum()), rows())
    for count in (1, 5):
        assert_close(program.call(some(count)), jnp.zeros((count, 3)))


def test_contracts_name_and_bind_them():
    contract = {
        "schema": "jaxtorch/1",
        "name": "twice",
        "version": "1.0.0",
        "inputs": {"x": "float32[n, k]"},
        "outputs": {"y": "float32[2*n, k]"},
    }

    def twice(x):
        return torch.cat([x, x])

    def by_numpy(x):  # torch cannot evaluate it abstractly
        return torch.from_numpy(np.concatenate([x.numpy(), x.numpy()]))

    for function in (twice, by_numpy):
        f = jax_callable(function, spec=contract)  # a program holds no function
        program = exported(f, rows())
        assert_close(program.call(some(4)), jnp.concatenate([some(4)] * 2))

    wrong = {**contract, "outputs": {"y": "float32[3*n, k]"}}
    with pytest.raises(SpecMismatchError, match=r"to be 3\*b; torch returned 2\*b"):
        exported(jax_callable(twice, spec=wrong), rows())
    with pytest.raises(SpecMismatchError, match="axis 1 to have size 4"):
        exported(jax_callable(twice, spec={**contract, "inputs": {"x": "float32[n, 4]"}}), rows())

    few = jax_callable(twice, spec={**contract, "constraints": ["n <= 10"]})
    with pytest.raises(SpecMismatchError, match="constraints="):
        exported(few, rows())
    program = exported(few, rows(constraints=["b <= 10"]))
    assert program.call(some(10)).shape == (20, 3)
    with pytest.raises(ValueError, match="shapes"):
        program.call(some(11))


def test_what_torch_cannot_tell_for_all_sizes_is_an_error_in_our_words():
    # It computes with the size as a number.
    fixed = jax_callable(lambda x: x.new_zeros(int(x.shape[0])))
    with pytest.raises(DynamicSizeError, match="`b` as a plain number"):
        exported(fixed, rows())
    with pytest.raises(DynamicSizeError, match="formulas in a contract"):
        exported(jax_callable(lambda x: x[x > 0]), rows())
    with pytest.raises(DynamicSizeError, match="formulas in a contract"):
        exported(jax_callable(lambda x: torch.from_numpy(np.asarray(x))), rows())
    with pytest.raises(DynamicSizeError, match="batch of known size"):
        exported(jax.vmap(jax_callable(lambda x: x * 2)), rows())


def test_a_size_for_which_the_formula_does_not_hold_is_an_error_when_running():
    def shortened(x):
        return x[:5] if float(x.detach().sum()) < 1e6 else x

    f = jax_callable(
        shortened,
        spec={
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": {"x": "float32[b, 3]"},
            "outputs": {"y": "float32[b, 3]"},
        },
    )
    program = exported(f, rows())
    assert_close(program.call(some(3)), some(3))
    with pytest.raises(FAILURES, match="planned float32"):
        jax.block_until_ready(program.call(some(7)))


def test_a_plan_for_all_sizes_explains_itself():
    f = jax_callable(lambda x: torch.cat([x, x]))
    text = f.explain(rows())
    assert "float32[b, 3]" in text
    assert "float32[2*b, 3]" in text


ASKS_FOR_SIZES = {
    "a share": (lambda x: x[: int(x.shape[0] * 0.5)], None),
    "a branch": (lambda x: x[::2] if x.shape[0] > 50 else x, ("b >= 51", (51, 60, 100))),
    "another branch": (lambda x: x[::2] if x.shape[0] > 50 else x, ("b <= 50", (1, 2, 50))),
    "a squeeze": (lambda x: x.squeeze(0), ("b >= 2", (2, 3, 10))),
    "a loop": (lambda x: torch.cat([x] * min(x.shape[0], 4)), None),
}


@pytest.mark.parametrize("name", ASKS_FOR_SIZES)
def test_sizes_that_code_asks_for_are_not_made_up(name):
    """What it is told holds for one size alone, and so would the program."""
    function, remedy = ASKS_FOR_SIZES[name]
    f = jax_callable(function)
    with pytest.raises(DynamicSizeError, match="for all sizes at once"):
        exported(f, rows())
    if remedy is None:
        return
    constraint, counts = remedy
    program = exported(f, rows(constraints=[constraint]))
    for count in counts:
        assert_close(program.call(some(count)), f(some(count)))


def test_constraints_on_sizes_that_a_call_has_not():
    """Those of all arguments of a program are of one scope."""
    constraints = ["b >= 2", "n >= 2", "b <= n"]
    both = export.symbolic_shape("b, n", constraints=constraints)
    f, g = jax_callable(lambda x: x.squeeze(0) * 2), jax_callable(lambda y: y.cumsum(0))
    program = exported(
        lambda x, y: (f(x), g(y)),
        jax.ShapeDtypeStruct((both[0], 3), jnp.float32),
        jax.ShapeDtypeStruct((both[1],), jnp.float32),
    )
    doubled, summed = program.call(some(2), jnp.ones(5))
    assert_close(doubled, 2 * some(2))
    assert_close(summed, jnp.arange(1.0, 6.0))
