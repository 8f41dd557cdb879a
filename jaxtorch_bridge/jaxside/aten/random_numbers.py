"""Random numbers: torch's distributions, drawn by keys of JAX's; other numbers than torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .registry import CannotLowerError, Out, computed_in, draws_by_key, limits_of


def _drawn(names: str, draw: Callable[..., Any]) -> None:
    """Enter what takes a key, the result, and the arguments without those that give its shape."""

    def lower(out: Out, key: Any, *args: Any, **_: Any) -> Any:
        return draw(key, out, *args).astype(out.dtype)

    draws_by_key(*names.split())(lower)


def _float(out: Out) -> Any:
    """What a float is drawn in: narrow ones in float32."""
    if not jnp.issubdtype(out.dtype, jnp.inexact):
        return np.dtype(np.float32)
    return computed_in(out.dtype)


def _uniform(key: Any, out: Out, *_: Any) -> Any:
    drawn = jax.random.uniform(key, out.shape, _float(out)).astype(out.dtype)
    # Rounded to a narrow float the greatest would be 1, which torch never draws.
    below = jnp.nextafter(jnp.ones((), out.dtype), jnp.zeros((), out.dtype))
    return jnp.minimum(drawn, below)


def _normal(key: Any, out: Out, *_: Any) -> Any:
    return jax.random.normal(key, out.shape, _float(out))


def _scaled_normal(key: Any, out: Out, mean: Any, std: Any, *_: Any) -> Any:
    return mean + std * _normal(key, out)


def _integers(key: Any, out: Out, low: Any, high: Any) -> Any:
    if not jnp.issubdtype(out.dtype, jnp.integer):
        return jax.random.randint(key, out.shape, low, high, np.int64)
    least, greatest = limits_of(out.dtype)
    if low < least or high - 1 > greatest:
        raise CannotLowerError(f"{out.dtype} does not hold the numbers from {low} to {high}")
    return jax.random.randint(key, out.shape, low, high, np.int64)


_drawn("rand.default rand_like.default", _uniform)
_drawn("randn.default randn_like.default", _normal)
_drawn("normal_functional.default", lambda key, out, x, *of: _scaled_normal(key, out, *_two(*of)))
_drawn(
    "normal.float_float normal.Tensor_float normal.float_Tensor normal.Tensor_Tensor",
    lambda key, out, *of: _scaled_normal(key, out, *_two(*of)),
)
_drawn("randint.default", lambda key, out, high, *_: _integers(key, out, 0, high))
_drawn("randint.low", lambda key, out, low, high, *_: _integers(key, out, low, high))
_drawn("randint_like.default", lambda key, out, x, high, *_: _integers(key, out, 0, high))
_drawn("randint_like.low_dtype", lambda key, out, x, low, high, *_: _integers(key, out, low, high))
_drawn("random.to", lambda key, out, x, to: _integers(key, out, 0, to))
_drawn("randperm.default", lambda key, out, n, *_: jax.random.permutation(key, n))


def _two(mean: Any = 0.0, std: Any = 1.0, *_: Any) -> tuple[Any, Any]:
    return mean, std


def _uniform_between(key: Any, out: Out, x: Any, low: float = 0.0, high: float = 1.0) -> Any:
    return low + (high - low) * jax.random.uniform(key, out.shape, _float(out))


def _exponential(key: Any, out: Out, x: Any, rate: float = 1.0) -> Any:
    return jax.random.exponential(key, out.shape, _float(out)) / rate


def _geometric(key: Any, out: Out, x: Any, p: float) -> Any:
    # Trials until the first success, that one with them.
    return jax.random.geometric(key, p, out.shape)


def _cauchy(key: Any, out: Out, x: Any, median: float = 0.0, sigma: float = 1.0) -> Any:
    return median + sigma * jax.random.cauchy(key, out.shape, _float(out))


def _log_normal(key: Any, out: Out, x: Any, mean: float = 1.0, std: float = 2.0) -> Any:
    return jnp.exp(mean + std * _normal(key, out))


_drawn("uniform.default", _uniform_between)
_drawn("exponential.default", _exponential)
_drawn("geometric.default", _geometric)
_drawn("cauchy.default", _cauchy)
_drawn("log_normal.default", _log_normal)


def _bernoulli(key: Any, out: Out, x: Any, p: Any = None) -> Any:
    chance = x if p is None else p
    # Compared in float32 or more: a probability that a narrow float holds is met exactly.
    return jax.random.bernoulli(key, jnp.asarray(chance, _float(out)), out.shape)


_drawn("bernoulli.default bernoulli.p bernoulli.Tensor", _bernoulli)
_drawn("poisson.default", lambda key, out, rate: jax.random.poisson(key, rate, out.shape))
_drawn(
    "binomial.default",
    lambda key, out, count, p: jax.random.binomial(key, count, p, out.shape, _float(out)),
)
_drawn(
    "_standard_gamma.default",
    lambda key, out, shape: jax.random.gamma(key, shape, out.shape, _float(out)),
)
_drawn(
    "_sample_dirichlet.default",
    lambda key, out, alpha: jax.random.dirichlet(key, alpha, out.shape[:-1], _float(out)),
)


@draws_by_key("rrelu_with_noise_functional.default")
def leaky_by_chance(
    out: tuple[Out, Out],
    key: Any,
    x: Any,
    noise: Any,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: None = None,
) -> tuple[Any, Any]:
    """A leaky ReLU with slopes drawn, and these slopes."""
    if not training:
        return jnp.where(x > 0, x, x * ((lower + upper) / 2)), noise
    drawn = jax.random.uniform(key, x.shape, _float(out[0]), lower, upper).astype(x.dtype)
    slopes = jnp.where(x > 0, jnp.ones((), x.dtype), drawn)
    return x * slopes, slopes


@draws_by_key("multinomial.default")
def multinomial(out: Out, key: Any, weights: Any, count: int, again: bool = False) -> Any:
    """Places by their weights, of each row."""
    chances = jnp.log(weights.astype(_float(Out(weights.shape, weights.dtype))))
    if again:
        drawn = jax.random.categorical(key, chances[..., None, :], axis=-1, shape=out.shape)
        return drawn.astype(out.dtype)
    # The greatest of independent Gumbel numbers: a draw without putting back.
    noisy = chances + jax.random.gumbel(key, chances.shape, chances.dtype)
    return jax.lax.top_k(noisy, count)[1].astype(out.dtype)
