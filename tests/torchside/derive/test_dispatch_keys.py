"""A capture that fails inside of torch leaves nothing switched off on its thread."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge._compat.torch.dispatch_keys import dispatch_keys_put_back

X = jnp.asarray(np.linspace(0.5, 6.0, 12, dtype=np.float32).reshape(3, 4))
ONES = jnp.ones_like(X)


def keys():
    return (
        str(torch._C._dispatch_tls_local_include_set()),
        str(torch._C._dispatch_tls_local_exclude_set()),
    )


def writes_a_number(x):
    """Torch's forward mode fails at its own assertion where the number is a constant of fakes."""
    y = x.clone()
    y[:, 2:] = 3
    return y * x


def of_jax(x):
    return x.at[:, 2:].set(3) * x


WAYS = {
    "jvp": lambda f: jax.jvp(f, (X,), (ONES,))[1],
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(X),
    "jitted jvp": lambda f: jax.jit(lambda x: jax.jvp(f, (x,), (ONES,))[1])(X),
    "vmap of jvp": lambda f: jax.vmap(lambda t: jax.jvp(f, (X,), (t,))[1])(ONES[None]),
    "hessian": lambda f: jax.hessian(lambda x: f(x).sum())(X),
}


@pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("backend", ["eager", "graph", "xla"])
def test_derivatives_after_a_way_that_torch_cannot_go(backend, first):
    before = keys()
    wrapped = jax_callable(writes_a_number, backend=backend)
    for name, way in {first: WAYS[first], **WAYS}.items():
        assert_close(way(wrapped), way(of_jax), label=name)
    assert keys() == before
    t = torch.ones(3, requires_grad=True)
    assert torch.autograd.grad((t * t).sum(), t)[0].tolist() == [2, 2, 2]


def test_what_frames_of_an_error_hold_is_let_go_of_before_keys_are_put_back():
    class Switch:
        """As torch's own: what it found is put back when it goes."""

        def __init__(self):
            self._guard = torch._C._ExcludeDispatchKeyGuard(
                torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradCPU)
            )
            self._guard.__enter__()

        def __del__(self):
            self._guard.__exit__(None, None, None)

    def fails():
        switch = Switch()
        raise ValueError(f"{switch}"[:0])

    before = keys()
    with pytest.raises(ValueError, match=r"^$") as raised, dispatch_keys_put_back():
        fails()
    assert keys() == before
    del raised
    assert keys() == before
