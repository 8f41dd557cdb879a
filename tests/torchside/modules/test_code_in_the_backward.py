"""Modules whose code runs again when gradients are taken: checkpoints, custom functions, hooks.

By then the call has ended, and others may have run with other parameters.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from comparing import assert_close, assert_equal
from jaxtorch_bridge import BridgeWarning, DifferentiationError, from_module, jax_callable, t2j
from jaxtorch_bridge.torchside.modules.skeleton import Template

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
    pytest.mark.filterwarnings("ignore:.*found abstractly"),
    pytest.mark.filterwarnings("ignore:.*assigns to"),
]
BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
SIZE = 4


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(SIZE, SIZE), torch.nn.Linear(SIZE, SIZE)
        self.register_buffer("shift", torch.linspace(0.1, 0.4, SIZE))
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, SIZE))

    def inner(self, x):
        return torch.tanh(self.first(x) * self.scale + self.shift)


class Checkpointed(Layers):
    reentrant = False

    def forward(self, x):
        y = checkpoint(self.inner, x * 1.5, use_reentrant=self.reentrant)
        return checkpoint(lambda z: self.second(z).sin(), y, use_reentrant=self.reentrant)


class CheckpointedReentrantly(Checkpointed):
    reentrant = True


class LooksAtValues(Checkpointed):
    def forward(self, x):
        return super().forward(x) * (2.0 if float(x.detach().sum()) > 100 else 1.0)


class LooksAtValuesReentrantly(LooksAtValues):
    reentrant = True


class Runs(torch.autograd.Function):
    """A backward that runs a layer, which `ctx` holds."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(ctx.layer(x), x, cotangent)[0], None


class WithFunction(Layers):
    def forward(self, x):
        return self.second(Runs.apply(self.inner(x), self.first))


class WithTensorHook(Layers):
    def forward(self, x):
        y = self.inner(x)
        if y.requires_grad:
            y.register_hook(lambda cotangent: cotangent * self.scale.detach())
        return self.second(y)


class WithTable(Layers):
    """What the backward needs is reached by a table of the module, and not by the module."""

    def forward(self, x):
        tables = self.first.__dict__["_parameters"] if "weight" in vars(self.first) else None
        table = self.first._parameters if tables is None else tables
        y = checkpoint(
            lambda z: torch.nn.functional.linear(z, table["weight"]).tanh(), x, use_reentrant=False
        )
        return self.second(y)


class SetsAFlag(Layers):
    """The backward is to see the flag of its own call, which is put back behind it."""

    reentrant = False

    def __init__(self):
        super().__init__()
        self._fast, self.factor = False, 1.0

    def inner(self, x):
        y = self.first(x) * self.factor
        return y.tanh() if self._fast else y.sigmoid()

    def forward(self, x):
        self._fast, self.factor = x.shape[0] < 3, 3.0
        return self.second(checkpoint(self.inner, x * 1.0, use_reentrant=self.reentrant))


class SetsAFlagReentrantly(SetsAFlag):
    reentrant = True


class ByAnAttribute(Layers):
    """What runs again is reached by a method that the module keeps."""

    def __init__(self):
        super().__init__()
        self.run = self.inner
        self.parts = [self.second]

    def forward(self, x):
        y = checkpoint(self.run, x * 1.0, use_reentrant=False)
        parts = self.parts
        return checkpoint(lambda z: parts[0](z), y, use_reentrant=False)


class ByAWeakReference(Layers):
    def forward(self, x):
        this = weakref.ref(self)
        return self.second(checkpoint(lambda z: this().inner(z), x * 1.0, use_reentrant=False))


class Helper:
    def __init__(self, layer):
        self.layer = layer


class ByAnObject(Layers):
    def __init__(self):
        super().__init__()
        self.helper = Helper(self.first)

    def forward(self, x):
        helper = self.helper
        return self.second(checkpoint(lambda z: helper.layer(z), x * 1.0, use_reentrant=False))


