"""Functions that write to their arguments, as they declare."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    BridgeWarning,
    MutationError,
    SpecError,
    jax_callable,
)

# Torch hides the module behind the class of the same name.
torch_adam = importlib.import_module("torch.optim.adam").adam

P = jnp.arange(6.0).reshape(2, 3)
G = jnp.linspace(-1, 1, 6).reshape(2, 3)


def descend(p, g):
    p.add_(g, alpha=-0.5)


def contract(**more: object) -> dict[str, object]:
    return {
        "schema": "jaxtorch/1",
        "name": "descend",
        "version": "1.0.0",
        "inputs": {"p": "float32[a, b]", "g": "float32[a, b]"},
        "outputs": {"p": "float32[a, b]"},
        "mutates": ["p"],
        **more,
    }


def fresh(array) -> jax.Array:
    return jnp.array(np.array(array))


class TestCalls:
    @pytest.mark.parametrize("by", ["keyword", "contract"])
    def test_the_new_value_comes_back_and_the_callers_array_stays(self, by):
        wrapped = (
            jax_callable(descend, mutates=("p",))
            if by == "keyword"
            else jax_callable(descend, spec=contract())
        )
        expected = np.asarray(P) - 0.5 * np.asarray(G)
        kept = fresh(P)
        for call in (wrapped, jax.jit(wrapped)):
            for _ in range(2):
                assert_close(call(kept, G), expected)
                assert_equal(kept, P)

    def test_donated_it_is_the_same_memory(self):
        call = jax.jit(jax_callable(descend, mutates=("p",)), donate_argnums=0)
        array = fresh(P)
        address = array.unsafe_buffer_pointer()
        for step in range(1, 4):
            array = call(array, G)
            assert array.unsafe_buffer_pointer() == address
            assert_close(array, P - 0.5 * step * G)

    def test_it_is_aliased_in_the_program(self):
        lowered = jax.jit(jax_callable(descend, mutates=("p",))).lower(P, G).as_text()
        assert "output_operand_alias" in lowered

    def test_explain(self):
        text = jax_callable(descend, mutates=("p",)).explain(P, G)
        assert "in place: what `p` becomes" in text
        assert "mutates      `p`" in text
        assert "gradient     tape: one run" in text

    def test_results_come_before_the_new_values(self):
        def norm_and_scale(x, y):
            norm = x.norm()
            x.div_(norm)
            y.mul_(norm)
            return {"norm": norm}

        wrapped = jax.jit(jax_callable(norm_and_scale, mutates=("y", "x")))
        result, y, x = wrapped(P, G)
        norm = np.linalg.norm(P)
        assert_close(result["norm"], norm)
        assert_close(x, P / norm)
        assert_close(y, G * norm)

    @pytest.mark.parametrize(
        "function",
        [
            lambda p, g: p.sub_(g),
            lambda p, g: p.copy_(p - g),
            lambda p, g: torch.sub(p, g, out=p),
            lambda p, g: p.__isub__(g),
            lambda p, g: p.view(-1).sub_(g.reshape(-1)) is None,
            lambda p, g: p.data.sub_(g) is None,
        ],
    )
    def test_ways_of_writing(self, function):
        def write(p, g):
            result = function(p, g)
            return result if isinstance(result, torch.Tensor) else None

        for call in (wrapped := jax_callable(write, mutates=("p",)), jax.jit(wrapped)):
            assert_close(call(P, G), P - G)

    def test_results_that_are_views_of_what_was_written(self):
        def shift(p):
            before = p.clone()
            p.add_(1)
            return before, p[1], p.t(), p

        wrapped = jax.jit(jax_callable(shift, mutates=("p",)), donate_argnums=0)
        (before, row, transposed, same), new = wrapped(fresh(P))
        assert_equal(before, P)
        assert_equal(row, P[1] + 1)
        assert_equal(transposed, (P + 1).T)
        assert_equal(same, P + 1)
        assert_equal(new, P + 1)

    def test_exchanged_memory(self):
        def exchange(x, y):
            x.data, y.data = y.data, x.data

        wrapped = jax_callable(exchange, mutates=("x", "y"))
        for donate in ((), (0, 1)):
            x, y = jax.jit(wrapped, donate_argnums=donate)(fresh(P), fresh(G))
            assert_equal(x, G)
            assert_equal(y, P)

    def test_one_array_as_two_arguments(self):
        wrapped = jax_callable(lambda p, g: p.add_(1).mul_(g), mutates=("p",))
        assert_equal(wrapped(P, P), (P + 1) * P)

        @jax.jit
        def program(p):
            middle = p * 2
            return wrapped(middle, middle), middle

        new, middle = program(P)
        assert_equal(middle, P * 2)
        assert_equal(new, (P * 2 + 1) * (P * 2))

    def test_two_calls_on_one_array(self):
        wrapped = jax_callable(descend, mutates=("p",))
        first, second = jax.jit(lambda p: (wrapped(p, G), wrapped(p, 2 * G)))(P)
        assert_close(first, P - 0.5 * G)
        assert_close(second, P - G)

    def test_in_a_scan(self):
        wrapped = jax_callable(descend, mutates=("p",))
        last, all_of_them = jax.jit(
            lambda p: jax.lax.scan(lambda p, _: ((q := wrapped(p, G)), q), p, None, length=4)
        )(P)
        assert_close(last, P - 2 * G)
        for step, one in enumerate(all_of_them, 1):
            assert_close(one, P - 0.5 * step * G)

    def test_new_shapes_and_dtypes(self):
        wrapped = jax.jit(jax_callable(descend, mutates=("p",)))
        for dtype in ("float32", "bfloat16", "float16"):
            p, g = jnp.arange(4).astype(dtype), jnp.ones(4, dtype)
            assert_equal(wrapped(p, g), p - g / 2)

    def test_what_torch_sees_in_another_dtype_is_copied(self):
        spec = contract(
            inputs={"p": "int64[n]", "g": "float32[n]"}, outputs={"p": "int64[n]"}, name="count"
        )
        wrapped = jax_callable(lambda p, g: p.add_((g > 0).long()), spec=spec)
        new = jax.jit(wrapped)(jnp.arange(3), jnp.array([1.0, -1.0, 2.0]))
        assert_equal(new, [1, 1, 3])

    def test_functions_that_look_at_values(self):
        def clip(p, g):
            if g.norm() > 1:
                g = g / g.norm()
            p.sub_(g)

        wrapped = jax_callable(clip, mutates=("p",))
        expected = P - G / jnp.linalg.norm(G)
        for _ in range(3):
            kept = fresh(P)
            assert_close(wrapped(kept, G), expected)
            assert_equal(kept, P)
        assert_close(jax.jit(wrapped)(P, G), expected)

    def test_what_is_put_in_place_of_an_argument_would_be_lost(self):
        def rebind(state, g):
            state["w"] = state["w"] - g

        def extend(state, g):
            state["w"].sub_(g)
            state["momentum"] = g

        def count(state, g):
            state["w"].sub_(g)
            state["steps"] += 1

        for function in (rebind, extend, count):
            wrapped = jax_callable(function, mutates=("state.w",))
            with pytest.raises(MutationError, match=r"expected `state\.w` to be written to"):
                wrapped({"w": P, "steps": 3}, G)

    def test_static_values_that_are_made_anew_are_the_same(self):
        @jax.tree_util.register_pytree_node_class
        class State:
            def __init__(self, w, rate):
                self.w, self.rate = w, rate

            def tree_flatten(self):
                return (self.w, float(f"{self.rate}")), None

            @classmethod
            def tree_unflatten(cls, aux, children):
                return cls(*children)

        def step(values, g, state):
            values["w"].sub_(g * state.rate)

        wrapped = jax_callable(step, mutates=("values",))
        new = wrapped({"w": P}, G, State(P, 0.5))
        assert_close(new["w"], P - G * 0.5)

    def test_tensors_pass_straight_through(self):
        p = torch.zeros(2, 3)
        assert jax_callable(descend, mutates=("p",))(p, torch.ones(2, 3)) is None
        assert float(p[0, 0]) == -0.5


class TestBatches:
    @pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, 0)])
    def test_vmap(self, axes):
        wrapped = jax_callable(descend, mutates=("p",))
        p = P if axes[0] is None else jnp.stack([P, P + 1, P * 2], axes[0])
        g = G if axes[1] is None else jnp.stack([G, G + 1, G * 2], axes[1])
        found = jax.jit(jax.vmap(wrapped, axes))(p, g)
        expected = jax.vmap(lambda p, g: p - 0.5 * g, axes)(p, g)
        assert_close(found, expected)

    def test_results_beside_the_new_values(self):
        wrapped = jax_callable(lambda p, g: (p.add_(g).sum(), g * 2), mutates=("p",))
        p, g = jnp.stack([P, P + 1]), jnp.stack([G, G + 1])
        (total, double), new = jax.vmap(wrapped)(p, g)
        assert_close(new, p + g)
        assert_close(total, (p + g).sum((1, 2)))
        assert_close(double, g * 2)

    def test_one_by_one_says_so(self):
        # Of these operations torch.vmap knows nothing.
        wrapped = jax_callable(lambda p, g: torch._foreach_sub_([p], [g]), mutates=("p",))
        with pytest.warns(BridgeWarning, match="once for each element"):
            found = jax.vmap(wrapped, (None, 0))(P, jnp.stack([G, G]))
        assert_equal(found, jnp.stack([P - G, P - G]))


class TestOptimisers:
    params = {"w": jnp.ones((3, 2)), "b": jnp.arange(2.0)}
    grads = {"w": jnp.full((3, 2), 0.5), "b": jnp.array([1.0, -1.0])}

    def test_foreach_operations_on_a_tree(self):
        def sgd(params, grads, *, lr):
            torch._foreach_add_(list(params.values()), list(grads.values()), alpha=-lr)

        wrapped = jax.jit(jax_callable(sgd, mutates=("params",)), static_argnames="lr")
        found = wrapped(self.params, self.grads, lr=0.1)
        expected = jax.tree.map(lambda p, g: p - 0.1 * g, self.params, self.grads)
        assert_close(found, expected)

    def test_adam_as_torch_has_it(self):
        def adam(params, grads, state):
            torch_adam(
                list(params.values()),
                list(grads.values()),
                list(state["mean"].values()),
                list(state["square"].values()),
                [],
                list(state["step"].values()),
                foreach=False,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=1e-2,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )

        zeros = jax.tree.map(jnp.zeros_like, self.params)
        state = {
            "mean": zeros,
            "square": jax.tree.map(fresh, zeros),
            "step": jax.tree.map(lambda p: jnp.zeros(()), self.params),
        }
        eager = jax_callable(adam, mutates=("params", "state"))
        # It reads the step's value, so an eager call has to show its results first.
        eager(self.params, self.grads, state)
        step = jax.jit(eager, donate_argnums=(0, 2))
        params = jax.tree.map(fresh, self.params)
        optimiser = optax.adam(1e-2)
        expected, memory = self.params, optimiser.init(self.params)
        for _ in range(3):
            addresses = jax.tree.map(lambda p: p.unsafe_buffer_pointer(), params)
            params, state = step(params, self.grads, state)
            assert addresses == jax.tree.map(lambda p: p.unsafe_buffer_pointer(), params)
            updates, memory = optimiser.update(self.grads, memory)
            expected = optax.apply_updates(expected, updates)
        assert_close(params, expected)
        assert float(state["step"]["w"]) == 3

    def test_a_part_of_an_argument(self):
        def count(state, x):
            state["calls"].add_(1)
            return x * state["scale"]

        wrapped = jax.jit(jax_callable(count, mutates=("state.calls",)))
        state = {"calls": jnp.zeros(()), "scale": jnp.full((), 3.0)}
        result, calls = wrapped(state, P)
        assert_equal(result, P * 3)
        assert float(calls) == 1

    def test_writing_to_another_part_is_an_error(self):
        def wrong(state):
            state["scale"].add_(1)

        wrapped = jax_callable(wrong, mutates=("state.calls",))
        with pytest.raises(MutationError, match=r"input `state\['scale'\]`"):
            wrapped({"calls": jnp.zeros(()), "scale": jnp.ones(())})


class TestRefused:
    def test_undeclared_writes_are_errors_as_before(self):
        wrapped = jax_callable(lambda p, g: g.add_(p), mutates=("p",))
        with pytest.raises(MutationError, match="input `g`"):
            wrapped(P, G)
        assert_equal(G, jnp.linspace(-1, 1, 6).reshape(2, 3))

    def test_names_that_do_not_fit(self):
        with pytest.raises(ArgumentError, match=r"expected the argument `q`.*among `p`, `g`"):
            jax_callable(descend, mutates=("q",))(P, G)
        with pytest.raises(ArgumentError, match="argument `alpha`: expected arrays"):
            jax_callable(lambda p, alpha: p.add_(alpha), mutates=("alpha",))(P, 2)
        with pytest.raises(TypeError, match=r"write mutates=\(\'p\',\)"):
            jax_callable(descend, mutates="p")
        with pytest.raises(ArgumentError, match="mutates"):
            jax_callable(descend, spec=contract(), mutates=("g",))
        with pytest.raises(SpecError, match="expected one of the inputs"):
            jax_callable(descend, spec=contract(mutates=["x"]))

    @pytest.mark.parametrize("change", [lambda p: p.t_().mul_(2), lambda p: p.resize_(2)])
    def test_another_shape(self, change):
        def reshape(p):
            change(p)

        words = r"argument `p`: expected it to keep its shape and dtype, float32\[2, 3\]"
        kept = fresh(P)
        with pytest.raises(MutationError, match=words):
            jax_callable(reshape, mutates=("p",))(kept)
        assert_equal(kept, P)

    def test_a_contract_whose_outputs_do_not_have_the_new_value(self):
        spec = contract(outputs={"p": "float32[b, a]"})
        with pytest.raises(Exception, match="output `p`"):
            jax_callable(descend, spec=spec)(P, G)

    def test_keeping_what_was_written(self):
        kept = []

        def keep(p, g):
            p.add_(g)
            if type(p) is torch.Tensor:
                kept.append(p)

        with pytest.raises(Exception, match="expected torch to be done with it"):
            jax_callable(keep, mutates=("p",))(P, G)

    def test_a_failure_leaves_the_callers_array(self):
        def fail(p, g):
            p.add_(g)
            if type(p) is torch.Tensor:
                raise ValueError("no")

        kept = fresh(P)
        with pytest.raises(Exception, match="ValueError: no"):
            jax_callable(fail, mutates=("p",))(kept, G)
        assert_equal(kept, P)
