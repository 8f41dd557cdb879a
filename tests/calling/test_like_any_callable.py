"""A torch function that JAX's and Python's own tools take for a function like any other."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import pydoc
import typing

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import compat, from_module, jax_callable


def plain(w, lam=1.0, *, flag: bool = False):
    """A loss."""
    return ((w - 2) ** 2).sum() + lam * (w**2).sum() * (2 if flag else 1)


loss = jax_callable(plain)


@jax_callable
def tripled(x: jax.Array, times: int = 3) -> jax.Array:
    """Three times."""
    return x * times


class Layer(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        """Scaled."""
        return x * scale


class Model:
    def __init__(self, k: float = 2.0) -> None:
        self.k = k

    @jax_callable
    def scaled(self, x: jax.Array, times: int = 1) -> jax.Array:
        """By k."""
        return x * self.k * times


def named(function):
    return list(inspect.signature(function).parameters)


@pytest.fixture
def w():
    return jnp.arange(2.0)


# Parameters.


def test_the_signature_is_that_of_the_torch_function():
    assert inspect.signature(loss) == inspect.signature(plain)
    assert named(jax_callable(lambda a, /, b, *c, d=1, **e: a)) == ["a", "b", "c", "d", "e"]
    assert named(jax_callable(Layer())) == ["x", "scale"]
    assert named(jax_callable(functools.partial(plain, lam=2.0))) == ["w", "lam", "flag"]
    assert named(Model().scaled) == ["x", "times"]
    assert named(Model.scaled) == ["self", "x", "times"]
    assert named(jax_callable(Model().scaled.torch)) == ["x", "times"]
    assert named(jax_callable(jax_callable(plain))) == ["w", "lam", "flag"]


def test_a_callable_object_has_the_parameters_of_its_call():
    class Adds:
        def __call__(self, x, y):
            return x + y

    assert named(jax_callable(Adds())) == ["x", "y"]


def test_a_random_key_is_a_keyword():
    drawn = jax_callable(lambda x, **rest: x + torch.rand(2), random="key")
    rng = inspect.signature(drawn).parameters["rng"]
    assert named(drawn) == ["x", "rng", "rest"]
    assert (rng.kind, rng.default) == (inspect.Parameter.KEYWORD_ONLY, None)
    # A parameter of its own of that name is the function's.
    assert named(jax_callable(lambda rng: rng)) == ["rng"]


@pytest.mark.parametrize("function", [torch.add, torch.topk, torch.exp])
def test_builtin_functions_take_anything(function):
    kinds = [each.kind for each in inspect.signature(jax_callable(function)).parameters.values()]
    assert kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]


def test_the_class_itself_is_no_callable_of_torch():
    assert "spec" in inspect.signature(type(loss)).parameters
    assert not hasattr(type(loss), "__wrapped__")
    assert pydoc.render_doc(type(loss))


# Python's own tools.


def test_names_defaults_and_annotations():
    assert (loss.__name__, loss.__qualname__, loss.__module__) == ("plain", "plain", __name__)
    assert loss.__doc__ == "A loss."
    assert loss.__wrapped__ is plain
    assert inspect.unwrap(loss) is plain
    assert loss.__defaults__ == (1.0,)
    assert loss.__kwdefaults__ == {"flag": False}
    assert tripled.__annotations__ == tripled.torch.__annotations__
    hints = {"x": jax.Array, "times": int, "return": jax.Array}
    assert typing.get_type_hints(tripled) == hints
    assert typing.get_type_hints(Model().scaled) == hints
    assert Model().scaled.__name__ == "scaled"
    assert Model().scaled.__doc__ == "By k."
    layer = jax_callable(Layer())
    assert typing.get_type_hints(layer)["scale"] is float
    assert layer.__defaults__ == (2.0,)
    assert layer.__name__ == "Layer"
    part = jax_callable(functools.partial(tripled.torch, times=4))
    assert typing.get_type_hints(part) == hints
    assert part.__name__ == "tripled"
    assert part.__doc__ == "Three times."
    assert jax_callable(torch.topk).__name__ == "topk"
    assert not hasattr(jax_callable(torch.topk), "__defaults__")


def test_help_shows_the_functions_parameters_and_text():
    text = pydoc.plain(pydoc.render_doc(tripled))
    assert "tripled(x: 'jax.Array', times: 'int' = 3)" in text
    assert "Three times." in text
    assert "By k." in pydoc.plain(pydoc.render_doc(Model))
    assert pydoc.render_doc(jax_callable(Layer()))
    assert pydoc.render_doc(jax_callable(torch.topk))
    assert repr(tripled) == "jax_callable(tripled)"


def test_functools_wraps(w):
    @functools.wraps(loss)
    def doubled(*args, **kwargs):
        return 2 * loss(*args, **kwargs)

    assert doubled.__name__ == "plain"
    assert inspect.signature(doubled) == inspect.signature(plain)
    assert doubled.__wrapped__ is loss
    assert_close(jax.jit(doubled, static_argnames="flag")(w, flag=True), 2 * loss(w, flag=True))
    # Plans and locks are not for others.
    assert not [name for name in vars(doubled) if name.startswith("_") and name[1] != "_"]


def test_functools_partial(w):
    part = functools.partial(loss, lam=jnp.float32(2.0))
    assert_close(jax.jit(part)(w), plain(w, 2.0))
    assert_close(jax.grad(part)(w), jax.grad(functools.partial(plain, lam=2.0))(w))


def test_pickles(w):
    assert pickle.loads(pickle.dumps(tripled)) is tripled
    again = pickle.loads(pickle.dumps(loss))
    assert_close(again(w), loss(w))
    method = pickle.loads(pickle.dumps(Model(3.0).scaled))
    assert_equal(method(w), 3 * w)
    assert named(method) == ["x", "times"]
    assert_equal(pickle.loads(pickle.dumps(jax_callable(Layer())))(w), 2 * w)
    assert_equal(pickle.loads(pickle.dumps(jax_callable(torch.exp)))(w), jax_callable(torch.exp)(w))


def test_pickling_a_lambda_is_pickles_own_error():
    local = jax_callable(lambda x: x)
    with pytest.raises(Exception, match="lambda") as mine:
        pickle.dumps(local)
    with pytest.raises(type(mine.value)) as theirs:
        pickle.dumps(local.torch)
    assert str(mine.value) == str(theirs.value)


def test_copies(w):
    assert copy.copy(tripled) is tripled
    assert copy.deepcopy(tripled) is tripled
    local = jax_callable(lambda x: x + 1)
    local.author = "somebody"
    for again in (copy.copy(local), copy.deepcopy(local)):
        assert again is not local
        assert again.author == "somebody"
        assert_equal(again(w), w + 1)
    model = Model(3.0)
    method = copy.deepcopy(model.scaled)
    model.k = 5.0
    assert_equal(method(w), 3 * w)
    assert copy.copy(model.scaled) is model.scaled


def test_what_is_set_on_it_stays():
    local = jax_callable(lambda x: x)
    local.__name__ = "other"
    local.__signature__ = inspect.signature(plain)
    assert inspect.signature(local) == inspect.signature(plain)
    assert copy.copy(local).__name__ == "other"


# JAX.


def test_arguments_by_name(w):
    x = jnp.ones(3)
    jitted = jax.jit(tripled, donate_argnames="x", static_argnames="times")
    assert_equal(jitted(x, times=4), jnp.full(3, 4.0))
    assert_close(jax.jit(loss, static_argnames=("flag",))(w, flag=True), plain(w, flag=True))
    with pytest.raises(ValueError, match="nothing"):
        jax.jit(loss, static_argnames="nothing")
    assert_equal(jax.jit(Model().scaled, static_argnames="times")(w, times=3), 6 * w)


def test_a_static_argument_by_position_and_by_name(w):
    jitted = jax.jit(tripled, static_argnames="times")
    assert_equal(jitted(w, 4), 4 * w)
    jitted = jax.jit(tripled, static_argnums=1)
    assert_equal(jitted(w, times=5), 5 * w)


def test_custom_jvp(w):
    custom = jax.custom_jvp(loss)
    custom.defjvp(lambda primals, tangents: (loss(*primals), jnp.float32(7.0)))
    assert_close(custom(w), plain(w))
    assert_equal(jax.jvp(custom, (w, 1.0), (w, 0.0))[1], 7.0)
    assert custom.__name__ == "plain"
    through = jax.custom_jvp(loss)
    through.defjvp(lambda primals, tangents: jax.jvp(loss, primals, tangents))
    assert_close(jax.grad(through)(w, 1.0), jax.grad(plain)(w, 1.0))


def test_custom_jvp_of_a_builtin(w):
    custom = jax.custom_jvp(jax_callable(torch.add))
    custom.defjvp(lambda primals, tangents: (primals[0] + primals[1], tangents[0] * 3))
    assert_equal(custom(w, w), 2 * w)
    assert_equal(jax.jvp(custom, (w, w), (w, w))[1], 3 * w)


def test_custom_vjp(w):
    custom = jax.custom_vjp(loss)
    custom.defvjp(lambda w, lam: (loss(w, lam), w), lambda w, g: (g * w, jnp.zeros(())))
    assert_close(custom(w, 1.0), plain(w, 1.0))
    assert_equal(jax.grad(custom)(w, 1.0), w)


def test_checkpoint(w):
    kept = jax.checkpoint(loss)
    assert_close(jax.grad(kept)(w), jax.grad(plain)(w))
    static = jax.checkpoint(tripled, static_argnums=1)
    assert_equal(jax.grad(lambda w: static(w, 4).sum())(w), jnp.full(2, 4.0))


@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained")
def test_jaxopt(w):
    import jaxopt

    lam = jnp.float32(1.0)
    for solver in (jaxopt.GradientDescent, jaxopt.LBFGS):
        for function, twin in ((loss, plain), (jax_callable(lambda w, lam: plain(w, lam)), plain)):
            found = solver(function, maxiter=50).run(w, lam).params
            assert_close(found, solver(twin, maxiter=50).run(w, lam).params)

    # By implicit differentiation, which asks for the function's parameters.
    def solved(function, lam):
        return jaxopt.GradientDescent(function, maxiter=50).run(w, lam).params.sum()

    assert_close(jax.grad(solved, 1)(loss, lam), jax.grad(solved, 1)(plain, lam))


def test_optax(w):
    def steps(function):
        solver = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(function)
        params, state = w, solver.init(w)
        for _ in range(3):
            value, grad = value_and_grad(params, state=state)
            updates, state = solver.update(
                grad, state, params, value=value, grad=grad, value_fn=function
            )
            params = optax.apply_updates(params, updates)
        return params

    assert_close(steps(loss), steps(plain))


# The other callables.


def test_torch2jax(w):
    # Calls have the structure of the examples, and no other argument.
    other = compat.torch2jax(plain, w)
    assert named(other) == ["w"]
    both = compat.torch2jax(plain, w, example_kw={"lam": jnp.float32(0.0)})
    assert named(both) == ["w", "lam"]
    assert other.__wrapped__ is plain
    donating = jax.jit(compat.torch2jax(tripled.torch, w), donate_argnames="x")
    assert_equal(donating(jnp.ones(2)), jnp.full(2, 3.0))
    custom = jax.custom_jvp(other)
    custom.defjvp(lambda p, t: jax.jvp(other, p, t))
    assert_close(jax.grad(custom)(w), jax.grad(plain)(w))
    for again in (copy.copy(other), copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert_close(again(w), plain(w))


def test_torch2jax_auto():
    auto = compat.torch2jax_auto(plain)
    assert (named(auto), auto.__name__) == (["w", "lam", "flag"], "plain")


def test_torch2jax_with_a_lock_is_copied(w):
    other = compat.torch2jax(plain, w, lock=True)
    assert_close(copy.deepcopy(other)(w), plain(w))


def test_from_module(w):
    model = from_module(Layer())
    assert named(model) == ["params", "x", "scale", "buffers", "rng", "train"]
    assert named(model.callable()) == ["params", "buffers", "x", "scale"]
    assert repr(model) == "from_module(Layer)"
    assert model.__name__ == "Layer"
    jitted = jax.jit(model, static_argnames=("scale", "train"))
    assert_equal(jitted(model.params, w, scale=3.0, train=False), 3 * w)
    assert copy.deepcopy(model) is model


def test_from_module_of_a_module_with_such_parameters_itself():
    class Trains(torch.nn.Module):
        def forward(self, x, *rest, train=False, **more):
            return x

    named_so = ["params", "x", "rest", "train", "buffers", "rng", "more"]
    assert named(from_module(Trains())) == named_so
