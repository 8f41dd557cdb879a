"""In what containers results come where only a contract tells which arrays they are."""

import dataclasses
import functools
from typing import Annotated, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import j2t, jax_callable
from jaxtorch_bridge.errors import OutputError

X = jnp.array([1.0, -2.0, 3.0])
FAILURES = (jax.errors.JaxRuntimeError, ValueError)
ONE_BY_ONE = pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
# Of equal shapes, so that one in the place of the other would go unseen.
TWO = {"second": "float32[n]", "first": "float32[n]"}


def contract(outputs, **fields):
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    return {**head, "inputs": {"x": "float32[n]"}, "outputs": outputs, **fields}


class Pair(NamedTuple):
    second: torch.Tensor
    first: torch.Tensor


@dataclasses.dataclass
class Record:
    second: torch.Tensor
    first: torch.Tensor


class Named(TypedDict):
    second: torch.Tensor
    first: torch.Tensor


def looked_at(x):
    """No evaluation goes past this, also not with symbols."""
    return x * 2 if x.sum() > 0 else -x


def as_dict(x):
    y = looked_at(x)
    return {"second": y**2, "first": y}


def as_variable(x):
    out = {}
    out["second"] = looked_at(x) ** 2
    out["first"] = looked_at(x)
    return out


def as_dict_call(x):
    y = looked_at(x)
    if y[0] > 1:
        return dict(first=y, second=y**2)  # noqa: C408, the point of it
    return dict(second=y**2, first=y)  # noqa: C408


def as_pair(x):
    y = looked_at(x)
    return Pair(y**2, first=y)


def as_record(x):
    y = looked_at(x)
    return Record(first=y, second=y**2)


def as_list(x):
    y = looked_at(x)
    return [y**2, y]


def as_tuple(x):
    y = looked_at(x)
    return y**2, y


def as_another(x):
    return as_pair(x) if x is not None else as_pair(-x)


def unreadable(x):
    return functools.reduce(lambda found, _: as_dict(x), range(2), None)


def annotated(x) -> dict[str, torch.Tensor]:
    return unreadable(x)


def annotated_pair(x) -> Annotated[Pair, "a remark"]:
    return Pair(**unreadable(x))


def annotated_names(x) -> Named:
    return unreadable(x)


def annotated_tuple(x) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(as_list(x))


class Module(torch.nn.Module):
    def forward(self, x):
        return as_dict(x)


class Called:
    def __call__(self, x):
        return as_dict(x)


READABLE = [
    *(as_dict, as_variable, as_dict_call, as_pair, as_record, as_list, as_tuple, as_another),
    *(annotated, annotated_pair, annotated_names, annotated_tuple),
    *(Module(), Called(), functools.partial(as_dict)),
]
UNREADABLE = [unreadable, eval("lambda x: as_dict(x)", globals())]


def name_of(function):
    return getattr(function, "__name__", type(function).__name__)


def assert_as_torch(result, function, x=X):
    wanted = function(j2t(x))
    assert type(result) is type(wanted)
    if dataclasses.is_dataclass(result):
        result, wanted = vars(result), vars(wanted)
    assert jax.tree.structure(result) == jax.tree.structure(wanted)
    assert_equal(result, wanted)


def total(result):
    if dataclasses.is_dataclass(result):
        result = vars(result)
    first, second = (
        (result["first"], result["second"]) if isinstance(result, dict) else (result[1], result[0])
    )
    return (first * jnp.arange(3.0)).sum() + (second**2).sum()


@pytest.mark.parametrize("function", READABLE, ids=name_of)
def test_a_result_comes_as_torch_returns_it(function):
    for way in (lambda f: f, jax.jit):
        f = jax_callable(function, spec=contract(TWO))
        if way is jax.jit and function is as_record:
            continue  # JAX does not know the class
        for x in (X, -X):
            assert_as_torch(way(f)(x), function, x)
    plan = jax_callable(function, spec=contract(TWO)).plan(jax.ShapeDtypeStruct((3,), "float32"))
    assert plan.inference.extra_runs == 0
    assert plan.inference.words == "taken from the contract; the function was not run"


@ONE_BY_ONE
@pytest.mark.parametrize("function", [*READABLE, *UNREADABLE], ids=name_of)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_derivatives_and_batches_take_each_array_for_itself(function, jit):
    f = jax_callable(function, spec=contract(TWO))
    wrap = jax.jit if jit else lambda g: g
    if jit and function in UNREADABLE:
        f(X)
    for x in (X, -X):
        tensor = torch.tensor(x.tolist(), requires_grad=True)
        y = looked_at(tensor)
        loss = (y * torch.arange(3.0)).sum() + (y**4).sum()
        loss.backward()
        value, gradient = wrap(jax.value_and_grad(lambda x: total(f(x))))(x)
        assert_close(value, loss.detach())
        assert_close(gradient, tensor.grad)
    if jit and function is as_record:
        return
    batch = wrap(jax.vmap(lambda x: total(f(x))))(jnp.stack([X, -X]))
    assert_close(batch, jnp.stack([total(f(X)), total(f(-X))]))


