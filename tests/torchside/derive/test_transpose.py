"""Transposes of linear torch functions, beside the same functions in `jax.numpy`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
import torch
from jax.scipy.sparse import linalg
from jax.sharding import Mesh, PartitionSpec

from comparing import assert_close, assert_equal
from jaxtorch_bridge import DifferentiationError, TorchExecutionError, jax_callable

S = np.array([[3.0, 1.0, 0.5], [0.0, 2.0, 1.0], [1.0, 0.0, 4.0]], np.float32)
S_TORCH = torch.from_numpy(S)
SPD = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 1.0], [0.5, 1.0, 5.0]], np.float32)


@jax_callable
def matvec(v):
    return S_TORCH @ v


def twin(v):
    return jnp.asarray(S) @ v


@pytest.fixture
def b():
    return jnp.array([1.0, 2.0, -1.0])


def transposed(function, *primals):
    """By linear_transpose, eager and under jit."""
    eager = jax.linear_transpose(function, *primals)

    def both(*cotangents):
        found = eager(*cotangents)
        jitted = jax.jit(lambda *cts: jax.linear_transpose(function, *primals)(*cts))(*cotangents)
        assert_close(jitted, found)
        return found

    return both


def test_linear_transpose(b):
    assert_close(transposed(matvec, b)(b), transposed(twin, b)(b))
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert_close(jax.linear_transpose(matvec, shape)(b), jax.linear_transpose(twin, shape)(b))
    inside_jit = jax.linear_transpose(jax.jit(matvec), b)(b)
    assert_close(inside_jit, transposed(twin, b)(b))


def test_a_transpose_of_a_transpose(b):
    def again(function):
        once = jax.linear_transpose(function, b)
        return jax.linear_transpose(lambda ct: once(ct)[0], b)(b)

    assert_close(again(matvec), again(twin))


def test_the_function_does_not_run_again(b):
    runs = []
    note = runs.append

    def noted(v):
        if type(v) is torch.Tensor:
            note(1)
        return S_TORCH @ v

    function = jax.jit(jax.linear_transpose(jax_callable(noted), b))
    assert_close(function(b), (jnp.asarray(S).T @ b,))
    # What was traced, under torch.func.
    runs.clear()
    function(b)
    assert runs == []


# What is linear.

W = jnp.arange(6.0).reshape(2, 3) + 1
LINEAR = {
    "views": (lambda v: v.reshape(3, 1).T.expand(2, 3)[:, 1:].flip(0), None),
    "sums": (lambda v: (v + v.sum() - 2 * v.mean()).cumsum(0) / 3, None),
    "joined": (lambda v: torch.cat([v, torch.zeros(2), -v]), None),
    "matrices": (lambda v: torch.einsum("ij,j->i", S_TORCH, v) + S_TORCH.T @ v, None),
    "padded": (lambda v: torch.nn.functional.pad(v[None, None], (1, 1), mode="reflect")[0], None),
    "convolved": (
        lambda v: torch.nn.functional.conv1d(v[None, None], torch.ones(2, 1, 2))[0],
        None,
    ),
    "solved": (lambda v: torch.linalg.solve(S_TORCH, v), None),
    "triangular": (
        lambda v: torch.linalg.solve_triangular(S_TORCH.triu(), v[:, None], upper=True),
        None,
    ),
    "looked up": (lambda v: v[torch.tensor([0, 2, 2])], None),
    "masked": (lambda v: torch.where(torch.tensor([True, False, True]), v, 0.0), None),
    "scattered": (
        lambda v: (
            torch.zeros(5).index_add(0, torch.tensor([0, 1, 1]), v).scatter(0, torch.tensor(4), 0.0)
        ),
        None,
    ),
    "transformed": (lambda v: torch.fft.irfft(torch.fft.rfft(v, n=4) * 2, n=4), None),
    "another dtype": (lambda v: v.half().float().double().float(), None),
    "layer": (torch.nn.Linear(3, 2, bias=False), None),
    "interpolated": (
        lambda v: torch.nn.functional.interpolate(v[None, None], size=5, mode="linear")[0, 0],
        None,
    ),
}


def in_place(v):
    out = torch.empty(4)
    out[0] = 0
    out[1:] = v
    out[1:3] -= 2 * v[:2]
    out *= 3
    return out


LINEAR["in place"] = (in_place, None)


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear(name, b):
    function = jax_callable(LINEAR[name][0])
    out = function(b)
    cotangent = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    _, pull = jax.vjp(function, b)
    factor = {"another dtype": 200.0}.get(name, 1.0)  # through halves
    assert_close(transposed(function, b)(cotangent), pull(cotangent), factor=factor)
    # With numbers as the only witness.
    paired = jnp.vdot(transposed(function, b)(cotangent)[0], b)
    assert_close(paired, jnp.vdot(cotangent, out), scale=10.0, factor=factor)
    assert "told by its operations" in function.explain(b)


def test_some_arguments_alone(b):
    def product(w, v, scale=2.0):
        return (w @ v) * scale

    function = jax_callable(product)
    ct = jnp.array([1.0, -2.0])
    assert_close(
        transposed(lambda v: function(W, v), b)(ct), transposed(lambda v: product(W, v), b)(ct)
    )
    assert_close(
        transposed(lambda w: function(w, b, scale=3.0), W)(ct),
        transposed(lambda w: product(w, b, 3.0), W)(ct),
    )
    with pytest.raises(DifferentiationError, match=r"by w, v.*multiplies two things"):
        jax.linear_transpose(function, W, b)(ct)


def test_several_linear_arguments(b):
    def both(v, u):
        return 2 * v - u.sum()

    u = jnp.ones(2)
    function = jax_callable(both)
    assert_close(transposed(function, b, u)(b), transposed(both, b, u)(b))


def test_several_results(b):
    def parts(v):
        return {"twice": 2 * v, "sum": v.sum()}

    function = jax_callable(parts)
    cts = {"twice": b, "sum": jnp.float32(3.0)}
    assert_close(transposed(function, b)(cts), transposed(parts, b)(cts))


def test_results_that_nobody_asks_for_need_not_be_linear(b):
    function = jax_callable(lambda v: (2 * v, v.norm(), v.argmax()))
    assert_close(transposed(lambda v: function(v)[0], b)(b), (2 * b,))
    with pytest.raises(DifferentiationError, match="linalg_vector_norm"):
        jax.linear_transpose(lambda v: function(v)[:2], b)((b, jnp.float32(1.0)))


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.float16, jnp.bfloat16])
def test_dtypes(dtype):
    v = jnp.array([1, 2, -1]).astype(dtype)
    matrix = jnp.asarray(S).astype(dtype) * (1 + 2j if dtype == jnp.complex64 else 1)

    def product(m, v):
        return m @ v

    function = jax_callable(product)
    assert_close(
        transposed(lambda v: function(matrix, v), v)(v),
        transposed(lambda v: product(matrix, v), v)(v),
    )


def test_complex_parts():
    z = jnp.array([1 + 2j, 3 - 1j])

    def parts(z):
        return z.real * 2 + z.imag, z.conj() * 1j

    cts = (jnp.array([1.0, 2.0]), jnp.array([1j, 2.0 + 1j]))
    # JAX's own transposes of these, which are not conjugated.
    assert_close(
        jax.linear_transpose(jax_callable(parts), z)(cts), jax.linear_transpose(parts, z)(cts)
    )


# What is not.

NOT_LINEAR = {
    "power": lambda v: v**2,
    "product": lambda v: v * v,
    "constant": lambda v: v + 1,
    "tensor": lambda v: v + S_TORCH[0],
    "bias": torch.nn.Linear(3, 2),
    "relu": torch.relu,
    "clamp": lambda v: v.clamp(-100, 100),
    "step": torch.floor,
    "sign": torch.sign,
    "norm": lambda v: v / v.norm(),
    "whole numbers": lambda v: v.int().float(),
    "nothing of it": lambda v: torch.ones(3),
    "in place": lambda v: torch.ones(3).add_(v),
    "partly": lambda v: torch.cat([v, torch.ones(1)]),
    "softmax": lambda v: v.softmax(0),
    "sorted": lambda v: v.sort().values,
    "divisor": lambda v: 1 / v,
    "rounded": lambda v: torch.div(v, 2.0, rounding_mode="floor"),
    "padded": lambda v: torch.nn.functional.pad(v, (1, 1), value=5.0),
    "written to whole numbers": lambda v: torch.zeros(3, dtype=torch.int32).copy_(v).float(),
    "compared": lambda v: torch.where(v > 0, v, 2 * v),
    "of two": lambda v: torch.outer(v, v).sum(0),
    "placed": lambda v: torch.full((3,), 2.0).index_put((torch.tensor([0]),), v[:1]),
}


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("name", NOT_LINEAR)
def test_what_is_not_linear(name, how, b):
    function = jax_callable(NOT_LINEAR[name])
    out = function(b)
    pull = jax.linear_transpose(function, b)
    pull = jax.jit(pull) if how == "jit" else pull
    with pytest.raises(DifferentiationError, match="cannot transpose by") as caught:
        pull(jnp.ones_like(out))
    assert "jax.linearize" in str(caught.value)
    # As it says.
    point = jax.linearize(function, b)[1]
    assert jax.linear_transpose(point, b)(jnp.ones_like(out))[0].shape == (3,)


def test_a_part_of_a_tensor_that_is_constant(b):
    def partly(v):
        out = torch.ones(4)
        out[1:] = v
        return out

    with pytest.raises(DifferentiationError, match="cannot transpose"):
        jax.linear_transpose(jax_callable(partly), b)(jnp.ones(4))


# What only numbers can tell.


class Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return 2 * v

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Straight(Doubles):
    @staticmethod
    def backward(ctx, gradient):
        return gradient


def looked_at(v):
    return S_TORCH @ v if (v.sum() > 1e9) else S_TORCH @ v * 2


def by_numpy(v):
    return torch.from_numpy(S @ v.detach().numpy())


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize("how", ["eager", "jit"])
def test_linear_by_numbers(how, b):
    for function, factor in ((Doubles.apply, 2 * np.eye(3, dtype=np.float32)), (looked_at, 2 * S)):
        wrapped = jax_callable(function)
        wrapped(b)
        pull = jax.linear_transpose(wrapped, b)
        pull = jax.jit(pull) if how == "jit" else pull
        assert_close(pull(b), (jnp.asarray(factor).T @ b,))
        assert "tested with numbers" in wrapped.explain(b)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64])
def test_linear_by_numbers_of_other_dtypes(dtype, b):
    b = b.astype(dtype)
    assert_equal(jax.linear_transpose(jax_callable(Doubles.apply), b)(b), (2 * b,))


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize(
    "function",
    [
        Straight.apply,
        lambda v: v.detach() * 2,
        lambda v: v.data * 2,
        lambda v: torch.no_grad()(lambda: 2 * v)(),
        lambda v: v.abs() if (v.sum() > 1e9) else v.relu(),
        lambda v: v * v if (v.sum() < 1e9) else v,
        lambda v: v + 1 if (v.sum() < 1e9) else v,
        lambda v: v.clamp(-100, 100) if (v.sum() < 1e9) else v,
        by_numpy,
    ],
)
def test_not_linear_by_numbers(function, b):
    wrapped = jax_callable(function)
    wrapped(b)
    with pytest.raises((DifferentiationError, TorchExecutionError)):
        jax.linear_transpose(wrapped, b)(b)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
def test_numbers_that_it_does_not_take(b):
    def picky(v):
        if not (v == b_torch).all():
            raise RuntimeError("not these")
        return v

    b_torch = torch.tensor([1.0, 2.0, -1.0])
    wrapped = jax_callable(picky)
    wrapped(b)
    with pytest.raises(DifferentiationError, match=r"made-up numbers it fails with .*not these"):
        jax.linear_transpose(wrapped, b)(b)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
def test_numbers_leave_nothing_behind(b):
    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, v):
            self.count += 1
            return 2 * v if (v.sum() < 1e9) else v

    counts = Counts()
    wrapped = jax_callable(counts)
    wrapped(b)
    before, state = counts.count.clone(), torch.get_rng_state()
    pull = jax.linear_transpose(wrapped, b)
    assert_equal(pull(b), (2 * b,))
    assert_equal(counts.count, before)
    assert_equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
def test_numbers_need_the_other_arguments(b):
    def product(w, v):
        return w @ v if (w.sum() < 1e9) else v * v

    wrapped = jax_callable(product)
    wrapped(W, b)
    ct = jnp.array([1.0, -2.0])
    assert_close(jax.linear_transpose(lambda v: wrapped(W, v), b)(ct), (W.T @ ct,))
    with pytest.raises(DifferentiationError, match="`w` is not known here"):
        jax.jit(lambda w, ct: jax.linear_transpose(lambda v: wrapped(w, v), b)(ct))(W, ct)


@pytest.mark.filterwarnings("ignore:Dropout.*draws random numbers")
def test_random_functions(b):
    drop = torch.nn.Dropout(0.5)
    keyed = jax_callable(drop, random="key")
    key = jax.random.key(0)
    mask = keyed(jnp.ones(3), rng=key)
    assert_close(transposed(lambda v: keyed(v, rng=key), b)(b), (mask * b,))
    with pytest.raises(DifferentiationError, match="draws random numbers"):
        jax.linear_transpose(jax_callable(drop), b)(b)


def test_whole_numbers_and_excluded_arguments(b):
    with pytest.raises(DifferentiationError, match="cannot transpose: expected `x`"):
        jax.linear_transpose(jax_callable(lambda x: 2 * x), jnp.arange(3))(jnp.arange(3))
    excluded = jax_callable(lambda x: 2 * x, nondiff=("x",))
    with pytest.raises(DifferentiationError, match="declared to have none"):
        jax.linear_transpose(excluded, b)(b)


# Solvers.


@jax_callable
def of_matrix(m, v):
    return m @ v


SOLVERS = {
    "gmres": lambda mv, b: linalg.gmres(mv, b, tol=1e-7, atol=1e-7)[0],
    "bicgstab": lambda mv, b: linalg.bicgstab(mv, b, tol=1e-7)[0],
    "cg": lambda mv, b: linalg.cg(mv, b, tol=1e-7)[0],
    "custom": lambda mv, b: jax.lax.custom_linear_solve(
        mv,
        b,
        lambda mv, b: jnp.linalg.solve(jax.jacobian(mv)(b), b),
        lambda vm, b: jnp.linalg.solve(jax.jacobian(vm)(b), b),
    ),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_of_solvers(name, jit, b):
    solve = SOLVERS[name]
    matrix = jnp.asarray(SPD)

    def loss(product, matrix, b):
        return (solve(lambda v: product(matrix, v), b) ** 2).sum()

    def gradients(product):
        function = jax.grad(lambda m, b: loss(product, m, b), argnums=(0, 1))
        return (jax.jit(function) if jit else function)(matrix, b)

    # Iterations stop at a tolerance of their own.
    assert_close(gradients(of_matrix), gradients(jnp.matmul), factor=10.0)


def test_second_derivatives_of_a_solver(b):
    def loss(product, b):
        mv = lambda v: product(jnp.asarray(SPD), v)  # noqa: E731
        return (SOLVERS["custom"](mv, b) ** 3).sum()

    found = jax.hessian(lambda b: loss(of_matrix, b))(b)
    assert_close(found, jax.hessian(lambda b: loss(jnp.matmul, b))(b), factor=10.0)


def test_lineax(b):
    def solved(product, matrix, b):
        operator = lineax.FunctionLinearOperator(
            lambda v: product(matrix, v), jax.ShapeDtypeStruct((3,), jnp.float32)
        )
        return lineax.linear_solve(operator, b, lineax.GMRES(rtol=1e-6, atol=1e-6)).value

    def gradients(product, transform):
        loss = lambda m, b: (solved(product, m, b) ** 2).sum()  # noqa: E731
        return transform(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(SPD), b)

    for transform in (lambda f: f, jax.jit):
        found, wanted = gradients(of_matrix, transform), gradients(jnp.matmul, transform)
        # Iterations stop at a tolerance of their own.
        assert_close(found, wanted, factor=10.0)
    operator = lineax.FunctionLinearOperator(matvec, jax.ShapeDtypeStruct((3,), jnp.float32))
    assert_close(operator.T.mv(b), jnp.asarray(S).T @ b)


# Under other transformations.


def test_under_vmap(b):
    batch = jnp.stack([b, 2 * b])
    matrices = jnp.stack([jnp.asarray(S), jnp.asarray(SPD)])

    def pulled(product):
        def one(m, ct):
            return jax.linear_transpose(lambda v: product(m, v), b)(ct)[0]

        return (
            jax.vmap(one)(matrices, batch),
            jax.vmap(one, in_axes=(None, 0))(matrices[0], batch),
            jax.vmap(one, in_axes=(0, None))(matrices, b),
        )

    assert_close(pulled(of_matrix), pulled(jnp.matmul))


def test_of_a_vmapped_function(b):
    batch = jnp.stack([b, 2 * b])
    for method in ("torch_vmap", "sequential", "sequential_unrolled"):
        function = jax.vmap(jax_callable(lambda v: S_TORCH @ v, vmap_method=method))
        assert_close(transposed(function, batch)(batch), transposed(jax.vmap(twin), batch)(batch))


def test_within_loops(b):
    def looped(function):
        def run(v):
            return jax.lax.scan(lambda v, _: (function(v), v), v, None, length=3)

        return jax.linear_transpose(run, b)((b, jnp.ones((3, 3))))

    assert_close(looped(matvec), looped(twin))
    kept = jax.checkpoint(matvec)
    assert_close(transposed(kept, b)(b), transposed(twin, b)(b))


def test_of_a_jvp(b):
    bent = jax_callable(lambda v: torch.tanh(S_TORCH @ v))

    def plain(v):
        return jnp.tanh(twin(v))

    def tangent(function):
        return lambda t: jax.jvp(function, (b,), (t,))[1]

    # Of 1 - tanh(x) ** 2 little is left.
    found, wanted = (jax.linear_transpose(tangent(f), b)(b) for f in (bent, plain))
    assert_close(found, wanted, scale=1.0)
    assert_close(jax.jit(jax.linear_transpose(tangent(bent), b))(b), wanted, scale=1.0)
    # Not split by JAX's partial evaluation, within a loop.

    def looped(function):
        def run(t):
            return jax.lax.scan(lambda t, p: (jax.jvp(function, (p,), (t,))[1], None), t, points)[0]

        points = jnp.stack([b, 2 * b])
        return jax.linear_transpose(run, b)(b)

    assert_close(looped(bent), looped(plain), scale=1.0)
    # Linear in point and tangent.
    both = transposed(lambda v, t: jax.jvp(matvec, (v,), (t,)), b, b)((b, 2 * b))
    assert_close(both, transposed(lambda v, t: jax.jvp(twin, (v,), (t,)), b, b)((b, 2 * b)))


def test_derivatives_of_transposes(b):
    def pulled(product, m, ct):
        return jax.linear_transpose(lambda v: product(m, v), b)(ct)[0]

    matrix = jnp.asarray(S)

    def all_of(product):
        function = lambda m, ct: (pulled(product, m, ct) ** 2).sum()  # noqa: E731
        return (
            jax.grad(function, argnums=(0, 1))(matrix, b),
            jax.jvp(function, (matrix, b), (matrix, b)),
            jax.hessian(function, argnums=1)(matrix, b),
        )

    assert_close(all_of(of_matrix), all_of(jnp.matmul))


def test_in_shard_map(b):
    mesh = Mesh(np.array(jax.devices()[:1]), ("d",))
    spec = PartitionSpec("d")
    batch = jnp.stack([b, 2 * b])

    def sharded(function):
        return jax.shard_map(
            lambda m, v: function(m, v.T).T,
            mesh=mesh,
            in_specs=(PartitionSpec(), spec),
            out_specs=spec,
        )

    def pulled(function):
        cut = sharded(function)
        return jax.linear_transpose(lambda m: cut(m, batch), jnp.asarray(S))(batch)

    assert_close(pulled(of_matrix), pulled(jnp.matmul))


def test_declared_writes(b):
    def doubled(v):
        v *= 2

    function = jax_callable(doubled, mutates=("v",))
    assert_equal(function(b), 2 * b)
    assert_equal(transposed(function, b)(b), (2 * b,))


def test_a_function_that_changes_is_looked_at_again(b):
    layer = torch.nn.Sequential(torch.nn.Identity())
    function = jax_callable(layer)
    assert_equal(jax.linear_transpose(function, b)(b), (b,))
    layer[0] = torch.nn.Tanh()
    with pytest.raises(DifferentiationError, match="tanh"):
        jax.linear_transpose(function, b)(b)
