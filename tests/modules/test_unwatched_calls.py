"""Modules that look at values: no mode of torch's in the steady state, and nothing is missed."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import BridgeWarning, ModuleError, from_module, settings
from jaxtorch_bridge.torchside.modules import module_call

X = jnp.asarray(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))


@pytest.fixture
def modes(monkeypatch):
    """The modes of torch's that calls were under."""
    found = []

    class Watch(module_call.OperationWatch):
        def __init__(self, *args):
            super().__init__(*args)
            found.append(self)

    monkeypatch.setattr(module_call, "OperationWatch", Watch)
    return found


class Looking(torch.nn.Module):
    """Looks at values, and from its sixth call on does what it is told."""

    def __init__(self, late=lambda self, x: None):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(()))
        self.notes = {"kept": 1}
        self.calls = [0]
        self.late = late

    def forward(self, x):
        if float(x.detach().sum()) < -1e9:
            raise ValueError
        # A list in a list, which torch's abstract runs and the bridge leave alone.
        _CALLS[0] += 1
        if _CALLS[0] > 5:
            self.late(self, x)
        return self.layer(x).tanh()


_CALLS = [0]


@pytest.fixture(autouse=True)
def calls():
    _CALLS[0] = 0


def run(net, times, **options):
    for _ in range(times):
        found = net.apply(net.params, X, **options)
    return found


def test_runs_are_watched_ever_more_rarely(modes):
    net = from_module(Looking())
    run(net, 8)
    before = len(modes)
    run(net, 7)
    assert len(modes) == before
    run(net, 1)
    assert len(modes) == before + 1


def test_all_can_be_watched(modes, monkeypatch):
    monkeypatch.setattr(settings, "watch_every_call", True)
    net = from_module(Looking())
    run(net, 12)
    assert len(modes) >= 12


def test_a_buffer_that_a_later_call_writes_to(modes):
    def late(self, x):
        self.count.add_(1)

    net = from_module(Looking(late))
    with pytest.raises(ModuleError, match="changes the buffers `count`"):
        run(net, 12)


def test_a_buffer_that_comes_back_from_a_later_call():
    def late(self, x):
        self.count.add_(1)

    net = from_module(Looking(late))
    buffers = net.buffers
    wanted = 0
    for _ in range(12):
        _, buffers = net.apply(net.params, X, buffers=buffers)
        wanted += _CALLS[0] > 5
        assert float(buffers["count"]) == wanted
    assert wanted > 3


def test_a_buffer_that_a_later_call_replaces():
    def late(self, x):
        self.count = self.count + 1

    net = from_module(Looking(late))
    with pytest.raises(ModuleError, match="changes the buffers `count`"):
        run(net, 12)


def test_a_parameter_that_a_later_call_writes_to():
    def late(self, x):
        with torch.no_grad():
            self.layer.weight.mul_(2)

    net = from_module(Looking(late))
    with pytest.raises(ModuleError, match=r"writes to `layer\.weight`"):
        run(net, 12)


@pytest.mark.parametrize(
    "late",
    [
        lambda self, x: setattr(self, "seen", _CALLS[0]),
        lambda self, x: self.notes.update(kept=self.notes["kept"] + 1),
    ],
    ids=["attribute", "entry"],
)
def test_state_that_a_later_call_leaves_is_put_back_and_told(late):
    module = Looking(late)
    net = from_module(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(net, 30)
    told = [one for one in caught if "put back after every call" in str(one.message)]
    assert len(told) == 1
    assert issubclass(told[0].category, BridgeWarning)
    assert module.notes == {"kept": 1}
    assert not hasattr(module, "seen")


def test_a_later_call_sees_nothing_of_those_before():
    seen = []

    def late(self, x):
        seen.append(self.notes["kept"])
        self.notes["kept"] += 1

    net = from_module(Looking(late))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(net, 30)
    assert set(seen) == {1}


def test_gradients_in_later_runs():
    module = Looking()
    net = from_module(module, copy=True)
    call = jax.jit(jax.grad(lambda params: (net.apply(params, X) ** 2).sum()))
    net.apply(net.params, X)
    loss = (module(torch.tensor(np.asarray(X))) ** 2).sum()
    wanted = torch.autograd.grad(loss, list(module.parameters()))
    for _ in range(9):
        found = call(net.params)
        assert_close([found["layer"][name] for name in ("weight", "bias")], list(wanted))
