"""The backend ``xla``: torch's own graphs of values and derivatives as JAX operations."""

from __future__ import annotations

import contextlib
import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export
from torch.nn import functional as F

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    DynamicSizeError,
    PlanningError,
    from_module,
    jax_callable,
    t2j,
)

BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])


def normal(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def as_torch(*arrays):
    return [torch.from_numpy(np.array(array)) for array in arrays]


class Hundred(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 100


def without_grad(x):
    with torch.no_grad():
        y = x * 3
    return x * y


ZERO_ROW = np.array([[0.0, 0.0, 0.0], [1.0, -1.0, 1.0]], np.float32)
# Where JAX's derivative of the same values is another one; see each.
EDGES = {
    "autograd.Function": (lambda x: Hundred.apply(x), [1.0, -2.0]),
    "detach": (lambda x: x.detach() * x, [1.0, -2.0]),
    "no_grad": (without_grad, [1.0, -2.0]),
    "clamp": (lambda x: x.clamp(0.0, 1.0), [0.0, 1.0, 0.5, 2.0]),
    "abs": (lambda x: x.abs(), [0.0, -1.0]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), [0.0, -1.0, 1.0]),
    "relu": (lambda x: F.relu(x), [0.0, -1.0, 1.0]),
    "hardtanh": (lambda x: F.hardtanh(x), [-1.0, 1.0, 0.5]),
    "norm": (lambda x: x.norm(), [0.0, 0.0]),
    "norm of rows": (lambda x: x.norm(dim=1), ZERO_ROW),
    "std": (lambda x: x.std(dim=1), [[1.0, 1.0], [1.0, 2.0]]),
    "max of ties": (lambda x: x.max(dim=1).values, [[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]]),
    "amax of ties": (lambda x: x.amax(dim=1), [[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]]),
    "maximum": (lambda x: torch.maximum(x, x.detach()), [1.0, 2.0]),
    "sort": (lambda x: x.sort(descending=True).values[:2], [1.0, 3.0, 3.0, 2.0]),
    "max_pool": (lambda x: F.max_pool2d(x[None, None], 2), [[1.0, 1.0], [1.0, 0.0]]),
    "prod with a zero": (lambda x: x.prod(), [0.0, 2.0, 3.0]),
    "pow": (lambda x: x**2, [0.0, 3.0]),
    "amax with a NaN": (lambda x: x.amax(dim=1), [[np.nan, 1.0], [2.0, 2.0]]),
    "a mask of infinities": (lambda x: x * (x < 2.0), [np.inf, 1.0, np.nan, -np.inf]),
    "where with a NaN": (lambda x: torch.where(x > 0, x.sqrt(), 0.0), [4.0, -1.0]),
}


@BOTH
@pytest.mark.parametrize("name", EDGES)
def test_gradients_are_torchs_at_edges(name, jit):
    function, values = EDGES[name]
    x = np.asarray(values, np.float32)
    given = torch.from_numpy(x.copy()).requires_grad_()
    result = function(given)
    (want,) = torch.autograd.grad(result.sum(), given)
    call = jax_callable(function, backend="xla")
    assert_close(jit(call)(x), t2j(result))
    assert_close(jit(jax.grad(lambda x: call(x).sum()))(x), t2j(want))


def test_gradients_with_inner_writes():
    def function(x):
        y = torch.zeros_like(x)
        for row in range(3):
            y[row] = x[row - 1].sin() + x[row]
            y[row].mul_(2)
        return y.cumsum(0)

    call, plain = jax_callable(function, backend="xla"), jax_callable(function)
    x = normal(3, 4)
    assert_close(call(x), plain(x))
    for transform in (jax.grad, jax.hessian):
        found, want = (transform(lambda x, f=f: f(x).sum())(x) for f in (call, plain))
        assert_close(found, want)


def writing(x, y):
    x.add_(y)
    x[0] = 7
    return x.sum()


@BOTH
def test_writes_to_arguments(jit):
    call, plain = (jax_callable(writing, mutates=("x",), backend=b) for b in ("xla", "eager"))
    x, y = normal(3), normal(3, seed=1)
    assert_close(jit(call)(x, y), plain(x, y))
    slopes = [jax.grad(lambda *a, f=f: f(*a)[1].sum(), argnums=(0, 1)) for f in (call, plain)]
    assert_close(jit(slopes[0])(x, y), slopes[1](x, y))
    donated = jnp.ones(10_000)
    place = donated.unsafe_buffer_pointer()
    _, new = jax.jit(call, donate_argnums=0)(donated, jnp.ones(10_000))
    assert donated.is_deleted()
    assert new.unsafe_buffer_pointer() == place


def layer(x, w):
    return F.gelu(F.layer_norm(x, x.shape[-1:]) @ w).softmax(-1).sum(0)


TRANSFORMS = {
    "value": lambda f: lambda x, w: f(x, w),
    "grad": lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum(), argnums=(0, 1)),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (w.T @ w[:, :1] * x, w)),
    "jacfwd": lambda f: jax.jacfwd(f),
    "jacrev": lambda f: jax.jacrev(f, argnums=1),
    "hessian": lambda f: jax.hessian(lambda x, w: (f(x, w) ** 2).sum()),
    "vmap": lambda f: jax.vmap(f, in_axes=(None, 0), out_axes=1),
    "vmap of grad": lambda f: jax.vmap(
        jax.grad(lambda x, w: (f(x, w) ** 2).sum()), in_axes=(None, 0)
    ),
    "linearize": lambda f: lambda x, w: jax.linearize(f, x, w)[1](x, w),
    "scan": lambda f: (
        lambda x, w: jax.lax.scan(
            lambda total, row: (total + f(row[None], w), total.sum()), jnp.zeros(w.shape[-1]), x
        )
    ),
    "checkpoint": lambda f: jax.grad(lambda x, w: (jax.checkpoint(f)(x, w) ** 2).sum()),
}


