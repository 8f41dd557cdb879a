"""Complex numbers against jax.numpy twins: JAX's convention in every mode and order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from comparing import assert_close
from jaxtorch_bridge import jax_callable

# Torch cannot batch some derivatives here, which is said once a callable.
pytestmark = [pytest.mark.derivatives, pytest.mark.filterwarnings("ignore:.*once for each element")]


def draw(*shapes, real=(), dtype="complex128", seed=0):
    """Standard normal numbers; the arguments in ``real`` have no imaginary part."""
    rng = np.random.default_rng(seed)
    arrays = []
    for place, shape in enumerate(shapes):
        numbers = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        single = {"complex64": "float32", "complex128": "float64"}[dtype]
        arrays.append(
            jnp.asarray(numbers.real.astype(single) if place in real else numbers.astype(dtype))
        )
    return arrays


def like(tree, seed=7):
    """Directions with imaginary parts where the arrays have them."""
    rng = np.random.default_rng(seed)

    def one(array):
        numbers = rng.standard_normal(array.shape)
        if jnp.iscomplexobj(array):
            numbers = numbers + 1j * rng.standard_normal(array.shape)
        return jnp.asarray(numbers, array.dtype)

    return jax.tree.map(one, tree)


class Case(NamedTuple):
    torch: Callable[..., Any]
    twin: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    real: tuple[int, ...] = ()


HOLOMORPHIC = {
    "polynomial": Case(lambda z: z**3 + 2 * z, lambda z: z**3 + 2 * z, ((3,),)),
    "sin_exp": Case(
        lambda z: torch.sin(z) * torch.exp(z / 2), lambda z: jnp.sin(z) * jnp.exp(z / 2), ((3,),)
    ),
    "matmul": Case(lambda a, b: (a @ b).tanh(), lambda a, b: jnp.tanh(a @ b), ((2, 3), (3, 2))),
    "fft": Case(
        lambda z: torch.fft.fft(z) * torch.fft.ifft(z**2),
        lambda z: jnp.fft.fft(z) * jnp.fft.ifft(z**2),
        ((4,),),
    ),
    "inv": Case(
        lambda z: torch.linalg.inv(z + 3 * torch.eye(2)),
        lambda z: jnp.linalg.inv(z + 3 * jnp.eye(2)),
        ((2, 2),),
    ),
}

# Not holomorphic, or with results that are real.
OTHERS = {
    "conjugate": Case(lambda z: z.conj() * z**2, lambda z: jnp.conj(z) * z**2, ((3,),)),
    "real_imaginary": Case(
        lambda z: (z.real.sin() * z.imag, z.imag**2),
        lambda z: (jnp.sin(z.real) * z.imag, z.imag**2),
        ((3,),),
    ),
    "absolute": Case(lambda z: z.abs() ** 3, lambda z: jnp.abs(z) ** 3, ((3,),)),
    "angle": Case(torch.angle, jnp.angle, ((3,),)),
    "adjoint": Case(lambda a, b: a.mH @ b, lambda a, b: a.conj().T @ b, ((3, 2), (3, 2))),
    "rfft": Case(
        lambda x: torch.fft.rfft(x).abs() ** 2,
        lambda x: jnp.abs(jnp.fft.rfft(x)) ** 2,
        ((5,),),
        (0,),
    ),
    "irfft": Case(lambda z: torch.fft.irfft(z) ** 2, lambda z: jnp.fft.irfft(z) ** 2, ((4,),)),
    "mixed": Case(
        lambda z, x: z * x.exp() + x, lambda z, x: z * jnp.exp(x) + x, ((3,), (3,)), (1,)
    ),
    "to_complex": Case(
        lambda x, y: torch.complex(x, y) ** 2, lambda x, y: (x + 1j * y) ** 2, ((3,), (3,)), (0, 1)
    ),
    "view_as_real": Case(
        lambda z: torch.view_as_real(z * z),
        lambda z: jnp.stack([(z * z).real, (z * z).imag], -1),
        ((3,),),
    ),
}
CASES = {**HOLOMORPHIC, **OTHERS}


@cache
def wrapped(name):
    return jax_callable(CASES[name].torch, name=name)


def loss(f):
    """A real number that depends on real and imaginary parts of every result."""

    def total(*arrays):
        leaves = jax.tree.leaves(f(*arrays))
        return sum(
            jnp.sum(
                jnp.sin(leaf.real) + (leaf.imag**2 * leaf.real if jnp.iscomplexobj(leaf) else 0)
            )
            for leaf in leaves
        )

    return total


def compare(name, transform, dtype="complex128", jit=False):
    """``transform`` of the torch function and of its twin, at the same arguments."""
    case = CASES[name]
    with jax.enable_x64(dtype == "complex128"):
        arrays = draw(*case.shapes, real=case.real, dtype=dtype)
        mine, twin = transform(wrapped(name)), jax.jit(transform(case.twin))
        assert_close((jax.jit(mine) if jit else mine)(*arrays), twin(*arrays))


def everywhere(transformed, **options):
    """By every argument."""
    return lambda f: (
        lambda *arrays: transformed(f, argnums=tuple(range(len(arrays))), **options)(*arrays)
    )


def pull_back(f):
    def call(*arrays):
        results, pull = jax.vjp(f, *arrays)
        return results, pull(like(results))

    return call


def push_forward(f):
    return lambda *arrays: jax.jvp(f, tuple(arrays), tuple(like(list(arrays))))


def gradient(f):
    return everywhere(jax.grad)(loss(f))


def towards(f, seed=7):
    """A real loss of the gradient, so that it can be differentiated again."""

    def along(*arrays):
        gradients = everywhere(jax.grad)(f)(*arrays)
        return sum(
            jnp.sum((g * direction).real)
            for g, direction in zip(gradients, like(gradients, seed), strict=True)
        )

    return along


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", CASES)
def test_cotangents_and_tangents(name, dtype):
    compare(name, pull_back, dtype)
    compare(name, push_forward, dtype)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_real_loss_under_jit(name):
    compare(name, lambda f: everywhere(jax.value_and_grad)(loss(f)), jit=True)


@pytest.mark.parametrize("name", CASES)
def test_second_order_of_a_real_loss(name):
    """Forward over reverse along one direction, and reverse over reverse."""
    compare(name, lambda f: push_forward(gradient(f)), jit=True)
    compare(name, lambda f: everywhere(jax.grad)(towards(loss(f))), jit=True)


@pytest.mark.parametrize("name", ["conjugate", "matmul", "mixed"])
def test_third_order_of_a_real_loss(name):
    compare(name, lambda f: everywhere(jax.grad)(towards(towards(loss(f)), seed=8)), jit=True)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", ["polynomial", "conjugate", "fft"])
def test_hessians_of_a_real_loss(name, dtype):
    """jacfwd needs `holomorphic` for complex arguments, so that is what both get."""
    compare(name, lambda f: jax.jacfwd(jax.grad(loss(f)), holomorphic=True), dtype, jit=True)


@pytest.mark.parametrize("name", ["to_complex", "rfft"])
def test_hessians_by_real_arguments(name):
    compare(name, lambda f: everywhere(jax.hessian)(loss(f)), jit=True)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_holomorphic_gradients(name, dtype):
    compare(
        name,
        lambda f: everywhere(jax.grad, holomorphic=True)(lambda *zs: jnp.sum(f(*zs) ** 2)),
        dtype,
    )


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_holomorphic_jacobians(name):
    compare(name, everywhere(jax.jacfwd, holomorphic=True), jit=True)
    compare(name, everywhere(jax.jacrev, holomorphic=True), jit=True)


@pytest.mark.parametrize("name", ["sin_exp", "matmul"])
def test_holomorphic_hessians(name):
    compare(
        name,
        lambda f: everywhere(jax.hessian, holomorphic=True)(lambda *zs: jnp.sum(f(*zs))),
        jit=True,
    )


@pytest.mark.parametrize("name", ["matmul", "conjugate", "fft", "mixed", "absolute"])
def test_batches(name):
    def batched(transform):
        def over(f):
            def call(*arrays):
                return jax.vmap(transform(f))(*(jnp.stack([a, a * 1.1, a + 0.1]) for a in arrays))

            return call

        return over

    for transform in (lambda f: f, gradient, push_forward):
        compare(name, batched(transform), jit=True)


def test_a_real_result_of_a_complex_input_pulls_back_real_cotangents():
    with jax.enable_x64(True):
        (z,) = draw((3,))
        _, mine = jax.vjp(wrapped("absolute"), z)
        _, twin = jax.vjp(CASES["absolute"].twin, z)
        cotangent = jnp.asarray([1.0, -2.0, 0.5])
        assert_close(mine(cotangent), twin(cotangent))
        with pytest.raises(ValueError, match="dtype"):
            mine(cotangent.astype("complex128"))


def test_the_modulus_at_zero():
    """Both sides take zero for the derivative where there is none."""
    with jax.enable_x64(True):
        z = jnp.zeros(2, "complex128")
        mine = jax.grad(lambda z: jax_callable(torch.abs)(z).sum())(z)
        assert_close(mine, jax.grad(lambda z: jnp.abs(z).sum())(z))


@pytest.mark.parametrize("name", ["matmul", "conjugate", "mixed"])
def test_finite_differences(name):
    case = CASES[name]
    with jax.enable_x64(True):
        arrays = draw(*case.shapes, real=case.real)
        check_grads(wrapped(name), arrays, order=2, modes=("fwd", "rev"))
