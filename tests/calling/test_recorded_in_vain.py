"""Calls of functions that close over weights: autograd records nothing that nobody could see."""

from __future__ import annotations

import queue

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable

X = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)


def made(make):
    torch.manual_seed(0)
    return make()


MODULES = {
    "linear": lambda: nn.Linear(8, 8),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True),
    "encoder in evaluation": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
    "decoder": lambda: Both(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True)),
    "attention": lambda: Same(nn.MultiheadAttention(8, 2, batch_first=True)),
    "lstm": lambda: First(nn.LSTM(8, 8, 2, batch_first=True)),
    "gru": lambda: First(nn.GRU(8, 8, 2, bidirectional=True)),
    "rnn": lambda: First(nn.RNN(8, 8)),
    "convolution": lambda: nn.Conv1d(5, 6, 3),
    "norms": lambda: nn.Sequential(nn.LayerNorm(8), nn.GroupNorm(1, 5), nn.RMSNorm(8)),
    "batch norm": lambda: nn.BatchNorm1d(5),
    "activations": lambda: nn.Sequential(nn.PReLU(), nn.GELU(), nn.Linear(8, 4), nn.Softmax(-1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)).eval(),
    "bilinear": lambda: Both(nn.Bilinear(8, 8, 3)),
}


class First(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


class Same(First):
    def forward(self, x):
        return self.module(x, x, x)[0]


class Both(First):
    def forward(self, x):
        return self.module(x, x)


@pytest.mark.parametrize("name", MODULES)
def test_values_are_those_of_torch_where_it_records(name):
    module, twin = made(MODULES[name]), made(MODULES[name])
    call = jax_callable(lambda x: module(x))
    want = twin(torch.from_numpy(X)).detach().numpy()
    assert_equal(np.asarray(jax.jit(call)(X)), want)
    twin(torch.from_numpy(X))  # statistics
    assert_equal(np.asarray(call(X)), made(MODULES[name])(torch.from_numpy(X)).detach().numpy())
    gradient = jax.grad(lambda x: (call(x) ** 2).sum())(jnp.asarray(X))
    x = torch.from_numpy(X.copy()).requires_grad_()
    (made(MODULES[name])(x) ** 2).sum().backward()
    assert_close(gradient, x.grad.numpy(), scale=float(abs(x.grad).max()))


def recorded(function):
    """The function, and how many tensors autograd saved in its runs."""
    saved = queue.SimpleQueue()

    def pack(tensor):
        if type(tensor) is torch.Tensor:
            saved.put(1)
        return tensor.detach()

    def wrapped(x):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return function(x)

    return wrapped, saved


def weight():
    return torch.linspace(-1, 1, 8).requires_grad_()


def in_layers():
    layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    return lambda x: layers(x).sin()


def of_a_tensor():
    held = weight()
    return lambda x: (x * held).sin().sum()


def where_asked_whether_gradients_are_on():
    held = weight()
    return lambda x: (x * held).sin() if torch.is_grad_enabled() else x


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "make", [in_layers, of_a_tensor, where_asked_whether_gradients_are_on], ids=lambda f: f.__name__
)
def test_nothing_is_recorded(make, jit):
    function, saved = recorded(made(make))
    call = jax_callable(function)
    found = jax.block_until_ready((jax.jit(call) if jit else call)(X))
    assert saved.qsize() == 0
    assert_equal(np.asarray(found), made(make)(torch.from_numpy(X)).detach().numpy())
    jax.block_until_ready(jax.grad(lambda x: call(x).sum())(jnp.asarray(X)))
    assert saved.qsize() > 0


# --- where somebody could see it ------------------------------------------------------------------


def asks_for_a_flag(x, held):
    y = x * held
    return y * 2 if y.requires_grad else y


def asks_for_a_node(x, held):
    y = x * held
    return y * 2 if y.grad_fn is not None else y


def asks_whether_it_is_a_leaf(x, held):
    y = x * held
    return y if y.is_leaf else y * 2


def goes_back(x, held):
    return x * torch.autograd.grad((held**3).sum(), held)[0]


def goes_back_with_a_graph(x, held):
    (first,) = torch.autograd.grad((x * held**3).sum(), held, create_graph=True)
    return x * torch.autograd.grad(first.sum(), held)[0]


def accumulates(x, held):
    leaf = held.detach().clone().requires_grad_()
    (leaf**3).sum().backward()
    return x * leaf.grad


def transforms(x, held):
    return x * torch.func.grad(lambda w: (w**3).sum())(held)


def transforms_forwards(x, held):
    return x * torch.func.jvp(lambda w: w**3, (held,), (held,))[1]


def by_dual_numbers(x, held):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(held, torch.ones_like(held))
        return x * torch.autograd.forward_ad.unpack_dual(dual**3).tangent


def hessian(x, held):
    return x * torch.func.hessian(lambda w: (w**3).sum())(held).sum(0)


def batch_of_gradients(x, held):
    return x * torch.func.vmap(torch.func.grad(lambda w: w**3))(held)


def by_functional(x, held):
    return x * torch.autograd.functional.jacobian(lambda w: (w**3).sum(), held)


def trains(x, held):
    free = nn.Parameter(held.detach().clone())
    optimizer = torch.optim.SGD([free], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        ((free - 1) ** 2).sum().backward()
        optimizer.step()
    return x * free * held


def hooks(x, held):
    y = x * held
    seen = []
    y.register_hook(seen.append)
    y.sum().backward(inputs=[held], retain_graph=True)
    held.grad = None
    return y * seen[0]


# Torch's forward mode compiles its formulas.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "function",
    [
        *(asks_for_a_flag, asks_for_a_node, asks_whether_it_is_a_leaf, goes_back),
        *(goes_back_with_a_graph, accumulates, transforms, transforms_forwards, by_dual_numbers),
        *(hessian, batch_of_gradients, by_functional, trains, hooks),
    ],
    ids=lambda function: function.__name__,
)
def test_what_asks_is_answered_as_ever(function, jit):
    held = weight()
    call = jax_callable(lambda x: function(x, held))
    want = function(torch.from_numpy(X), weight()).detach().numpy()
    assert_close((jax.jit(call) if jit else call)(X), want)


def test_what_is_left_somewhere_can_be_gone_back_from():
    held, kept = weight(), []

    def function(x):
        kept[:] = [(held**2).sum()]
        return x + kept[0]

    jax.block_until_ready(jax_callable(function)(X))
    kept[0].backward()
    assert_close(held.grad, 2 * weight())


def test_a_write_to_a_weight_is_refused_as_ever():
    held = weight()

    def function(x):
        held.add_(1)
        return x * held

    with pytest.raises(Exception, match="leaf Variable that requires grad"):
        jax_callable(function)(X)