class RefersToNoLayer(Layers):
    def forward(self, x):
        return self.second(checkpoint(torch.sin, self.inner(x), use_reentrant=True))


MODULES = [
    Checkpointed,
    CheckpointedReentrantly,
    LooksAtValues,
    LooksAtValuesReentrantly,
    WithFunction,
    WithTensorHook,
    WithTable,
    SetsAFlag,
    SetsAFlagReentrantly,
    ByAnAttribute,
    ByAWeakReference,
    ByAnObject,
    RefersToNoLayer,
]
ALL = pytest.mark.parametrize("kind", MODULES)


def made(kind):
    torch.manual_seed(0)
    module = kind()
    rng = np.random.default_rng(1)
    points = [
        {
            name: jnp.asarray(rng.standard_normal(tensor.shape) * 0.5, jnp.float32)
            for name, tensor in module.named_parameters()
        }
        for _ in range(3)
    ]
    xs = [jnp.asarray(rng.standard_normal((2, SIZE)), jnp.float32) for _ in range(3)]
    return module, from_module(module, names="flat"), points, xs


def torch_gradients(module, params, x):
    """Gradients of the sum of squares, by parameters and input."""
    own = copy.deepcopy(module)
    with torch.no_grad():
        for name, tensor in own.named_parameters():
            tensor.copy_(torch.from_numpy(np.array(params[name])))
    x = torch.from_numpy(np.array(x)).requires_grad_()
    (own(x) ** 2).sum().backward()
    grads = {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        for name, tensor in own.named_parameters()
    }
    return {name: t2j(grad) for name, grad in grads.items()}, t2j(x.grad)


@BOTH
@ALL
def test_gradients(kind, jit):
    module, taken, points, xs = made(kind)
    grad = jit(jax.grad(lambda p, x: (taken.apply(p, x) ** 2).sum(), argnums=(0, 1)))
    for params, x in zip(points, xs, strict=True):
        for found, want in zip(grad(params, x), torch_gradients(module, params, x), strict=True):
            assert_close(found, want)
    # What was taken from is not touched.
    assert all(tensor.grad is None for tensor in module.parameters())


@ALL
def test_others_run_before_the_backward(kind):
    module, taken, points, xs = made(kind)
    pulls = [
        jax.vjp(lambda p, x: taken.apply(p, x), params, x)
        for params, x in zip(points, xs, strict=True)
    ]
    for index in (2, 0, 1):
        result, pull = pulls[index]
        # Another call between them, in the free skeletons.
        taken.apply(points[(index + 1) % 3], xs[index])
        for found, want in zip(
            pull(2 * result), torch_gradients(module, points[index], xs[index]), strict=True
        ):
            assert_close(found, want)


@ALL
def test_several_in_one_program(kind):
    module, taken, points, xs = made(kind)

    @jax.jit
    def loss(points, xs):
        return sum(
            (taken.apply(params, x) ** 2).sum() for params, x in zip(points, xs, strict=True)
        )

    found = jax.grad(loss, argnums=(0, 1))(points, xs)
    for index in range(3):
        params, x = torch_gradients(module, points[index], xs[index])
        assert_close(found[0][index], params)
        assert_close(found[1][index], x)


@ALL
def test_in_a_scan(kind):
    module, taken, points, xs = made(kind)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)

    def loss(stacked, xs):
        def step(total, pair):
            params, x = pair
            return total + (taken.apply(params, x) ** 2).sum(), None

        return jax.lax.scan(step, 0.0, (stacked, xs))[0]

    found = jax.jit(jax.grad(loss, argnums=(0, 1)))(stacked, jnp.stack(xs))
    for index in range(3):
        params, x = torch_gradients(module, points[index], xs[index])
        assert_close(jax.tree.map(lambda leaf, index=index: leaf[index], found[0]), params)
        assert_close(found[1][index], x)


