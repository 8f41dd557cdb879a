"""What a derivative says that is older than what its function closes over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from jaxtorch_bridge import StaleClosureError, jax_callable

X = jnp.ones(3)
AT = 2.0


def switched():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).eval()
    return module, module.train, r"the module `Sequential` was switched to train\(\)"


def switched_part():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).eval()
    words = r"the module `1` of `Sequential` was switched to train\(\)"
    return module, module[1].train, words


def replaced():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3))

    def replace():
        module[0].bias = torch.nn.Parameter(torch.zeros(3))

    return module, replace, "the parameter `0.bias` of `Sequential` was replaced by another tensor"


def changed_attribute():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.by = 2.0

        def forward(self, x):
            return x.sin() * self.by

    module = Scaled()
    return (
        module,
        lambda: setattr(module, "by", 3.0),
        "the attribute `by` of `Scaled` changed from 2.0 to 3.0",
    )


def changed_variable():
    by = 2.0

    def scaled(x):
        return x.sin() * by

    def change():
        nonlocal by
        by = 3.0

    return scaled, change, "the Python value `by` changed from 2.0 to 3.0"


def changed_global():
    def scaled(x):
        return x.sin() * AT

    return scaled, lambda: globals().update(AT=3.0), "the Python value `AT` changed from 2.0 to 3.0"


@pytest.fixture(autouse=True)
def _same_global():
    before = AT
    yield
    globals().update(AT=before)


CASES = [switched, switched_part, replaced, changed_attribute, changed_variable, changed_global]


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize("case", CASES)
def test_an_eager_derivative_names_the_cause_and_no_jit(case):
    function, change, words = case()
    _, push = jax.linearize(jax_callable(function, name="layer"), X)
    push(X)
    change()
    with pytest.raises(StaleClosureError, match=words) as raised:
        push(X)
    text = str(raised.value)
    assert text.startswith("layer")
    assert "jit" not in text
    assert "Take the derivative again" in text


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_jitted_one_says_how_to_clear_it(case):
    function, change, words = case()
    f = jax_callable(function)
    jitted = jax.jit(lambda x: jax.linearize(f, x)[1](x))
    jitted(X)
    change()
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=words) as raised:
        jitted(X)
    assert "clear_cache()" in str(raised.value)
    jitted.clear_cache()
    jitted(X)


@pytest.mark.parametrize("case", [replaced])
def test_a_backward_pass_after_a_change_names_it(case):
    function, change, words = case()
    _, pull = jax.vjp(jax_callable(function), X)
    change()
    with pytest.raises(StaleClosureError, match=words):
        pull(X)


def test_a_tensor_that_was_written_to():
    module = torch.nn.Linear(3, 3)
    _, pull = jax.vjp(jax_callable(module), X)
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(StaleClosureError, match="a tensor that the function closes over was"):
        pull(X)