@BOTH
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformations(name, jit):
    x, w = normal(5, 4), normal(4, 4, seed=1)
    if name.startswith("vmap"):
        w = normal(3, 4, 4, seed=2)
    transform = TRANSFORMS[name]
    if name == "jvp":
        transform = lambda f: lambda x, w: jax.jvp(f, (x, w), (x * 2, w))  # noqa: E731
    found = jit(transform(jax_callable(layer, backend="xla")))(x, w)
    assert_close(found, jit(transform(jax_callable(layer)))(x, w))


@BOTH
@pytest.mark.parametrize("function", [lambda x: x.pow(2).mean() / 2, lambda x: x.sum() * 2 + 1])
def test_batches_of_numbers(function, jit):
    """In their graphs torch has Python numbers in the places of arrays."""
    call, plain, x = jax_callable(function, backend="xla"), jax_callable(function), normal(3, 4)
    for transform in (jax.vmap, jax.hessian, lambda f: jax.vmap(jax.grad(f))):
        assert_close(jit(transform(call))(x), transform(plain)(x))


def test_torch_does_not_run():
    call = jax_callable(layer, backend="xla")
    x, w = normal(5, 4), normal(4, 4, seed=1)
    step = jax.value_and_grad(lambda *a: (call(*a) ** 2).sum(), argnums=(0, 1))
    assert "custom_call" not in jax.jit(step).lower(x, w).as_text()
    text = jax.jit(jax.vmap(step, in_axes=(0, None))).lower(x[:, None], w).as_text()
    assert "custom_call" not in text


