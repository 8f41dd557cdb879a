"""With ``backend="xla"`` what JAX has no operation for is a call of torch amid the others."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    PlanningError,
    SpecError,
    StaleClosureError,
    from_module,
    jax_callable,
)

BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
# Operators of a library's own, which nobody else can run.
for _schema in ("twice(Tensor x) -> Tensor", "parts(Tensor x) -> (Tensor, Tensor, Tensor)"):
    _name, _, _types = _schema.partition("(")
    torch.library.define(f"jaxtorch_tests::{_name}", f"({_types}")
torch.library.impl("jaxtorch_tests::twice", "CPU", lambda x: x + x)
torch.library.impl("jaxtorch_tests::parts", "CPU", lambda x: (x + 0, x.sum(), x.argsort()))
torch.library.register_fake("jaxtorch_tests::twice", lambda x: torch.empty_like(x + x))
torch.library.register_fake(
    "jaxtorch_tests::parts",
    lambda x: (torch.empty_like(x), x.new_empty(()), torch.empty_like(x, dtype=torch.int64)),
)
torch.library.register_vmap(
    "jaxtorch_tests::twice", lambda info, dims, x: (torch.ops.jaxtorch_tests.twice(x), dims[0])
)
parts = torch.ops.jaxtorch_tests.parts


class Twice(torch.autograd.Function):
    """Its derivative is none of its values'."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.ops.jaxtorch_tests.twice(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 5


def twice(x):
    return Twice.apply(x)


def normal(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def calls_in(function, *arguments):
    return jax.jit(function).lower(*arguments).as_text().count("stablehlo.custom_call")


def between(x):
    return (twice(x.sin()) @ x.T).cos()


class Holds(torch.nn.Module):
    def forward(self, x):
        return between(x)


def eigenvalues(x):
    """Of a symmetric matrix, whose eigenvalues are real."""
    found = torch.linalg.eigvals(x @ x.T + torch.ones(3).diag()).real
    return found.sort().values * x.sum()


TRANSFORMS = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(lambda x: (f(x) ** 2).sum()),
    "hessian": lambda f: jax.hessian(lambda x: (f(x) ** 2).sum()),
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 2 * x])),
    "vmap of grad": lambda f: (
        lambda x: jax.vmap(jax.grad(lambda x: (f(x) ** 2).sum()))(jnp.stack([x, 2 * x]))
    ),
    "jacfwd": lambda f: jax.jacfwd(f),
    "scan": lambda f: (
        lambda x: jax.lax.scan(lambda total, y: (total + f(x * y), y), jnp.zeros(3), x[:, 0])
    ),
    "checkpoint": lambda f: jax.grad(lambda x: jax.checkpoint(f)(x).sum()),
}


@BOTH
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformations(name, jit):
    x, transform = normal(3, 4), TRANSFORMS[name]
    found = jit(transform(jax_callable(eigenvalues, backend="xla")))(x)
    # Eigenvectors divide by differences of eigenvalues.
    assert_close(found, jit(transform(jax_callable(eigenvalues)))(x), factor=10)


def test_tangents():
    def function(x):
        return torch.special.airy_ai(x.detach()) * x.sin()

    x = normal(4)
    plain, call = (jax.jacfwd(jax_callable(function, backend=one)) for one in ("eager", "xla"))
    assert_close(jax.jit(call)(x), plain(x))


def test_its_derivative_is_torchs():
    call = jax_callable(lambda x: twice(x), backend="xla")
    x = normal(3)
    assert_equal(call(x), 2 * x)
    assert_equal(jax.jit(jax.grad(lambda x: call(x).sum()))(x), jnp.full(3, 5.0))


def test_what_follows_each_other_is_one_call():
    assert calls_in(jax_callable(lambda x: twice(twice(twice(x))), backend="xla"), normal(3)) == 1
    assert calls_in(jax_callable(lambda x: twice(twice(x).sin()), backend="xla"), normal(3)) == 2


@BOTH
def test_several_results_inside_and_outside(jit):
    def function(x):
        first, total, order = parts(x)
        _, _, again = parts(first)
        return first * total, order + again, parts(twice(first))[1]

    x = normal(5)
    assert_close(jit(jax_callable(function, backend="xla"))(x), jax_callable(function)(x))


WITH_CONSTANTS = {
    "before": lambda x: twice(x.sin() * torch.tensor([1.0, 10.0, 100.0])),
    "behind": lambda x: twice(x.sin()) * torch.tensor([1.0, 10.0, 100.0]),
    "several": lambda x: twice(x + torch.tensor([1.0, 2.0, 3.0])) * torch.tensor([3, 2, 1]),
    "of indices": lambda x: twice(x[torch.tensor([2, 0])]).repeat_interleave(2),
    "with a closed-over tensor": lambda x: x * torch.tensor([1.0, 2.0, 3.0]) + HELD,
}
HELD = torch.tensor([5.0, 6.0, 7.0])


