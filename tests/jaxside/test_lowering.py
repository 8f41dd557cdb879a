"""What XLA is handed: one custom call, its attributes, its keys."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import torch

from jaxtorch_bridge import jax_callable


def test_one_custom_call_with_the_ops_key():
    wrapped = jax_callable(lambda a, b: a + b, name="added")
    a = jnp.ones((10, 2))
    text = jax.jit(wrapped).lower(a, a).as_text()
    assert text.count("stablehlo.custom_call") == 1
    assert "@jaxtorch_bridge.call" in text
    key = wrapped.plan(a, a).key
    assert re.search(rf'op = "{re.escape(key)}"', text)
    assert "has_side_effect = false" in text or "has_side_effect" not in text


def test_operands_and_results_are_row_major():
    wrapped = jax_callable(lambda x: x.permute(2, 0, 1), name="permuted")
    text = jax.jit(wrapped).lower(jnp.ones((2, 3, 4))).as_text()
    assert "operand_layouts = [dense<[2, 1, 0]>" in text
    assert "result_layouts = [dense<[2, 1, 0]>" in text
    assert "tensor<4x2x3xf32>" in text


def test_a_gradient_is_two_calls_and_the_forward_is_the_saving_one():
    wrapped = jax_callable(lambda x, w: torch.tanh(x @ w), name="layer")
    x, w = jnp.ones((4, 3)), jnp.ones((3, 5))
    step = jax.jit(jax.value_and_grad(lambda x, w: wrapped(x, w).sum(), argnums=(0, 1)))
    keys = re.findall(r'op = "([^"]*)"', step.lower(x, w).as_text())
    assert [re.sub("/[0-9a-f]{16}", "", key) for key in keys] == [
        "layer@0/forward/wrt0,1",
        "layer@0/backward/0,1:0",
    ]


def test_the_backward_takes_the_inputs_the_token_and_the_cotangents():
    wrapped = jax_callable(lambda x, y: x.sin() + y, name="sum")
    x = jnp.ones(7)
    step = jax.jit(jax.grad(lambda x, y: wrapped(x, y).sum(), argnums=(0, 1)))
    text = step.lower(x, x).as_text()
    backward = next(line for line in text.splitlines() if "backward" in line)
    # Three in (both inputs, for the function may have to run again), and two gradients out.
    assert backward.count("tensor<7xf32>") == 5
    assert backward.count("tensor<5xi32>") == 1


def test_an_unused_result_drops_the_call():
    wrapped = jax_callable(lambda x: x * 2, name="unused")

    @jax.jit
    def program(x):
        wrapped(x)
        return x

    assert "custom-call" not in program.lower(jnp.ones(3)).compile().as_text()


def test_a_program_for_one_device_does_not_say_for_how_many():
    wrapped = jax_callable(lambda x: x * 2, name="small")
    assert "devices" not in jax.jit(wrapped).lower(jnp.ones(3)).as_text()