def test_the_backward_has_no_second_forward():
    """XLA finds the forward's products among the backward's: three in all, and not four."""

    def product(x, w):
        return torch.tanh(x @ w)

    call = jax_callable(product, backend="xla")
    step = jax.jit(jax.value_and_grad(lambda *a: (call(*a) ** 2).sum(), argnums=(0, 1)))
    x, w = normal(64, 64), normal(64, 64, seed=1)
    compiled = step.lower(x, w).compile()
    flops = compiled.cost_analysis()["flops"]
    assert flops < 3.5 * 2 * 64**3


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.SiLU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)
        )

    def forward(self, x):
        return F.log_softmax(self.layers(x), -1)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.second = torch.nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.skip = torch.nn.Conv2d(2, 4, 1, stride=2)
        self.up = torch.nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x):
        y = F.relu(self.norm(self.first(x)))
        y = F.max_pool2d(F.relu(self.second(y) + self.skip(x)), 2, ceil_mode=True)
        return F.avg_pool2d(self.up(y), 3, padding=1, count_include_pad=False)


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x)


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.LSTM(4, 5, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


MODULES = {
    "mlp": (Mlp, (5, 6)),
    "block": (Block, (2, 2, 8, 8)),
    "attention": (Attention, (2, 5, 8)),
    "lstm": (Recurrent, (2, 6, 4)),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_modules(name, train):
    kind, shape = MODULES[name]
    torch.manual_seed(0)
    module = kind().train(train)
    # Copies, as the module is run by torch while a program may still be reading its buffers.
    taken = from_module(module, names="flat", backend="xla", copy=True)
    x = normal(*shape)
    # No plain sum: that of what is normalised is the same everywhere.
    weights = normal(*copy.deepcopy(module)(as_torch(x)[0]).shape, seed=3)

    def loss(params, x):
        result, buffers = taken.apply(params, x, buffers=taken.buffers)
        return (result * weights).sum(), (result, buffers)

    step = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    assert "custom_call" not in step.lower(taken.params, x).as_text()
    (by_params, by_x), (result, buffers) = step(taken.params, x)
    given = as_torch(x)[0].requires_grad_()
    want = module(given)
    (want * as_torch(weights)[0]).sum().backward()
    assert_close(result, t2j(want))
    wanted = {name: t2j(tensor.grad) for name, tensor in module.named_parameters()}
    # Gradients that cancel, as those of a bias before a norm, are what is left of others.
    greatest = max(float(jnp.abs(one).max()) for one in wanted.values())
    assert_close((by_params, by_x), (wanted, t2j(given.grad)), scale=greatest)
    for buffer, tensor in module.named_buffers():
        assert_close(buffers[buffer], t2j(tensor))


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
def test_programs_for_other_platforms(platform):
    call = jax_callable(layer, backend="xla")
    step = jax.jit(jax.grad(lambda *a: (call(*a) ** 2).sum()))
    x, w = normal(5, 4), normal(4, 4, seed=1)
    program = export.export(step, platforms=[platform])(x, w)
    assert "custom_call" not in program.mlir_module()


def test_torch_itself_is_not_for_a_tpu():
    call = jax.jit(jax_callable(layer))
    with pytest.raises(PlanningError, match="backend='xla'"):
        export.export(call, platforms=["tpu"])(normal(5, 4), normal(4, 4))


def test_a_program_runs_where_there_is_no_torch(tmp_path, run_python):
    call = jax_callable(layer, backend="xla")
    step = jax.jit(jax.value_and_grad(lambda *a: (call(*a) ** 2).sum()))
    x, w = normal(5, 4), normal(4, 4, seed=1)
    path = tmp_path / "program"
    path.write_bytes(export.export(step)(x, w).serialize())
    out = run_python(
        "import sys\n"
        "sys.modules['torch'] = sys.modules['jaxtorch_bridge'] = None\n"
        "import jax, jax.numpy as jnp\n"
        f"program = jax.export.deserialize(open({str(path)!r}, 'rb').read())\n"
        f"x, w = jnp.asarray({np.asarray(x).tolist()}), jnp.asarray({np.asarray(w).tolist()})\n"
        "value, slope = program.call(x, w)\n"
        "print(float(value), float(slope.sum()))\n"
    )
    value, slope = step(x, w)
    found = np.asarray([float(word) for word in out.split()], np.float32)
    assert_close(found, jnp.stack([value, slope.sum()]))


class TestDtypes:
    def test_wide_integers_inside(self):
        # JAX holds int32, torch computes in int64, and so does the program.
        call = jax_callable(lambda i: i.long() * 3_000_000_000 // 1_000_000_000, backend="xla")
        x = jnp.asarray([1, 2, -3], jnp.int32)
        assert_equal(call(x), jnp.asarray([3, 6, -9], jnp.int32))

    def test_double_inside(self):
        def function(x):
            return ((x.double() + 1e-12) - x.double()).float() * 1e12

        x = normal(4)
        assert_close(jax_callable(function, backend="xla")(x), jax_callable(function)(x))

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
    def test_narrow_floats(self, dtype):
        x, w = normal(5, 8, dtype=dtype), normal(8, 8, seed=1, dtype=dtype)
        found, want = (jax_callable(layer, backend=one)(x, w) for one in ("xla", "graph"))
        assert found.dtype == dtype
        assert_close(found, want)


class TestRefusals:
    @BOTH
    def test_sizes_that_follow_from_values(self, jit):
        call = jit(jax_callable(lambda x: x[x > 0], backend="xla"))
        for _ in range(2):
            with pytest.raises(DynamicSizeError, match=r"follows from values.*: say `eager`"):
                call(normal(3))

    def test_what_looks_at_values(self):
        call = jax_callable(lambda x: x * 2 if x.sum() > 0 else x, backend="xla")
        with pytest.raises(PlanningError, match=r"backend: xla.*could not be evaluated"):
            call(normal(3))

    def test_a_word_that_is_none(self):
        with pytest.raises(ArgumentError, match="backend as one of eager, compile, graph, xla"):
            jax_callable(layer, backend="tpu")


class TestContracts:
    SPEC = {
        "schema": "jaxtorch/1",
        "name": "layer",
        "version": "1.0.0",
        "inputs": {"x": "float32[n, d]", "w": "float32[d, d]"},
        "outputs": {"y": "float32[d]"},
    }

    @pytest.mark.parametrize("by", ["contract", "keyword"])
    def test_either_says_it(self, by):
        execution = {"execution": {"backend": "xla"}} if by == "contract" else {}
        keyword = {"backend": "xla"} if by == "keyword" else {}
        call = jax_callable(layer, spec={**self.SPEC, **execution}, **keyword)
        x, w = normal(5, 4), normal(4, 4, seed=1)
        assert "custom_call" not in jax.jit(call).lower(x, w).as_text()
        assert "backend      xla" in call.explain(x, w)
        assert "tape: one run" not in call.explain(x, w)

    def test_not_two_things(self):
        with pytest.raises(ArgumentError, match=r"backend='xla' was passed.*`backend: graph`"):
            jax_callable(
                layer, spec={**self.SPEC, "execution": {"backend": "graph"}}, backend="xla"
            )

    @pytest.mark.parametrize("backend", ["eager", "graph", "compile"])
    def test_the_others_by_keyword(self, backend):
        call = jax_callable(layer, backend=backend)
        x, w = normal(5, 4), normal(4, 4, seed=1)
        with contextlib.nullcontext():
            assert_close(call(x, w), jax_callable(layer)(x, w))
        words = f"backend      {backend}"
        assert (words in call.explain(x, w)) == (backend != "eager")
