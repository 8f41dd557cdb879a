"""The backends `graph` and `compile`: graphs run a function's own calls."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.torch_version import TorchVersion

from comparing import assert_close
from jaxtorch_bridge import PlanningError, SpecError, TorchExecutionError, jax_callable
from jaxtorch_bridge.torchside.handler.native_module import op_keys

# Torch says so of Python 3.13.0.
pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower on Python")

X = jnp.linspace(-2, 2, 12).reshape(3, 4)
W = jnp.linspace(-1, 1, 20).reshape(4, 5)


def contract(backend: str, **more: object) -> dict[str, object]:
    return {
        "schema": "jaxtorch/1",
        "name": "layer",
        "version": "1.2.0",
        "inputs": {"x": "float32[batch, inner]", "w": "float32[inner, outer]"},
        "outputs": {"y": "float32[batch, outer]"},
        "execution": {"backend": backend},
        **more,
    }


def jax_layer(x, w):
    return jnp.tanh(x @ w) * 2


SQUARE = {"x": "float32[n, n]"}


def asserted(x):
    torch._assert_async(x[0, 0] > 0)
    return x


def asserted_with_words(x):
    torch._assert_async(x[0, 0] > 0, "not positive-definite")
    return x


def lost_when_compiled(function):
    if function is torch.linalg.cholesky:
        return TorchVersion(torch.__version__) < "2.13"
    return function is asserted


# Inductor takes seconds for each graph, so it gets the cases where it could differ.
BOTH = pytest.mark.parametrize("backend", ["graph", "compile"])
GRAPH = pytest.mark.parametrize("backend", ["graph"])


class TestGraphs:
    @GRAPH
    def test_values_gradients_and_batches(self, backend):
        wrapped = jax_callable(lambda x, w: torch.tanh(x @ w) * 2, spec=contract(backend))
        for call in (wrapped, jax.jit(wrapped)):
            assert_close(call(X, W), jax_layer(X, W))
        found = jax.jit(jax.grad(lambda x, w: wrapped(x, w).sum(), (0, 1)))(X, W)
        expected = jax.grad(lambda x, w: jax_layer(x, w).sum(), (0, 1))(X, W)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
        stacked = jnp.stack([X, X * 2])
        batched = jax.jit(jax.vmap(wrapped, (0, None)))(stacked, W)
        expected = jax.vmap(jax_layer, (0, None))(stacked, W)
        assert_close(batched, expected)
        hessian = jax.jit(jax.hessian(lambda x: wrapped(x, W).sum()))(X)
        expected = jax.hessian(lambda x: jax_layer(x, W).sum())(X)
        assert_close(hessian, expected)

    @BOTH
    def test_explain_says_what_runs(self, backend):
        wrapped = jax_callable(lambda x, w: torch.tanh(x @ w), spec=contract(backend))
        assert f"backend      {backend}: " in wrapped.explain(X, W)

    @GRAPH
    def test_the_python_code_does_not_run_in_calls(self, backend):
        runs = []

        def count(x, w):
            runs.append(type(x))
            return x @ w

        wrapped = jax.jit(jax_callable(count, spec=contract(backend)))
        wrapped(X, W)
        planned = len(runs)
        for _ in range(3):
            assert_close(wrapped(X, W), X @ W)
        assert len(runs) == planned
        assert torch.Tensor not in runs

    @BOTH
    def test_parameters_that_change_in_place_are_seen(self, backend):
        module = torch.nn.Linear(4, 5)
        wrapped = jax_callable(lambda x, w: module(x) + x @ w, spec=contract(backend))
        for _ in range(2):
            expected = module(torch.tensor(np.asarray(X))).detach().numpy() + np.asarray(X @ W)
            assert_close(wrapped(X, W), expected)
            with torch.no_grad():
                module.weight.mul_(3)

    @pytest.mark.parametrize("function", [torch.linalg.cholesky, asserted_with_words, asserted])
    @BOTH
    def test_no_check_gets_lost(self, backend, function):
        """Inductor leaves some out, and in torch before 2.13 those of torch.linalg too."""
        wrapped = jax_callable(
            lambda x: function(x), spec=contract(backend, inputs=SQUARE, outputs=SQUARE)
        )
        if backend == "compile" and lost_when_compiled(function):
            with pytest.raises(PlanningError, match="checks, which compiled code would leave out"):
                wrapped(jnp.eye(2))
            return
        assert_close(wrapped(jnp.eye(2)), jnp.eye(2))
        with pytest.raises(TorchExecutionError, match=r"not positive-definite|nonzero value"):
            wrapped(-jnp.eye(2))

    @GRAPH
    def test_a_switched_module_is_planned_anew(self, backend):
        module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5)).eval()
        wrapped = jax_callable(lambda x, w: module(x) + x @ w, spec=contract(backend))
        wrapped(X, W)
        module[0] = torch.nn.Linear(4, 5)
        expected = module(torch.tensor(np.asarray(X))).detach().numpy() + np.asarray(X @ W)
        assert_close(wrapped(X, W), expected)

    @GRAPH
    @pytest.mark.parametrize(
        "change",
        [
            lambda m: setattr(m[0], "weight", torch.nn.Parameter(torch.ones(5, 4))),
            lambda m: m.__setitem__(1, torch.nn.Tanh()),
            lambda m: setattr(m[2], "negative_slope", 3.0),
            lambda m: m[0].register_forward_hook(lambda module, args, result: result * 5),
            lambda m: m.register_forward_pre_hook(lambda module, args: args[0] * 5),
        ],
    )
    def test_what_changes_about_a_module_is_planned_anew(self, backend, change):
        module = torch.nn.Sequential(
            torch.nn.Linear(4, 5), torch.nn.Sigmoid(), torch.nn.LeakyReLU()
        )
        wrapped = jax_callable(lambda x, w: module(x) - x @ w, spec=contract(backend))
        program = jax.jit(wrapped)
        for call in (wrapped, program):
            call(X, W).block_until_ready()
        change(module)
        x, w = (torch.tensor(np.asarray(array)) for array in (X, W))
        expected = (module(x) - x @ w).detach()
        for call in (wrapped, jax.jit(lambda x, w: wrapped(x, w))):
            assert_close(call(X, W), expected)
        with pytest.raises(Exception, match="since this derivative was traced"):
            program(X, W).block_until_ready()

    @BOTH
    def test_what_has_no_graph_is_refused_with_the_place(self, backend):
        def look(x, w):
            return x @ w if x.sum() > 0 else -(x @ w)

        wrapped = jax_callable(look, spec=contract(backend))
        words = rf"layer@1.2.0: expected a function .*`backend: {backend}` says; .* Say `eager`"
        with pytest.raises(PlanningError, match=words):
            jax.jit(wrapped)(X, W)

    @BOTH
    def test_a_function_that_writes_to_its_module_is_refused(self, backend):
        module = torch.nn.BatchNorm1d(4)
        wrapped = jax_callable(lambda x, w: module(x) @ w, spec=contract(backend))
        with pytest.raises(PlanningError, match="writes to tensors that it closes over"):
            jax.jit(wrapped)(X, W)

    @BOTH
    def test_ops_are_freed(self, backend):
        def run():
            wrapped = jax_callable(lambda x, w: x @ w, spec=contract(backend, name="freed"))
            wrapped(X, W)
            assert any(key.startswith("freed@") for key in op_keys())

        run()
        import gc

        for _ in range(3):
            gc.collect()
        jax.clear_caches()
        gc.collect()
        assert not any(key.startswith("freed@") for key in op_keys())


def test_compile_differentiates():
    wrapped = jax_callable(lambda x, w: torch.tanh(x @ w) * 2, spec=contract("compile"))
    value, found = jax.jit(jax.value_and_grad(lambda x, w: wrapped(x, w).sum(), (0, 1)))(X, W)
    assert_close(value, jax_layer(X, W).sum())
    expected = jax.grad(lambda x, w: jax_layer(x, w).sum(), (0, 1))(X, W)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_a_graph_that_is_out_of_date_does_not_run():
    module = torch.nn.Linear(4, 5)
    old = jax.jit(jax_callable(lambda x, w: module(x) + x @ w, spec=contract("graph")))
    old(X, W)
    module.weight = torch.nn.Parameter(torch.zeros(5, 4))
    with pytest.raises(Exception, match="was replaced by another tensor"):
        jax.block_until_ready(old(X, W))


@pytest.mark.filterwarnings("ignore:.*draws random numbers, and nothing declares them")
def test_aot_draws_random_numbers_as_the_function_does():
    spec = contract("graph")
    wrapped = jax_callable(lambda x, w: torch.nn.functional.dropout(x @ w, 0.5), spec=spec)
    torch.manual_seed(3)
    found = jax.jit(wrapped)(X, W)
    torch.manual_seed(3)
    x, w = torch.tensor(np.asarray(X)), torch.tensor(np.asarray(W))
    assert_close(found, torch.nn.functional.dropout(x @ w, 0.5))


@pytest.mark.filterwarnings("ignore:.*draws random numbers, and nothing declares them")
def test_compile_refuses_random_numbers():
    spec = contract("compile")
    wrapped = jax_callable(lambda x, w: torch.nn.functional.dropout(x @ w, 0.5), spec=spec)
    with pytest.raises(PlanningError, match="compiled code would draw others"):
        wrapped(X, W)


def test_aot_writes_in_place():
    spec = contract("graph")
    spec["execution"] = {"backend": "graph", "outputs": "in_place"}
    wrapped = jax_callable(lambda x, w: torch.tanh(x @ w), spec=spec)
    assert "in place, by aten.tanh.out" in wrapped.explain(X, W)
    assert_close(jax.jit(wrapped)(X, W), jnp.tanh(X @ W))


def test_an_unknown_backend_is_refused():
    with pytest.raises(SpecError, match="backend"):
        jax_callable(lambda x, w: x @ w, spec=contract("magic"))
