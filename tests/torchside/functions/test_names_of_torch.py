"""What is recognised by names that torch gives: a torch that renames it must fail here."""

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge._compat.torch.autograd import keeping_records
from jaxtorch_bridge._compat.torch.autograd_graph import (
    hides_its_derivative,
    lacks_derivative,
    leaves_behind,
)
from jaxtorch_bridge._compat.torch.operators import attention, linear_ops
from jaxtorch_bridge._compat.torch.operators.attention import is_attention
from jaxtorch_bridge._compat.torch.operators.checkpoints import without_reentrancy
from jaxtorch_bridge._compat.torch.operators.writes_and_draws import UPDATES_STATISTICS
from jaxtorch_bridge.recorded_inputs import is_recorded, recorded_inputs


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 2


def moving():
    return torch.ones(2, 3, requires_grad=True)


def plain():
    x = moving()
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3), torch.nn.GELU())
    return [layer(x).sum(), checkpoint(layer, x, use_reentrant=False), Once.apply(x)]


def gradients_of(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)


def test_a_backward_that_hides_its_derivative():
    x = moving()
    assert hides_its_derivative(gradients_of(Once.apply(x).sin(), x))
    assert hides_its_derivative(gradients_of(Once.apply(x.sin()).exp(), x))
    assert not hides_its_derivative(gradients_of(x.sin().exp(), x))


def test_an_operation_without_a_derivative():
    x = moving()
    with torch.library._scoped_library("jaxtorch_names", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        # As a kernel of C++, of which autograd sees nothing.
        library.impl("twice", lambda x: torch.from_numpy(x.detach().numpy() * 2), "CPU")
        assert lacks_derivative([torch.ops.jaxtorch_names.twice(x).sin()])
    assert not lacks_derivative(plain())


def test_reentrant_checkpoints_can_be_the_other_form():
    asked = []

    def applies():
        asked.append(1)
        return len(asked) == 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFunction, "apply", CheckpointFunction.apply)
        without_reentrancy(applies)
        x = moving()
        names = [
            type(checkpoint(torch.sin, x, use_reentrant=True).grad_fn).__name__ for _ in range(2)
        ]
    assert names == ["SinBackward0", "CheckpointFunctionBackward"]


def test_leaves():
    x = moving()
    assert [leaf is x for leaf in leaves_behind(x.sin() * 2)] == [True]


class Named(torch.autograd.Function):
    """Whose ``ctx`` has attributes by which torch's own nodes tell what they are."""

    @staticmethod
    def forward(ctx, x):
        ctx.name = ctx.variable = "mine"
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def test_attributes_that_users_give_to_nodes():
    x = moving()
    assert not lacks_derivative([Named.apply(x.sin())])
    assert [leaf is x for leaf in leaves_behind(Named.apply(x.sin()))] == [True]
    with recorded_inputs([x]):
        assert is_recorded(Named.apply(x.sin()))
    wrapped, given = jax_callable(lambda x: Named.apply(x.sin()).sum()), jnp.arange(3.0)
    assert_close(jax.grad(wrapped)(given), 2 * jnp.cos(given))


def test_records_that_the_engine_keeps():
    x = moving()
    with keeping_records(True):
        y = x.exp().sum()
        torch.autograd.grad(y, x, retain_graph=False)
        with keeping_records(False):
            (first,) = torch.autograd.grad(y, x)
        with pytest.raises(RuntimeError, match="second time"):
            y.backward()
    y = x.exp().sum()
    assert_close(torch.autograd.grad(y, x)[0], first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, x)


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.append(func)
        return func(*args, **(kwargs or {}))


def test_attention():
    with Ops() as ops:
        q = torch.ones(1, 2, 4, 8, requires_grad=True)
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    fused = [op for op in ops.found if is_attention(op)]
    assert len(fused) == 2  # forth and back
    assert all(op in attention.FUSED_ATTENTION for op in fused)


def test_batch_norm():
    for name in UPDATES_STATISTICS:
        namespace, _, plain = name.partition("::")
        assert hasattr(getattr(torch.ops, namespace), plain)


LISTS = {
    name: value
    for name, value in vars(linear_ops).items()
    if name.isupper() and isinstance(value, (dict, frozenset))
}


@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS.keys())
def test_linear_operations(names):
    assert len(names) > 5
    assert [name for name in names if not hasattr(torch.ops.aten, name)] == []