@pytest.mark.parametrize("function", UNREADABLE, ids=["code", "no source"])
def test_what_nothing_tells_a_call_shows(function):
    calls = []

    def counted(x):
        calls.append(1)
        return function(x)

    f = jax_callable(counted, spec=contract(TWO))
    assert_as_torch(f(X), function)
    runs = len(calls)
    assert "and their containers as taken from the first eager call" in f.explain(X)
    # From then on other shapes are planned without a run.
    assert_as_torch(jax.jit(f)(jnp.append(X, X)), function, jnp.append(X, X))
    assert f.plan(jnp.ones(7)).inference.extra_runs == 0
    assert runs < len(calls)


def test_what_nothing_tells_an_example_shows():
    f = jax_callable(unreadable, spec=contract(TWO), example=(torch.ones(3),))
    with pytest.warns(match="run once more, on the example arguments"):
        assert_as_torch(jax.jit(f)(X), unreadable)
    assert_as_torch(f(-X), unreadable, -X)


def test_another_structure_than_planned_is_an_error_in_every_way():
    def plain(f):
        return f

    def gradient(f):
        return jax.grad(lambda x: sum(map(jnp.sum, f(x))))

    def again(f):
        return jax.grad(jax.checkpoint(lambda x: sum(map(jnp.sum, f(x)))))

    for way in (plain, gradient, again):
        f = jax_callable(unreadable, spec=contract(TWO))
        with pytest.raises(FAILURES, match=r"structure .*\(\*, \*\).*got .*'first'.*call the func"):
            jax.block_until_ready(jax.jit(way(f))(X))
    single = {"y": "float32[n]"}
    for result in (lambda y: (y,), lambda y: {"y": y}):
        f = jax_callable(functools.partial(result_of, result), spec=contract(single))
        with pytest.raises(FAILURES, match=r"expected results of the structure"):
            jax.block_until_ready(jax.jit(f)(X))
        with pytest.raises(FAILURES, match=r"expected results of the structure"):
            jax.block_until_ready(jax.jit(gradient(f))(X))


def result_of(make, x):
    return make(looked_at(x))


def test_an_eager_call_is_planned_again_by_what_it_shows():
    f = jax_callable(
        functools.partial(result_of, lambda y: {"y": y}), spec=contract({"y": "float32[n]"})
    )
    for x in (X, -X, jnp.append(X, X)):
        assert_equal(f(x), {"y": looked_at(j2t(x))})
    assert_equal(jax.jit(f)(X), {"y": looked_at(j2t(X))})
    gradient = jax.jit(jax.grad(lambda x: (f(x)["y"] ** 2).sum()))(X)
    assert_close(gradient, 8 * X)

    def misleading(x):
        out = {"second": 0, "first": 0}
        return rearranged(out, x) if x is None else as_other(out, x)

    def as_other(out, x):
        out = as_tuple(x)
        return out

    f = jax_callable(misleading, spec=contract(TWO))
    for _ in range(2):
        assert_as_torch(f(X), misleading)


def rearranged(out, x):
    return out


def test_other_sizes_than_the_contract_s_stay_an_error():
    def cut(x):
        y = x[: int((x > 0).sum())]
        return {"first": y, "second": y}

    f = jax_callable(cut, spec=contract(TWO))
    assert_equal(f(jnp.ones(3))["first"], jnp.ones(3))
    with pytest.raises(
        OutputError, match=r"`first`: planned float32\[3\], but torch returned float"
    ):
        f(X)
    with pytest.raises(FAILURES, match=r"`first`: planned float32\[3\], but torch returned float"):
        jax.block_until_ready(jax.jit(f)(X))


def test_groups_within_results():
    def grouped(x):
        y = looked_at(x)
        return {"one": {"b": y, "a": -y}, "two": (Pair(y, x), [x])}

    spec = contract(
        {
            "two": [["float32[n]", "float32[n]"], ["float32[n]"]],
            "one": {"a": "float32[n]", "b": "float32[n]"},
        }
    )
    spec["outputs"]["two"][0] = {"second": "float32[n]", "first": "float32[n]"}
    for way in (lambda f: f, jax.jit):
        assert_as_torch(way(jax_callable(grouped, spec=spec))(X), grouped)


def test_beside_new_values_of_arguments_and_counts():
    def moved(x):
        y = looked_at(x)
        x += 1
        return {"second": y**2, "first": y}

    spec = contract({**TWO, "x": "float32[n]"}, mutates=["x"])
    for way in (lambda f: f, jax.jit):
        result, after = way(jax_callable(moved, spec=spec))(X)
        assert_as_torch(result, as_dict)
        assert_equal(after, X + 1)

    def kept(x):
        y = looked_at(x)
        return {"kept": y[y > 0], "first": y}

    spec = contract({"kept": "float32[k<=n]", "count": "int32[]", "first": "float32[n]"})
    for way in (lambda f: f, jax.jit):
        result = way(jax_callable(kept, spec=spec))(X)
        assert_equal(result["kept"], jnp.array([2.0, 6.0, 0.0]))
        assert_equal((result["count"], result["first"]), (jnp.array(2), 2 * X))
