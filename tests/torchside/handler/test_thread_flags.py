"""The flags of a thread are asked by torch's C++ functions where those can be trusted."""

from __future__ import annotations

import pytest
import torch

from jaxtorch_bridge._compat.torch.thread_flags import direct_flags


def settings() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch._C._len_torch_function_stack(),
    )


def test_they_are_known_on_this_torch():
    addresses = direct_flags()
    assert addresses is not None
    assert len(set(addresses)) == 3
    assert all(addresses)


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu"),
        lambda: torch.device("cpu"),  # a torch function mode
    ],
)
def test_they_are_known_in_any_context_which_stays_as_it_was(context):
    with context():
        before = settings()
        assert direct_flags() is not None
        assert settings() == before


def test_a_function_that_answers_otherwise_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch, "is_grad_enabled", lambda: True)
    assert direct_flags() is None


def test_a_torch_without_one_of_them_has_none(monkeypatch):
    class Without:
        def __init__(self, path: str) -> None: ...

        def __getitem__(self, name: str):
            raise AttributeError(f"undefined symbol: {name}")

        __getattr__ = __getitem__

    monkeypatch.setattr("ctypes.CDLL", Without)
    assert direct_flags() is None


SETTINGS = """
import sys
import jax, jax.numpy as jnp, numpy as np, torch
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.handler import native_module as native

if sys.argv[1:] == ["python"]:
    native.direct_flags = lambda: None

seen = []

def product(x, y):
    seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"),
                 torch.is_autocast_enabled("cuda"), str(torch.get_default_device())))
    return x @ y

x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 8)), jnp.float32)
f = jax.jit(jax_callable(product))
expected = f(x, x).block_until_ready()
del seen[:]
contexts = [torch.enable_grad(), torch.no_grad(), torch.inference_mode(), torch.autocast("cpu"),
            torch.device("meta")]
for context in contexts:
    with context:
        assert (f(x, x) == expected).all(), context
assert (f(x, x) == expected).all()
print(len(contexts) + 1 == len(seen), sorted(set(seen)))
"""


@pytest.mark.parametrize("way", ["direct", "python"])
def test_a_call_has_the_settings_it_was_planned_with(way, run_python):
    """Also where only torch's Python functions can be asked."""
    script = f"import sys; sys.argv[1:] = [{way!r}]\n{SETTINGS}"
    assert run_python(script).strip() == "True [(True, False, False, 'cpu')]"
