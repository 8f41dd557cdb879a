"""Functions that ask torch whether they are traced: what they are told, and what comes of it."""

from __future__ import annotations

import inspect
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch._dynamo

from comparing import assert_close, assert_equal
from jaxtorch_bridge import BridgeWarning, OutputError, TorchExecutionError, jax_callable
from jaxtorch_bridge._compat.torch.capture.export_flags import tracing_flags


@pytest.fixture
def x():
    return jnp.asarray([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])


def as_graph(function, name):
    contract = {
        "schema": "jaxtorch/1",
        "name": name,
        "version": "1.0.0",
        "inputs": {"x": "float32[n, m]"},
        "outputs": {"y": "float32[n, m]"},
        "execution": {"backend": "graph"},
    }
    return jax_callable(function, spec=contract)


# Each with the flag that answers it, where `torch.export` sets one.
QUESTIONS = {
    "compiling": torch.compiler.is_compiling,
    "exporting": torch.compiler.is_exporting,
    "of Dynamo": torch._dynamo.is_compiling,
    "of utils": torch._utils.is_compiling,
}
UNSET = {
    "dynamo": torch.compiler.is_dynamo_compiling,
    "jit": torch.jit.is_tracing,
}


@pytest.mark.filterwarnings("ignore:.*is_compiling.* is deprecated")
@pytest.mark.parametrize("name", [*QUESTIONS, *UNSET])
def test_where_the_plain_evaluation_works_no_other_branch_is_used(name, x):
    asks = {**QUESTIONS, **UNSET}[name]

    def function(x):
        return x.sin() * 3 if asks() else x.sin() * 2

    wrapped = jax_callable(function)
    plan = wrapped.plan(x)
    assert (plan.inference.how, plan.inference.flags) == ("fake", "")
    expected = 2 * jnp.cos(x)
    assert_close(wrapped(x), 2 * jnp.sin(x))
    assert_close(jax.jit(jax.grad(lambda x: wrapped(x).sum()))(x), expected)
    assert_close(jax.jvp(wrapped, (x,), (jnp.ones_like(x),))[1], expected)
    assert_close(jax.vmap(wrapped)(x), 2 * jnp.sin(x))
    assert_close(as_graph(function, "branch")(x), 2 * jnp.sin(x))


def cut(x):
    """Gives the same either way, but not the same gradient."""
    with torch.set_grad_enabled(not torch.compiler.is_compiling()):
        y = x.sin()
    return y + x


