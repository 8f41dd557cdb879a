"""Derivatives of functions that write to their arguments: of results by old values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec
from jax.test_util import check_grads

from comparing import assert_close, assert_equal
from jaxtorch_bridge import DifferentiationError, TorchExecutionError, jax_callable

pytestmark = pytest.mark.derivatives

X = jnp.linspace(0.5, 2, 6).reshape(2, 3)
Y = jnp.linspace(-1, 1.3, 6).reshape(2, 3)


def fresh(array) -> jax.Array:
    return jnp.array(np.array(array))


def weighted(function):
    """A scalar in which every element of every result counts in another way."""

    def loss(*args):
        leaves = jax.tree.leaves(function(*args))
        return sum(
            jnp.sum(leaf**2 * jnp.linspace(0.5, 1.5, leaf.size).reshape(leaf.shape))
            for leaf in leaves
        )

    return loss


def multiply(x, y):
    x.mul_(y)


def saved_then_written(x, y):
    x.mul_(y)
    x.add_(x.sin())  # what the sine's derivative needs is written to
    return x


def rows(x, y):
    for row, factor in zip(x, y, strict=True):
        row.mul_(factor)


def parts(x, y):
    first, second = x.chunk(2)
    first.mul_(y[:1])
    second.add_(y[1:] * first)


def elements(x, y):
    x[:, 0] = y[:, 0] * x[:, 1]
    x[0] *= 2
    x[1, 1:] = 3.0
    x.t()[2].copy_(y[:, 1] ** 2)


def branches(x, y):
    if x.shape[0] == 2:
        torch.mul(x, y, out=x)
    else:
        x.zero_()
    x[torch.tensor([1, 0])] = x.exp()
    x.square_().multiply_(y)


def foreach(x, y):
    torch._foreach_mul_([x[0], x[1]], [y[1], y[0]])
    torch._foreach_copy_([x[0]], [x[0] * y[1]])


def looks_at_values(x, y):
    if float(y.detach().sum()) > -100:
        x.mul_(y)
    for row in x:
        row.add_(row.sin())


def looks_at_numpy(x, y):
    scale = float(np.abs(y.detach().numpy()).max()) > 0
    x.mul_(y).sub_(x.cos() * scale)


def twin_rows(x, y):
    return x * y


def twin_parts(x, y):
    first = x[:1] * y[:1]
    return jnp.concatenate([first, x[1:] + y[1:] * first])


def twin_elements(x, y):
    x = x.at[:, 0].set(y[:, 0] * x[:, 1])
    x = x.at[0].mul(2.0).at[1, 1:].set(3.0)
    return x.at[:, 2].set(y[:, 1] ** 2)


def twin_branches(x, y):
    x = x * y
    return jnp.exp(x)[::-1] ** 2 * y


def twin_foreach(x, y):
    x = x * y[::-1]
    return x.at[0].mul(y[1])


def twin_saved(x, y):
    return x * y + jnp.sin(x * y)


PAIRS = [
    (multiply, twin_rows),
    (saved_then_written, twin_saved),
    (rows, twin_rows),
    (parts, twin_parts),
    (elements, twin_elements),
    (branches, twin_branches),
    (foreach, twin_foreach),
    (looks_at_values, twin_saved),
    (looks_at_numpy, lambda x, y: x * y - jnp.cos(x * y)),
]
names = [function.__name__ for function, _ in PAIRS]
pairs = pytest.mark.parametrize(("function", "twin"), PAIRS, ids=names)
few = pytest.mark.parametrize(("function", "twin"), PAIRS[1:3], ids=names[1:3])
traceable = pytest.mark.parametrize(("function", "twin"), PAIRS[:7], ids=names[:7])


def wrap(function, **more):
    wrapped = jax_callable(function, mutates=("x",), **more)
    if function in (looks_at_values, looks_at_numpy):
        wrapped(X, Y)  # an eager call shows what it returns
    return wrapped


class TestAgainstTwins:
    @pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
    @pairs
    def test_first_derivatives(self, function, twin):
        mine, theirs = weighted(wrap(function)), weighted(twin)
        expected = jax.grad(theirs, (0, 1))(X, Y)
        assert_close(jax.grad(mine, (0, 1))(X, Y), expected)
        assert_close(jax.grad(mine, 0)(X, Y), expected[0])
        # Only y moves: what its gradient needs is the old x.
        assert_close(jax.grad(mine, 1)(X, Y), expected[1])
        assert_close(jax.jit(jax.value_and_grad(mine, (0, 1)))(X, Y), (theirs(X, Y), expected))
        moved = jax.jvp(theirs, (X, Y), (Y, X))
        assert_close(jax.jvp(mine, (X, Y), (Y, X)), moved)
        value, push = jax.linearize(mine, X, Y)
        assert_close((value, push(Y, X)), moved)

    @few
    def test_donated_under_jit(self, function, twin):
        expected = jax.grad(weighted(twin), (0, 1))(X, Y)
        step = jax.jit(jax.grad(weighted(wrap(function)), (0, 1)), donate_argnums=(0, 1))
        for _ in range(2):
            assert_close(step(fresh(X), fresh(Y)), expected)

    @pytest.mark.parametrize("index", [1, 4, 7])
    def test_a_state_carried_by_scan(self, index):
        function, twin = PAIRS[index]

        def run(step):
            def total(x, y):
                last, middle = jax.lax.scan(lambda x, f: ((new := step(x, f)), new), x, y)
                return last, middle

            return weighted(total)

        inputs = X, jnp.stack([Y, Y * 0.5, Y + 0.1])
        expected = jax.value_and_grad(run(twin), (0, 1))(*inputs)
        mine = jax.value_and_grad(run(wrap(function)), (0, 1))
        assert_close(mine(*inputs), expected)
        jitted = jax.jit(mine, donate_argnums=(0, 1))
        assert_close(jitted(*map(fresh, inputs)), expected)

    @few
    def test_second_order(self, function, twin):
        mine, theirs = weighted(wrap(function)), weighted(twin)
        assert_close(jax.hessian(mine, (0, 1))(X, Y), jax.hessian(theirs, (0, 1))(X, Y))
        backwards = jax.jit(jax.jacrev(jax.grad(mine, 1)))(X, Y)
        assert_close(backwards, jax.jacrev(jax.grad(theirs, 1))(X, Y))

    @pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
    @pytest.mark.parametrize("function", [looks_at_values, looks_at_numpy])
    def test_second_order_of_what_is_not_traced(self, function):
        mine, twin = weighted(wrap(function)), weighted(dict(PAIRS)[function])
        assert_close(jax.hessian(mine, (0, 1))(X, Y), jax.hessian(twin, (0, 1))(X, Y))

    def test_finite_differences(self):
        with jax.enable_x64(True):
            x, y = jnp.asarray(X, "float64"), jnp.asarray(Y, "float64")
            check_grads(wrap(saved_then_written), (x, y), order=2, modes=("fwd", "rev"))

    @few
    @pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, 2)])
    def test_batches(self, function, twin, axes):
        batches = [
            one if axis is None else jnp.stack([one, one * 0.7, one + 0.1], axis)
            for one, axis in zip((X, Y), axes, strict=True)
        ]
        wrapped = wrap(function)
        assert_close(jax.vmap(wrapped, axes)(*batches), jax.vmap(twin, axes)(*batches))
        mine = jax.vmap(jax.grad(weighted(wrapped), (0, 1)), axes)
        theirs = jax.vmap(jax.grad(weighted(twin), (0, 1)), axes)
        assert_close(jax.jit(mine)(*batches), theirs(*batches))
        outer = jax.grad(lambda *xs: weighted(jax.vmap(wrapped, axes))(*xs), (0, 1))
        expected = jax.grad(lambda *xs: weighted(jax.vmap(twin, axes))(*xs), (0, 1))
        assert_close(outer(*batches), expected(*batches))

    def test_checkpoint(self):
        wrapped = wrap(saved_then_written)

        def chain(step):
            return weighted(lambda x, y: step(step(x, y), y))

        expected = jax.grad(chain(twin_saved), (0, 1))(X, Y)
        policy = jax.checkpoint_policies.everything_saveable
        for step in (jax.checkpoint(wrapped), jax.checkpoint(wrapped, policy=policy)):
            assert_close(jax.jit(jax.grad(chain(step), (0, 1)))(X, Y), expected)

    def test_control_flow(self):
        wrapped = wrap(saved_then_written)

        def program(step):
            def run(x, y):
                x = jax.lax.cond(y.sum() > 0, step, lambda x, y: x, x, y)
                return jax.lax.fori_loop(0, 2, lambda _, x: step(x, y), x)

            return weighted(run)

        moved = jax.jvp(program(twin_saved), (X, Y), (Y, X))
        assert_close(jax.jit(lambda *xs: jax.jvp(program(wrapped), xs, (Y, X)))(X, Y), moved)
        assert_close(jax.grad(program(wrapped))(X, Y), jax.grad(program(twin_saved))(X, Y))

    def test_sharded(self):
        mesh = Mesh(np.array(jax.devices()[:1]), ("rows",))
        wrapped = wrap(saved_then_written)
        cut = jax.shard_map(wrapped, mesh=mesh, in_specs=Spec("rows"), out_specs=Spec("rows"))
        shared = jax.shard_map(
            lambda x, y: wrapped(x, jnp.broadcast_to(y, x.shape)),
            mesh=mesh,
            in_specs=(Spec("rows"), Spec()),
            out_specs=Spec("rows"),
        )
        assert_close(
            jax.grad(weighted(cut), (0, 1))(X, Y), jax.grad(weighted(twin_saved), (0, 1))(X, Y)
        )
        assert_close(
            jax.jit(jax.grad(weighted(shared), (0, 1)))(X, Y[0]),
            jax.grad(weighted(lambda x, y: twin_saved(x, y[None])), (0, 1))(X, Y[0]),
        )


class TestArguments:
    def test_results_beside_the_new_values(self):
        def step(state, g):
            before = state["w"].norm()
            state["m"].mul_(0.9).add_(g)
            state["w"].sub_(state["m"] * before)
            state["count"].add_(1)
            return {"before": before, "view": state["w"][1]}

        def twin(state, g):
            before = jnp.linalg.norm(state["w"])
            m = state["m"] * 0.9 + g
            w = state["w"] - m * before
            return {"before": before, "view": w[1]}, {"w": w, "m": m}

        state = {"w": X, "m": Y, "count": jnp.int32(3)}
        wrapped = jax_callable(step, mutates=("state",))

        def mine(moving, g):
            result, new = wrapped({**moving, "count": state["count"]}, g)
            return result, {name: new[name] for name in ("w", "m")}

        moving = {"w": X, "m": Y}
        assert wrapped(state, X)[1]["count"] == 4
        for transform in (jax.grad, jax.jacfwd):
            found = transform(weighted(mine), (0, 1))(moving, X)
            assert_close(found, transform(weighted(twin), (0, 1))(moving, X))
        whole = jax.grad(lambda s: weighted(lambda s: wrapped(s, X)[0])(s), allow_int=True)(state)
        assert_close(whole["w"], jax.grad(weighted(lambda s: twin(s, X)[0]))(moving)["w"])

    def test_complex_numbers(self):
        def turn(x, y):
            torch.view_as_real(x)[..., 0].mul_(2)
            x.mul_(y)
            x.conj_physical_()

        def twin(x, y):
            return jnp.conj(jax.lax.complex(2 * x.real, x.imag) * y)

        x, y = X + 1j * Y, Y - 2j * X
        wrapped = wrap(turn)
        cotangent = Y + 3j * X
        assert_close(wrapped(x, y), twin(x, y))
        assert_close(jax.vjp(wrapped, x, y)[1](cotangent), jax.vjp(twin, x, y)[1](cotangent))
        assert_close(jax.jvp(wrapped, (x, y), (y, x)), jax.jvp(twin, (x, y), (y, x)))

    def test_one_array_as_two_arguments(self):
        wrapped = jax_callable(lambda x, y: (x.mul_(y), y.add_(x)), mutates=("x", "y"))
        expected = jax.grad(weighted(lambda x: (x * x, x + x * x)))(X)
        for call in (jax.grad(weighted(lambda x: wrapped(x, x))),):
            assert_close(call(X), expected)
            assert_close(jax.jit(call, donate_argnums=0)(fresh(X)), expected)

    def test_a_function_that_only_returns_its_argument(self):
        wrapped = wrap(lambda x, y: x.mul_(y).mul_(y))
        for transform in (jax.grad, jax.jacfwd, jax.jacrev):
            twin = transform(weighted(lambda x, y: x * y * y), (0, 1))
            assert_close(transform(weighted(wrapped), (0, 1))(X, Y), twin(X, Y))
        assert_close(wrapped(X, Y), X * Y * Y)  # planned as before

    def test_parameters_that_require_grad(self):
        layer = torch.nn.Linear(3, 3)
        weight, bias = (jnp.asarray(p.detach().numpy()) for p in layer.parameters())
        wrapped = wrap(lambda x, y: x.copy_(layer(x) * y))

        def twin(x, y):
            return (x @ weight.T + bias) * y

        for call in (wrapped, jax.jit(wrapped)):
            assert_close(call(X, Y), twin(X, Y))
        assert "found by     evaluated abstractly" in wrapped.explain(X, Y)
        assert_close(
            jax.grad(weighted(wrapped), (0, 1))(X, Y), jax.grad(weighted(twin), (0, 1))(X, Y)
        )

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_what_torchscript_runs(self):
        def scripted(x: torch.Tensor, y: torch.Tensor):
            x.mul_(y)
            x[0] = x[0] * y[1]

        inner = torch.jit.script(scripted)
        wrapped = jax_callable(lambda x, y: inner(x, y), mutates=("x",))
        twin = weighted(lambda x, y: (x * y).at[0].mul(y[1]))
        assert_close(jax.grad(weighted(wrapped), (0, 1))(X, Y), jax.grad(twin, (0, 1))(X, Y))
        assert_close(jax.jvp(weighted(wrapped), (X, Y), (Y, X)), jax.jvp(twin, (X, Y), (Y, X)))

    def test_out_parameters(self):
        def half(x, y, out=None):
            x.mul_(y)
            return torch.mul(x, 0.5, out=out)

        spec = {
            "schema": "jaxtorch/1",
            "name": "half",
            "version": "1.0.0",
            "inputs": {"x": "float32[a, b]", "y": "float32[a, b]"},
            "outputs": {"half": "float32[a, b]", "x": "float32[a, b]"},
            "mutates": ["x"],
            "execution": {"outputs": "in_place"},
        }
        wrapped = jax_callable(half, spec=spec)
        expected = jax.grad(weighted(lambda x, y: (x * y / 2, x * y)), (0, 1))(X, Y)
        assert_close(jax.jit(jax.grad(weighted(wrapped), (0, 1)))(X, Y), expected)

    def test_random_numbers_from_a_key(self):
        def noisy(x, y):
            x.mul_(torch.empty_like(y).bernoulli_(0.5))
            torch.nn.functional.dropout(x, 0.5, inplace=True)
            x.add_(torch.randn_like(x) * y)
            y.normal_()

        wrapped = jax_callable(noisy, mutates=("x", "y"), random="key")
        key = jax.random.key(3)
        new_x, new_y = wrapped(X, Y, rng=key)
        noise = wrapped(0 * X, jnp.ones_like(Y), rng=key)[0]
        mask = jnp.round((new_x - noise * Y) / X)
        found = jax.grad(lambda x, y: wrapped(x, y, rng=key)[0].sum(), (0, 1))(X, Y)
        assert_close(found, (mask, noise))
        pulled = jax.vjp(lambda x, y: wrapped(x, y, rng=key), X, Y)[1]((X, Y))
        assert_close(pulled, (X * mask, X * noise))
        value, _ = jax.vjp(lambda x, y: wrapped(x, y, rng=key), X, Y)
        assert_close(value, (new_x, new_y))

    def test_running_statistics(self):
        def normalise(x, mean, variance):
            return torch.nn.functional.batch_norm(x, mean, variance, training=True)

        wrapped = jax_callable(normalise, mutates=("mean", "variance"))
        mean, variance = jnp.zeros(3), jnp.ones(3)

        def loss(x):
            result, *new = wrapped(x, mean, variance)
            return weighted(lambda: result)(), new

        def twin(x):
            return weighted(lambda: (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5))()

        found, new = jax.grad(loss, has_aux=True)(X * X)
        # Next to nothing is left of the terms.
        assert_close(found, jax.grad(twin)(X * X), scale=1)
        assert_close(new[0], 0.1 * (X * X).mean(0))
        with pytest.raises(DifferentiationError, match="`mean` as running statistics"):
            jax.grad(lambda m: wrapped(X, m, variance)[1].sum())(mean)


class TestTerms:
    def spec(self, **more):
        return {
            "schema": "jaxtorch/1",
            "name": "multiply",
            "version": "1.0.0",
            "inputs": {"x": "float32[a, b]", "y": "float32[a, b]"},
            "outputs": {"x": "float32[a, b]"},
            "mutates": ["x"],
            **more,
        }

    @pytest.mark.parametrize("backend", ["eager", "graph"])
    @pytest.mark.parametrize("residuals", ["tape", "recompute"])
    def test_backends_and_residuals(self, backend, residuals):
        spec = self.spec(residuals=residuals, execution={"backend": backend})
        wrapped = jax_callable(saved_then_written, spec=spec)
        jitted = jax.jit(wrapped, donate_argnums=0)
        assert_close(jitted(fresh(X), Y), twin_saved(X, Y))
        expected = jax.grad(weighted(twin_saved), (0, 1))(X, Y)
        assert_close(jax.grad(weighted(wrapped), (0, 1))(X, Y), expected)
        words = "tape: " if residuals == "tape" else "recompute with torch.func.vjp"
        assert f"by x, y: {words}" in wrapped.explain(X, Y)

    def test_vjp_depth(self):
        wrapped = jax_callable(multiply, spec=self.spec(vjp_depth=1))
        assert_close(jax.grad(weighted(wrapped))(X, Y), jax.grad(weighted(twin_rows))(X, Y))
        with pytest.raises(DifferentiationError, match="`vjp_depth: 1`"):
            jax.hessian(weighted(wrapped))(X, Y)

    def test_an_argument_that_is_not_differentiable(self):
        fixed = {"x": {"shape": "[a, b]", "dtype": "float32", "differentiable": False}}
        spec = self.spec(inputs={**fixed, "y": "float32[a, b]"})
        wrapped = jax_callable(saved_then_written, spec=spec)
        found = jax.grad(weighted(wrapped), (0, 1))(X, Y)
        assert_close(found, (jnp.zeros_like(X), jax.grad(weighted(twin_saved), 1)(X, Y)))

    @pytest.mark.parametrize("method", ["sequential_unrolled", "expand_dims", "broadcast_all"])
    def test_vmap_methods(self, method):
        wrapped = jax_callable(saved_then_written, spec=self.spec(vmap_method=method))
        # Single calls are planned by the contract, and batches are too.
        batch = jnp.stack([X, X * 2, X - 1])
        for axes in ((0, 0), (0, None)):
            y = Y if axes[1] is None else jnp.stack([Y, Y / 2, -Y])
            assert_close(jax.vmap(wrapped, axes)(batch, y), jax.vmap(twin_saved, axes)(batch, y))
            mine = jax.vmap(jax.grad(weighted(wrapped), (0, 1)), axes)
            twin = jax.vmap(jax.grad(weighted(twin_saved), (0, 1)), axes)
            assert_close(jax.jit(mine)(batch, y), twin(batch, y))

    def test_a_value_of_its_own_that_was_overwritten_is_an_error_in_every_mode(self):
        def overwrites(x, y):
            if float(y.detach().sum()) < 100:
                x.add_(y).exp().mul_(2)

        def keeps(x, y):
            if float(y.detach().sum()) < 100:
                x.add_(y)
                x.copy_(x.exp())  # of which autograd saves the result

        wrapped = jax_callable(keeps, mutates=("x",))
        wrapped(X, Y)
        twin = lambda x, y: jnp.exp(x + y)  # noqa: E731
        assert_close(jax.jvp(wrapped, (X, Y), (Y, X)), jax.jvp(twin, (X, Y), (Y, X)))

        wrapped = jax_callable(lambda x, y: (overwrites(x, y), y.exp().mul_(x))[1], mutates=("x",))
        wrapped(X, Y)
        for derive in (
            lambda: jax.jvp(wrapped, (X, Y), (Y, X)),
            lambda: jax.grad(lambda x, y: wrapped(x, y)[0].sum(), (0, 1))(X, Y),
        ):
            with pytest.raises(TorchExecutionError, match="modified by an inplace operation"):
                derive()

    def test_explain(self):
        wrapped = wrap(saved_then_written)
        assert "gradient     tape: one run" in wrapped.explain(X, Y)
        text = wrapped.explain(X, Y)
        assert "mutates      `x`: donate it, and the new value is the same memory" in text
        assert "derivatives and batches work on copies" in text


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def without_grad(x, y):
    with torch.no_grad():
        x.mul_(y)


def by_data(x, y):
    x.data.mul_(y)


def detached(x, y):
    x.detach()[0].mul_(y[0])


def view_without_grad(x, y):
    with torch.no_grad():
        row = x[0]
    row.mul_(y[0])


def other_memory(x, y):
    x.data = y * 2


def hidden(x, y):
    Hidden.apply(x)
    x.mul_(y)


def late(x, y):
    x.mul_(y)
    without_grad(x, y)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
class TestWritesThatTorchDoesNotRecord:
    @pytest.mark.parametrize("traced", [True, False])
    @pytest.mark.parametrize(
        ("write", "how"),
        [
            (without_grad, r"under `torch\.no_grad\(\)`"),
            (late, r"under `torch\.no_grad\(\)`"),
            (by_data, r"through `detach\(\)` or `\.data`"),
            (detached, r"through `detach\(\)` or `\.data`"),
            (view_without_grad, r"through a view made under"),
            (other_memory, r"by giving it other memory"),
            (hidden, r"by an operation or a torch\.autograd\.Function that hides it"),
        ],
    )
    def test_are_errors(self, write, how, traced):
        if not traced and write in (late, detached):
            return  # as for others

        def function(x, y):
            if traced or float(y.detach().sum()) < 100:
                write(x, y)

        wrapped = jax_callable(function, mutates=("x",))
        wrapped(X, Y)
        words = f"function: cannot differentiate: the function writes to `x` {how}"
        failure = DifferentiationError
        if write is view_without_grad and not traced:  # torch itself refuses
            failure, words = TorchExecutionError, "A view was created in no_grad mode"
        for index in (0, 1):
            with pytest.raises(failure, match=words):
                jax.grad(weighted(wrapped), index)(X, Y)
        if write is by_data:
            with pytest.raises(failure, match=words):
                jax.jvp(weighted(wrapped), (X, Y), (X, Y))
            stopped = jax.grad(lambda y: wrapped(X, jax.lax.stop_gradient(y)).sum() + y.sum())(Y)
            assert_equal(stopped, jnp.ones_like(Y))

    def test_by_numpy(self):
        def by_numpy(x, y):
            x.mul_(y)
            x.detach().numpy()[...] += 1

        wrapped = jax_callable(by_numpy, mutates=("x",))
        assert_close(wrapped(X, Y), X * Y + 1)
        with pytest.raises(Exception, match="past torch"):
            jax.grad(weighted(wrapped))(X, Y)

    def test_a_custom_function_that_says_so_is_differentiated(self):
        def double(x, y):
            Twice.apply(x)
            x.mul_(y)

        wrapped = wrap(double)
        twin = weighted(lambda x, y: 2 * x * y)
        assert_close(jax.grad(weighted(wrapped), (0, 1))(X, Y), jax.grad(twin, (0, 1))(X, Y))
        assert_close(jax.hessian(weighted(wrapped))(X, Y), jax.hessian(twin)(X, Y))

    def test_what_torch_takes_for_the_identity(self):
        def settle(x, y):
            x.logical_not_()
            x.add_(y)

        found = jax.grad(weighted(wrap(settle)), (0, 1))(X, Y)
        assert_close(found, jax.grad(weighted(lambda x, y: 0 * x + y), (0, 1))(X, Y))
