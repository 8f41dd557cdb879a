"""Graphs call torch's own functions only where these come down to the very same call."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge._compat.torch.capture.graphs import trace_graph
from jaxtorch_bridge._compat.torch.fake_tensors import fake_tensor_mode
from jaxtorch_bridge._compat.torch.operators.named_functions import FirstOp, same_calls
from jaxtorch_bridge.torchside.op.direct_calls import with_direct_calls

aten = torch.ops.aten
X = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((torch.mul, (X, 2)), (aten.mul.Tensor, (X, 2)), True),
        ((torch.mul, (X, 2)), (aten.mul.Tensor, (X, 2.0)), False),
        ((torch.mul, (X, True)), (aten.mul.Tensor, (X, 1)), False),
        ((torch.sum, (X, [0])), (aten.sum.dim_IntList, (X, [1])), False),
        ((torch.sum, (X,)), (aten.sum.dim_IntList, (X, [1])), False),
        ((torch.matmul, (X, X.T)), (aten.mm.default, (X, X)), False),
    ],
)
def test_calls_are_compared_with_their_arguments(one, other, same):
    calls = [FirstOp.of(function, arguments, {}) for function, arguments in (one, other)]
    assert same_calls(*calls) is same


def test_a_graph_computes_the_same_with_few_overloads_left():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()

    def function(x):
        y = layer(x) * 1.5 - x / 2
        values, order = y.max(-1)
        return [y.softmax(1).permute(2, 0, 1), values.std(0), order, torch.where(x > 0, y, -y)]

    with fake_tensor_mode():
        graph = trace_graph(function, [torch.empty(2, 5, 8)], "cpu")
    direct = with_direct_calls(graph)
    x = torch.randn(2, 5, 8)
    assert_equal(direct(x), graph(x))
    calls = [node for node in direct.graph.nodes if node.op == "call_function"]
    left = [node for node in calls if isinstance(node.target, torch._ops.OpOverload)]
    assert len(left) < len(calls) / 4


@pytest.mark.parametrize(
    ("overload", "arguments"),
    [
        # In torch a function of Python's has the name, and takes the tensors one by one.
        (aten.block_diag.default, lambda x: ([x, x],)),
        (aten.cartesian_prod.default, lambda x: ([x[0], x[1]],)),
        (aten.split.Tensor, lambda x: (x, 1)),
    ],
)
def test_a_function_that_the_text_of_a_graph_would_not_name_is_left_out(overload, arguments):
    with fake_tensor_mode():
        graph = trace_graph(lambda x: overload(*arguments(x)), [torch.empty(2, 3)], "cpu")
    assert_equal(with_direct_calls(graph)(X), overload(*arguments(X)))


def test_a_batch_of_a_function_of_pythons_that_has_a_c_function_below():
    call = jax_callable(lambda x, y: torch.block_diag(x, y))
    x, y = jnp.ones((4, 2, 3)), jnp.arange(4.0).reshape(4, 1, 1)
    wanted = jnp.stack([jax.scipy.linalg.block_diag(*each) for each in zip(x, y, strict=True)])
    assert_equal(jax.vmap(call)(x, y), wanted)