@BOTH
@pytest.mark.parametrize("name", WITH_CONSTANTS)
def test_beside_constants_of_the_function(name, jit):
    """Whose memory numpy has seen when the graph was read."""
    call, plain = (jax_callable(WITH_CONSTANTS[name], backend=b) for b in ("xla", "eager"))
    x = normal(3)
    for transform in (lambda f: f, lambda f: jax.grad(lambda x: (f(x) ** 2).sum())):
        assert_close(jit(transform(call))(x), transform(plain)(x))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.complex64])
def test_dtypes(dtype):
    x = normal(3, 4).astype(dtype)
    call = jax.jit(jax_callable(lambda x: twice(x.clone()).T, backend="xla"))
    assert_equal(call(x), jax_callable(lambda x: (x + x).T)(x))


def test_wide_integers_between():
    call = jax.jit(jax_callable(lambda x: parts(x)[2] * 3_000_000_000 // 10**9, backend="xla"))
    assert_equal(call(jnp.asarray([3.0, 1.0, 2.0])), jnp.asarray([3, 6, 0], jnp.int32))


def test_empty_results():
    call = jax.jit(jax_callable(lambda x: (twice(x[:0]), x.sum()), backend="xla"))
    assert_equal(call(jnp.ones(3)), (jnp.zeros(0), jnp.asarray(3.0)))


def test_on_several_devices(run_python):
    out = run_python(
        "import jax, jax.numpy as jnp, torch\n"
        "from jax.sharding import PartitionSpec as P\n"
        "from jaxtorch_bridge import jax_callable\n"
        "held = torch.ones(3)\n"
        "call = jax_callable(lambda x: torch.special.airy_ai(x) * held, backend='xla')\n"
        "mesh = jax.make_mesh((4,), ('x',), axis_types=(jax.sharding.AxisType.Auto,))\n"
        "x = jnp.arange(24.0).reshape(8, 3)\n"
        "run = jax.jit(jax.shard_map(call, mesh=mesh, in_specs=P('x'), out_specs=P('x')))\n"
        "print(float(jnp.abs(run(x) - call(x)).max()))\n",
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    )
    assert float(out) < 1e-6


class TestChecks:
    @BOTH
    def test_a_value(self, jit):
        call = jit(jax_callable(lambda x: torch.linalg.inv(x), backend="xla"))
        assert_close(call(2 * jnp.eye(3)), jnp.eye(3) / 2)
        with pytest.raises(Exception, match=r"_LinAlgError.*singular"):
            jax.block_until_ready(call(jnp.zeros((3, 3))))

    def test_beside_a_call_whose_results_are_not_read(self):
        def function(x):
            torch._assert_async((x > 0).all(), "expected what is positive")
            unread = parts(x)[0]
            return x.log(), unread

        call = jax.jit(lambda x: jax_callable(function, backend="xla")(x)[0])
        assert_close(call(jnp.ones(3)), jnp.zeros(3))
        with pytest.raises(Exception, match="expected what is positive"):
            jax.block_until_ready(call(-jnp.ones(3)))

    @BOTH
    def test_in_a_gradient(self, jit):
        call = jax_callable(lambda x: torch.linalg.inv(x).sum(), backend="xla")
        with pytest.raises(Exception, match=r"_LinAlgError.*singular"):
            jax.block_until_ready(jit(jax.grad(call))(jnp.zeros((3, 3))))

    def test_an_assertion(self):
        def function(x):
            torch._assert_async((x > 0).all(), "expected what is positive")
            return x.log()

        call = jax.jit(jax_callable(function, backend="xla"))
        assert_close(call(jnp.ones(3)), jnp.zeros(3))
        with pytest.raises(Exception, match="expected what is positive"):
            jax.block_until_ready(call(-jnp.ones(3)))


class TestClosedOverTensors:
    @BOTH
    @pytest.mark.parametrize("where", ["cell", "list", "object", "view", "default", "module"])
    def test_values_are_those_of_the_call(self, where, jit):
        weight = torch.ones(3)
        held, thing = [weight], types.SimpleNamespace(deep={"weight": weight})
        view, layer = weight[:], torch.nn.Linear(3, 3, bias=False)
        layer.weight.data = torch.diag(weight)
        functions = {
            "cell": lambda x: x * weight,
            "list": lambda x: x * held[0],
            "object": lambda x: x * thing.deep["weight"],
            "view": lambda x: x * view.detach(),
            "default": lambda x, w=weight: x * w.detach(),
            "module": lambda x: layer(x),
        }
        call = jit(jax_callable(functions[where], backend="xla"))
        slope = jit(jax.grad(lambda x: call(x).sum()))
        x = jnp.asarray([1.0, 2.0, 3.0])
        assert_equal((call(x), slope(x)), (x, jnp.ones(3)))
        with torch.no_grad():
            (layer.weight if where == "module" else weight).mul_(7)
        assert_equal((call(x), slope(x)), (7 * x, jnp.full(3, 7.0)))

    @BOTH
    def test_a_numpy_array(self, jit):
        weight = np.ones(3, np.float32)
        call = jit(jax_callable(lambda x: x * torch.from_numpy(weight), backend="xla"))
        assert_equal(call(jnp.ones(3)), jnp.ones(3))
        weight[:] = 4
        assert_equal(call(jnp.ones(3)), jnp.full(3, 4.0))

    @BOTH
    def test_beside_writes(self, jit):
        """Whose graph is traced twice."""
        weight = torch.full((3,), 2.0)

        def writing(x):
            y = x.clone().add_(weight)
            y[0] = weight[1] * 3
            return y.mul_(torch.tensor([1.0, 2.0, 3.0]))

        call, plain = (jit(jax_callable(writing, backend=one)) for one in ("xla", "eager"))
        slopes = [jit(jax.grad(lambda x, f=f: (f(x) ** 2).sum())) for f in (call, plain)]
        x = normal(3)
        for value in (2.0, 5.0):
            weight.fill_(value)
            assert_close(call(x), plain(x))
            assert_close(slopes[0](x), slopes[1](x))

    def test_another_parameter(self):
        layer = torch.nn.Linear(3, 3)
        call = jax_callable(lambda x: layer(x), backend="xla")
        program, x = jax.jit(call), normal(3)
        program(x)
        layer.weight = torch.nn.Parameter(torch.zeros(3, 3))
        assert_close(call(x), jnp.asarray(layer.bias.detach().numpy()))
        with pytest.raises(Exception, match=r"parameter `weight`.*was replaced") as caught:
            jax.block_until_ready(program(x))
        assert StaleClosureError.__name__ in f"{type(caught.value).__name__}: {caught.value}"

    def test_constants_of_its_own_are_none(self):
        call = jax_callable(lambda x: x * torch.tensor([1.0, 2.0, 3.0]), backend="xla")
        assert_equal(call(jnp.ones(3)), jnp.asarray([1.0, 2.0, 3.0]))
        assert calls_in(call, jnp.ones(3)) == 0

    def test_all_are_read_by_one_call(self):
        layer = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        assert calls_in(jax_callable(lambda x: layer(x), backend="xla"), normal(3)) == 1

    def test_parameters_of_from_module_are_arguments(self):
        taken = from_module(torch.nn.Linear(3, 4), backend="xla")
        assert calls_in(taken, taken.params, normal(3)) == 0


class TestMemory:
    """Views are what torch's memory says, and XLA has another."""

    @pytest.mark.parametrize("name", ["transposed", "part", "behind"])
    def test_views_are_refused(self, name):
        functions = {
            "transposed": lambda x: x.T.as_strided((2, 2), (1, 2)),
            "part": lambda x: x[1:].as_strided((2,), (1,)),
            "behind": lambda x: x[:1].as_strided((2, 4), (4, 1)),
        }
        call = jax_callable(functions[name], backend="xla")
        with pytest.raises(PlanningError, match=r"as_strided.*behind a view.*islands\.py:\d+"):
            call(normal(3, 4))

    @BOTH
    def test_whole_ones_are_not(self, jit):
        def function(x):
            y = x.T.contiguous()
            return y.as_strided((2, 2), (1, 2)) * x.as_strided((2, 2), (2, 1), 3)

        x = normal(3, 4)
        transform = lambda f: jax.value_and_grad(lambda x: f(x).sum())  # noqa: E731
        found = jit(transform(jax_callable(function, backend="xla")))(x)
        assert_close(found, transform(jax_callable(function))(x))

    @BOTH
    def test_arguments_of_an_island_are_row_major(self, jit):
        call = jit(jax_callable(lambda x: twice(x.T)[1], backend="xla"))
        x = normal(3, 4)
        assert_equal(call(x), 2 * x[:, 1])


class TestRefusals:
    SPEC = {
        "schema": "jaxtorch/1",
        "name": "between",
        "version": "1.0.0",
        "inputs": {"x": "float32[n, m]"},
        "outputs": {"y": "float32[n, n]"},
        "execution": {"backend": "xla", "islands": False},
    }
    LINE = r"jaxtorch_tests::twice\.default \(.*test_islands\.py:\d+\): JAX has no such"

    @pytest.mark.parametrize("platform", ["tpu", "cpu", "cuda"])
    def test_programs_for_elsewhere(self, platform):
        call = jax.jit(jax_callable(between, backend="xla"))
        with pytest.raises(PlanningError, match=self.LINE):
            export.export(call, platforms=[platform])(normal(3, 4))

    def test_closed_over_tensors_elsewhere(self):
        weight = torch.ones(3)
        call = jax.jit(jax_callable(lambda x: x * weight, backend="xla"))
        with pytest.raises(PlanningError, match=r"closes over \(float32\[3\]\).*from_module"):
            export.export(call, platforms=["tpu"])(normal(3))

    @BOTH
    def test_by_the_contract(self, jit):
        call = jit(jax_callable(between, spec=self.SPEC))
        with pytest.raises(PlanningError, match=r"`islands: false` \[.*execution.islands\]; got"):
            call(normal(3, 4))
        with pytest.raises(PlanningError, match=self.LINE):
            call(normal(3, 4))

    @BOTH
    def test_by_a_keyword(self, jit):
        call = jit(jax_callable(between, backend="xla", islands=False))
        with pytest.raises(PlanningError, match=r"for `islands=False`; got " + self.LINE):
            call(normal(3, 4))
        taken = from_module(Holds(), backend="xla", islands=False)
        with pytest.raises(PlanningError, match=r"for `islands=False`; got " + self.LINE):
            jit(taken.apply)(taken.params, normal(3, 4))

    def test_not_two_things(self):
        with pytest.raises(ArgumentError, match=r"islands=True .* says `islands: false`"):
            jax_callable(between, spec=self.SPEC, islands=True)

    def test_by_the_contract_in_a_gradient(self):
        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x @ x.T

            @staticmethod
            def backward(ctx, cotangent):
                return twice(cotangent)[:, :2] @ torch.ones(2, 4)

        call = jax_callable(lambda x: Own.apply(x), spec=self.SPEC)
        x = normal(3, 4)
        assert_close(call(x), x @ x.T)
        with pytest.raises(PlanningError, match=r"twice.*`eager`"):
            jax.grad(lambda x: call(x).sum())(x)

    def test_false_is_a_word_for_xla(self):
        with pytest.raises(SpecError, match=r"execution.islands.*`backend: xla`"):
            jax_callable(between, spec={**self.SPEC, "execution": {"islands": False}})

    def test_lists_of_tensors(self):
        torch.library.define("jaxtorch_tests::listed", "(Tensor x) -> (Tensor, Tensor[])")
        torch.library.impl("jaxtorch_tests::listed", "CPU", lambda x: (x + 0, [x + 1]))
        torch.library.register_fake(
            "jaxtorch_tests::listed", lambda x: (torch.empty_like(x), [torch.empty_like(x)])
        )
        listed = torch.ops.jaxtorch_tests.listed
        call = jax_callable(lambda x: listed(x)[1][0], backend="xla")
        with pytest.raises(PlanningError, match=r"listed\.default gives lists of tensors"):
            call(normal(3))

    @pytest.mark.parametrize("name", ["inv", "solve", "cholesky"])
    def test_factors_without_checks(self, name):
        both = {"solve": lambda f: lambda a: f(a, a)}.get(name, lambda f: f)
        call = jax_callable(both(getattr(torch.linalg, name)), backend="xla")
        with pytest.raises(PlanningError, match=f"{name}_ex.*do not make"):
            export.export(jax.jit(call), platforms=["tpu"])(jnp.eye(3))
        found = both(getattr(torch.linalg, f"{name}_ex"))
        advised = jax_callable(lambda a: found(a)[0], backend="xla")
        export.export(jax.jit(advised), platforms=["tpu"])(jnp.eye(3))

    def test_float64_on_a_tpu(self):
        call = jax.jit(jax_callable(lambda x: (x.double() + 1).float(), backend="xla"))
        with pytest.raises(PlanningError, match=r"a TPU has; got .*float64 of aten.*py:\d+"):
            export.export(call, platforms=["tpu"])(normal(3))


def test_explained():
    words = jax_callable(between, backend="xla").explain(normal(3, 4))
    assert "4 of 5 operations are JAX's" in words
    assert "by torch: jaxtorch_tests::twice.default (" in words
    assert "test_islands.py:" in words