@BOTH
@ALL
def test_jacobians(kind, jit):
    module, taken, points, xs = made(kind)
    params, x = points[0], xs[0]
    jacobians = jit(jax.jacrev(taken.apply, argnums=(0, 1)))(params, x)
    result = taken.apply(params, x)
    found = jax.tree.map(lambda j: jnp.tensordot(2 * result, j, axes=result.ndim), jacobians)
    for one, want in zip(found, torch_gradients(module, params, x), strict=True):
        assert_close(one, want)


@pytest.mark.parametrize("kind", [Checkpointed, CheckpointedReentrantly, LooksAtValues])
def test_second_derivatives(kind):
    module, taken, points, xs = made(kind)

    def slope(x):
        return jnp.sum(jax.grad(lambda x: (taken.apply(points[0], x) ** 2).sum())(x) ** 2)

    own = copy.deepcopy(module)
    own.reentrant = False  # which torch has no second derivatives of
    with torch.no_grad():
        for name, tensor in own.named_parameters():
            tensor.copy_(torch.from_numpy(np.array(points[0][name])))
    x = torch.from_numpy(np.array(xs[0])).requires_grad_()
    (first,) = torch.autograd.grad((own(x) ** 2).sum(), x, create_graph=True)
    (want,) = torch.autograd.grad((first**2).sum(), x)
    assert_close(jax.grad(slope)(xs[0]), t2j(want))


@BOTH
def test_a_grad_of_the_users_stays_what_it_is(jit):
    layer = torch.nn.Linear(3, 3)
    held = [layer]
    layer.weight.grad = kept = torch.full((3, 3), 7.0)
    # The second use adds to the same `grad`.
    call = jax_callable(
        lambda x: checkpoint(lambda y: held[0](y).sin() * x, x, use_reentrant=True) + held[0](x)
    )
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found = jit(jax.grad(lambda x: call(x).sum()))(t2j(x))
    assert layer.weight.grad is kept
    assert float(kept.min()) == float(kept.max()) == 7.0
    assert layer.bias.grad is None
    x = x.requires_grad_()
    (checkpoint(lambda y: layer(y).sin() * x, x, use_reentrant=True) + layer(x)).sum().backward()
    assert_close(found, t2j(x.grad))


@pytest.mark.parametrize("form", [False, True], ids=["not", "reentrant"])
def test_the_runs_are_counted(form):
    runs = []

    class Counted(Checkpointed):
        reentrant = form

        def inner(self, x):
            runs.append(type(x))
            return super().inner(x)

    _, taken, points, xs = made(Counted)
    grad = jax.jit(jax.grad(lambda p, x: (taken.apply(p, x) ** 2).sum(), argnums=(0, 1)))
    for _ in range(3):
        grad(points[0], xs[0])
    runs.clear()
    grad(points[1], xs[1])
    # The forward; in the backward's own call another, and torch's own repeat.
    assert len(runs) == 3


@BOTH
@pytest.mark.parametrize("form", [False, True], ids=["not", "reentrant"])
def test_what_the_backward_changes_is_put_back(form, jit):
    class Counts(Layers):
        def __init__(self):
            super().__init__()
            self.calls, self._seen = 0, []

        def inner(self, x):
            self.calls += 1
            self._seen.append(1)
            return super().inner(x)

        def forward(self, x):
            y = checkpoint(self.inner, x * 1.0, use_reentrant=form)
            return self.second(y) * (1.0 + self.calls + len(self._seen))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BridgeWarning)
        _, taken, points, xs = made(Counts)
        step = jit(jax.value_and_grad(lambda p: (taken.apply(p, xs[0]) ** 2).sum()))
        found = [step(points[0]) for _ in range(4)]
        assert_close(taken.apply(points[0], xs[0]), jit(taken.apply)(points[0], xs[0]))
    for again in found[1:]:
        assert_equal(again, found[0])