class Other(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


class Wrong(Other):
    @staticmethod
    def backward(ctx, g):
        return g * 5


def other_backward(x):
    kind = Wrong if torch.compiler.is_compiling() else Other
    return kind.apply(x) + 0


def other_constant(x):
    return x * torch.tensor([3.0 if torch.compiler.is_compiling() else 2.0])


@pytest.mark.parametrize("function", [cut, other_backward, other_constant])
def test_branches_that_differ_only_in_derivatives_or_constants_are_told_apart(function, x):
    wrapped = jax_callable(function)
    leaf = torch.from_numpy(np.array(x)).requires_grad_()
    function(leaf).sum().backward()
    assert_close(jax.jit(jax.grad(lambda x: wrapped(x).sum()))(x), leaf.grad)


@pytest.mark.filterwarnings("ignore:.*is_compiling.* is deprecated")
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_check_of_values_that_is_left_out_while_tracing(name, x):
    asks = QUESTIONS[name]

    def function(x):
        if not asks() and not torch.isfinite(x).all():
            raise ValueError("expected finite numbers")
        return x.sin() * 2

    wrapped = jax_callable(function)
    inference = wrapped.plan(x).inference
    assert inference.traced
    assert inference.flags == ("exporting" if name == "exporting" else "compiling")
    assert inference.extra_runs == 0
    assert "with torch.compiler.is_compiling()" in wrapped.explain(x)
    assert "not fake: DataDependentOutputException" in wrapped.explain(x)
    assert_close(wrapped(x), 2 * jnp.sin(x))
    assert_close(jax.jit(jax.grad(lambda x: wrapped(x).sum()))(x), 2 * jnp.cos(x))
    assert_close(jax.jvp(wrapped, (x,), (x,))[1], 2 * jnp.cos(x) * x)
    assert_close(jax.jacfwd(wrapped)(x[:1, :1]).reshape(()), 2 * jnp.cos(x[0, 0]))
    assert_close(jax.vmap(wrapped)(x), 2 * jnp.sin(x))
    assert_close(as_graph(function, "checked")(x), 2 * jnp.sin(x))
    # Calls make the check.
    with pytest.raises(TorchExecutionError, match="expected finite numbers"):
        wrapped(x / 0)


@pytest.mark.parametrize("name", UNSET)
def test_what_export_does_not_set_stays_false(name, x):
    asks = UNSET[name]

    def function(x):
        return x * 3 if asks() or x.sum() < 0 else x * 2

    plan = jax_callable(function).plan(x)
    assert (plan.inference.how, plan.inference.flags) == ("values", "")


def other_when_told(x):
    if torch.compiler.is_compiling():
        return x.sin() * 3
    return x.sin() * 2 if x.sum() > 0 else -x


@pytest.mark.parametrize(
    "use",
    [
        lambda f, x: jax.jvp(f, (x,), (x,)),
        lambda f, x: jax.vmap(f)(x[None]),
        lambda f, x: jax.hessian(lambda x: f(x).sum())(x),
        lambda f, x: as_graph(other_when_told, "other")(x),
    ],
    ids=["jvp", "vmap", "hessian", "graph"],
)
def test_a_graph_of_another_branch_than_calls_take_is_refused(use, x):
    wrapped = jax_callable(other_when_told)
    assert_close(wrapped(x), 2 * jnp.sin(x))
    for _ in range(2):  # each time, not only once
        with pytest.raises(Exception, match="returns something else than in a call by up to"):
            jax.block_until_ready(use(wrapped, x))
    assert_close(wrapped(x), 2 * jnp.sin(x))


def test_a_gradient_takes_the_branch_that_calls_take(x):
    wrapped = jax_callable(other_when_told)
    gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
    for at in (abs(x), -abs(x)):
        positive = at.sum() > 0
        assert_close(gradient(at), 2 * jnp.cos(at) if positive else -jnp.ones_like(at))


def test_a_check_that_fails_fails_in_the_first_run_of_a_graph_as_well(x):
    def function(x):
        if not torch.compiler.is_compiling() and (x < 0).any():
            raise ValueError("expected no negative numbers")
        return x.sqrt()

    gradient = jax.grad(lambda x: jax_callable(function)(x).sum())
    with pytest.raises(Exception, match="expected no negative numbers"):
        gradient(x)


def test_a_check_of_its_own_that_fails_is_not_left_out(x):
    def function(x):
        if not torch.compiler.is_compiling() and x.shape[0] != 3:
            raise ValueError("expected three rows")
        return x * 2

    with pytest.raises(TorchExecutionError, match="expected three rows"):
        jax_callable(function)(x)
    with pytest.raises(Exception, match="expected three rows"):
        jax.jit(jax.grad(lambda x: jax_callable(function)(x).sum()))(x)


def test_other_shapes_than_planned_are_refused(x):
    def function(x):
        return x if torch.compiler.is_compiling() else x[x > 0]

    with pytest.raises(OutputError):
        jax_callable(function)(x)


def test_the_comparison_draws_the_same_and_leaves_generators_alone(x):
    def function(x):
        if not torch.compiler.is_compiling():
            assert bool((x > -100).all())
        return x * torch.rand(3)

    wrapped = jax_callable(function)
    torch.manual_seed(3)
    with pytest.warns(BridgeWarning, match="draws random numbers"):
        found = jax.jit(jax.grad(lambda x: wrapped(x).sum()))(x)
    torch.manual_seed(3)
    assert_close(found, np.broadcast_to(torch.rand(3).numpy(), (2, 3)))


def test_writes_that_only_calls_do_are_stopped(x):
    def function(x):
        if not torch.compiler.is_compiling() and x.sum() > 0:
            x.mul_(2)
        return x * 1

    before = np.array(x)
    with pytest.raises(Exception, match=r"wrote to|writes to"):
        jax_callable(function)(x)
    assert_equal(x, before)


def test_only_the_thread_that_traces_is_told():
    seen = []

    def look():
        seen.append((torch.compiler.is_compiling(), torch.compiler.is_exporting()))

    def function(x):
        look()
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return x if torch.compiler.is_exporting() or x.sum() > 0 else -x

    # Not through `plan`, which would put the list back.
    with tracing_flags("exporting"):
        function(torch.ones(2))
    assert seen == [(True, True), (False, False)]
    look()
    assert seen[-1] == (False, False)


def test_flags_of_others_stay_as_they_are():
    flags = vars(torch.compiler)
    before = {name: flags[name] for name in flags if name.endswith("_flag")}
    codes = [ask.__code__ for ask in (torch.compiler.is_compiling, torch.compiler.is_exporting)]
    source = inspect.getsource(torch.compiler.is_compiling)
    with tracing_flags("compiling"):
        assert {name: flags[name] for name in before} == before
        # What a real compilation on another thread sets is seen here too.
        with torch.compiler._compile_session_context(), tracing_flags(""):
            assert torch.compiler.is_compiling()
        assert inspect.getsource(torch.compiler.is_compiling) == source
        assert torch.compiler.is_compiling()
        assert not torch.compiler.is_exporting()
        with tracing_flags(""):  # a plan that is made within another evaluation
            assert not torch.compiler.is_compiling()
    after = [ask.__code__ for ask in (torch.compiler.is_compiling, torch.compiler.is_exporting)]
    assert all(one is other for one, other in zip(codes, after, strict=True))


def test_another_thread_compiles_code_that_asks_meanwhile():
    found = []

    def asking(x):
        return x + 1 if torch.compiler.is_compiling() else x - 1

    def compile_and_run():
        found.append(torch.compile(asking, backend="eager", fullgraph=True)(torch.zeros(1)))

    with tracing_flags("exporting"):
        thread = threading.Thread(target=compile_and_run)
        thread.start()
        thread.join()
    assert float(found[0]) == 1.0
    assert not torch.compiler.is_compiling()