@BOTH
@pytest.mark.parametrize("form", [False, True], ids=["not", "reentrant"])
def test_a_buffer_that_is_assigned(form, jit):
    class Assigns(Layers):
        def forward(self, x):
            self.shift = self.shift * 3
            return self.second(checkpoint(self.inner, x * 1.0, use_reentrant=form))

    module, taken, points, xs = made(Assigns)

    def loss(params, x):
        result, buffers = taken.apply(params, x, buffers=taken.buffers)
        return (result**2).sum(), buffers

    for _ in range(2):
        found, buffers = jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(points[0], xs[0])
        for one, want in zip(found, torch_gradients(module, points[0], xs[0]), strict=True):
            assert_close(one, want)
        assert_close(buffers["shift"], t2j(module.shift * 3))


@BOTH
def test_gradients_by_some_parameters(jit):
    # The reentrant form of torch gives none where no input of the checkpoint requires grad.
    module, taken, points, xs = made(CheckpointedReentrantly)
    names = ("second.weight", "second.bias")

    def loss(some):
        return (taken.apply({**points[0], **some}, xs[0]) ** 2).sum()

    found = jit(jax.grad(loss))({name: points[0][name] for name in names})
    want, _ = torch_gradients(module, points[0], xs[0])
    assert_close(found, {name: want[name] for name in names})


def test_no_skeleton_for_each_tape_that_waits():
    _, taken, points, xs = made(Checkpointed)
    copies = []
    plain = Template.skeleton
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Template, "skeleton", lambda *a: copies.append(1) or plain(*a))
        pulls = [jax.vjp(taken.apply, points[0], xs[0])[1] for _ in range(20)]
        for pull in pulls:
            pull(jnp.ones((2, SIZE)))
    assert len(copies) <= 3


def test_two_threads_with_other_parameters():
    module, taken, points, xs = made(ByAnAttribute)
    grad = jax.grad(lambda p, x: (taken.apply(p, x) ** 2).sum())
    want = [torch_gradients(module, p, x)[0] for p, x in zip(points, xs, strict=True)]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            for found, right in zip(pool.map(grad, points, xs), want, strict=True):
                assert_close(found, right)


@pytest.mark.needs_tapes
def test_what_stays_from_a_first_run_takes_no_tape():
    seen = []

    class Registers(Layers):
        def forward(self, x):
            if not any(one is self for one in seen):
                seen.append(self)
            return self.second(self.inner(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BridgeWarning)
        module, taken, points, xs = made(Registers)
        for params, x in zip(points, xs, strict=True):
            found = jax.grad(lambda p, x=x: (taken.apply(p, x) ** 2).sum())(params)
            assert_close(found, torch_gradients(module, params, x)[0])
    assert "tape: the function runs once" in taken.explain(points[0], xs[0])


@pytest.mark.needs_tapes
def test_a_refusal_takes_no_tape():
    class Energy(Layers):
        def forward(self, x):
            with torch.enable_grad():
                y = x.detach().requires_grad_()
                (forces,) = torch.autograd.grad(self.inner(y).sum(), y)
            return self.inner(x).sum(), forces

    _, taken, points, xs = made(Energy)
    with pytest.raises(DifferentiationError):
        jax.grad(lambda x: taken.apply(points[0], x)[1].sum())(xs[0])
    jax.grad(lambda x: taken.apply(points[0], x)[0])(xs[0])
    assert "runs layers" not in taken.explain(points[0], xs[0])


def test_reentrant_checkpoints_in_jax_checkpoint():
    module, taken, points, xs = made(CheckpointedReentrantly)
    found = jax.grad(lambda p: (jax.checkpoint(taken.apply)(p, xs[0]) ** 2).sum())(points[0])
    assert_close(found, torch_gradients(module, points[0], xs[0])[0])


def test_torch_alone_keeps_its_reentrant_form():
    x = torch.ones(2, requires_grad=True)
    jax.grad(lambda x: jax_callable(torch.sin)(x).sum())(jnp.ones(2))
    result = checkpoint(torch.sin, x, use_reentrant=True)
    assert type(result.grad_fn).__name__ == "CheckpointFunctionBackward"
    result.sum().backward()
    assert_close(t2j(x.grad), jnp.cos(jnp.ones(2)))
