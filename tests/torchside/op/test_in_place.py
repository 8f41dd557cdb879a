"""Results that torch writes straight into XLA's buffers."""

from __future__ import annotations

import inspect
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import TorchExecutionError, jax_callable
from jaxtorch_bridge.planner.array_signature import ArraySig
from jaxtorch_bridge.torchside.functions.graph_capture import capture
from jaxtorch_bridge.torchside.op.results_in_place import write_in_place

LARGE = jnp.arange(1024.0 * 512).reshape(1024, 512) / 1e5  # 2 MiB
SMALL = jnp.arange(12.0).reshape(3, 4)


def contract(
    outputs: str, result: str = "float32[a, b]", backend: str = "auto"
) -> dict[str, object]:
    return {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "float32[a, b]"},
        "outputs": {"y": result},
        "execution": {"outputs": outputs, "backend": backend},
    }


def in_place(function):
    """The function's own calls, with a contract that asks for results in place."""
    return jax_callable(function, spec=contract("in_place"))


def graph_in_place(function, result: str = "float32[a, b]"):
    """Calls of a captured graph, with results in place whatever they cost."""
    return jax_callable(function, spec=contract("in_place", result, "graph"))


def how(wrapped, *args) -> list[str]:
    """What `explain` says of each output."""
    lines = wrapped.explain(*args).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("outputs"))
    found = itertools.takewhile(lambda line: line[:1] in "o ", lines[start:])
    return [line.partition("], ")[2] for line in found]


def _compare_on_threads(function, factor: float, summand: float) -> None:
    wrapped = jax.jit(function)
    wrapped(SMALL)
    wrong = []

    def work(number):
        for i in range(100):
            x = SMALL + number * 100 + i
            try:
                assert_equal(wrapped(x), x * factor + summand)
            except AssertionError as error:  # which the thread would keep to itself
                wrong.append((number, i, error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class TestCalls:
    @pytest.mark.parametrize("outputs", ["auto", "copy"])
    def test_results_of_the_functions_own_code_are_copied(self, outputs):
        wrapped = jax_callable(lambda x: x + 1, spec=contract(outputs))
        reason = {"auto": "the function's own code makes it", "copy": "execution.outputs is copy"}
        assert how(wrapped, LARGE) == [f"copied: {reason[outputs]}"]
        assert_equal(wrapped(LARGE), LARGE + 1)

    @pytest.mark.parametrize("backend", ["eager", "graph"])
    @pytest.mark.parametrize("size_mib", [1, 33, 64])
    def test_large_results_are_whole(self, size_mib, backend):
        spec = contract("auto", "int32[n]", backend) | {"inputs": {"x": "int32[n]"}}
        x = jnp.arange((size_mib << 18) + 3, dtype=jnp.int32)  # no whole number of pages
        found = jax_callable(lambda x: x * 3, spec=spec)(x)
        assert_equal(found, np.asarray(x) * 3)

    def test_explain_says_why_nothing_is_in_place_that_was_asked_for(self):
        wrapped = in_place(lambda x: x * 2)
        words = "copied: the function's own code makes it, and takes no `out=`"
        assert how(wrapped, SMALL) == [words]
        assert_equal(wrapped(SMALL), SMALL * 2)


class TestGraphCalls:
    @pytest.mark.parametrize(
        "function",
        [
            lambda x: torch.relu(x - 3),
            lambda x: (x * 2).clone(),
            lambda x: torch.softmax(x, 0),
            lambda x: (x.t() + 1).t(),
            lambda x: (x + 1).reshape(4, 3).reshape(3, 4),
            lambda x: (x + 1).mul_(2).sub_(3),
            lambda x: torch.where(x > 2, x, -x),
            lambda x: torch.cat([x[:1], x[1:] * 2]),
            lambda x: x,
            lambda x: x[:, :],
            lambda x: x.expand(2, 3, 4)[1],
            lambda x: x.t().contiguous().t(),
            lambda x: (x + 1).flip(0),
            lambda x: torch.empty_like(x).copy_(x * 3),
            lambda x: torch.zeros_like(x).add_(x),
            lambda x: x @ torch.eye(4),
            lambda x: torch.stack([x * 2, x * 3])[1],
            lambda x: torch.nn.functional.dropout(x * 2, 0.5, training=False),
        ],
    )
    def test_values_are_those_of_torch(self, function):
        wrapped = graph_in_place(function)
        expected = function(torch.tensor(np.asarray(SMALL)))
        for call in (wrapped, jax.jit(wrapped)):
            assert_equal(call(SMALL), expected)

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: ((y := x * 2), y),
            lambda x: ((y := x * 2), y.flatten()),
            lambda x: ((y := x * 2), y.t()),
            lambda x: ((y := x * 2).t(), y),
            lambda x: ((y := x * 2)[1:], y),
            lambda x: ((y := x * 2), y.flip(0)),
            lambda x: ((y := x * 2), y[:, 1]),
            lambda x: ((y := x * 2).add_(1), y),
            lambda x: ((y := x * 2), x, y + x),
            lambda x: (x.sort(0).values, x.sort(0).indices),
            lambda x: (x.real, torch.view_as_real(torch.complex(x, x))),
            lambda x: (torch.complex(x, x).conj(), torch.complex(x, -x)),
        ],
    )
    def test_results_that_share_memory(self, function):
        spec = contract("in_place", backend="graph")
        expected = function(torch.tensor(np.asarray(SMALL)))
        spec["outputs"] = {
            f"y{i}": f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            for i, value in enumerate(expected)
        }
        with jax.enable_x64(True):
            wrapped = jax_callable(function, spec=spec)
            for call in (wrapped, jax.jit(wrapped)):
                for one, other in zip(call(SMALL), expected, strict=True):
                    assert_equal(one, other.resolve_conj())

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "uint8", "complex64"])
    def test_dtypes(self, dtype):
        array = jnp.arange(12).reshape(3, 4).astype(dtype)
        wrapped = jax_callable(
            lambda x: x + x,
            spec={
                **contract("in_place", f"{dtype}[a, b]", "graph"),
                "inputs": {"x": f"{dtype}[a, b]"},
            },
        )
        assert how(wrapped, array) == ["in place, by aten.add.out"]
        assert_equal(jax.jit(wrapped)(array), array + array)

    def test_what_is_resized_is_copied(self):
        wrapped = graph_in_place(lambda x: (x * 2).resize_(2, 2), "float32[c, d]")
        assert_equal(jax.jit(wrapped)(SMALL), [[0, 2], [4, 6]])

    def test_donated_and_carried_arrays_are_read_before_they_are_written(self):
        # The first result is there before the second op reads the argument once more.
        wrapped = graph_in_place(lambda x: (x * 2) + x.flip(0))
        x = np.asarray(SMALL)
        donated = jax.jit(wrapped, donate_argnums=0)(jnp.array(x))
        assert_equal(donated, x * 2 + x[::-1])
        spec = contract("in_place", backend="graph")
        spec["outputs"] = {"y": "float32[a, b]", "z": "float32[a, b]"}
        pair = jax_callable(lambda x: ((y := x * 2), y + x.flip(0)), spec=spec)

        def step(carry, _):
            first, second = pair(carry)
            return second, first

        last, firsts = jax.jit(lambda x: jax.lax.scan(step, x, None, length=3), donate_argnums=0)(
            jnp.array(x)
        )
        for first in firsts:
            assert_close(first, x * 2)
            x = x * 2 + x[::-1]
        assert_close(last, x)

    def test_threads(self):
        _compare_on_threads(graph_in_place(lambda x: x * 2 + 1), 2, 1)


class TestOut:
    def test_the_functions_own_out_is_xlas_buffer(self):
        seen = []

        def blend(x, *, weight=0.5, out=None):
            if type(x) is torch.Tensor and out is not None:
                seen.append(out.data_ptr())
            return torch.mul(x, weight, out=out)

        wrapped = in_place(blend)
        result = jax.jit(wrapped)(SMALL)
        assert_equal(result, SMALL / 2)
        assert result.unsafe_buffer_pointer() == seen[-1]
        assert how(wrapped, SMALL) == ["in place, by the function's own `out=`"]
        assert_close(jax.grad(lambda x: wrapped(x).sum())(SMALL), 0.5 + 0 * SMALL)

    def test_several_results(self):
        def ordered(x, out=None):
            return tuple(torch.sort(x, 1, descending=True, out=out))

        spec = contract("in_place")
        spec["outputs"] = {"values": "float32[a, b]", "order": "int64[a, b]"}
        with jax.enable_x64(True):
            values, order = jax.jit(jax_callable(ordered, spec=spec))(SMALL)
            assert_equal(values, SMALL[:, ::-1])
            assert_equal(order, [[3, 2, 1, 0]] * 3)
        # The order becomes int32, which torch cannot write.
        values, order = jax.jit(jax_callable(ordered, spec=spec))(SMALL)
        assert_equal(order, [[3, 2, 1, 0]] * 3)

    def test_without_a_contract_that_asks_for_it_out_stays_none(self):
        def double(x, out=None):
            assert out is None
            return torch.mul(x, 2, out=out)

        assert_equal(jax.jit(jax_callable(double))(LARGE), LARGE * 2)

    def test_a_function_that_ignores_it_is_copied(self):
        wrapped = in_place(lambda x, out=None: x * 3)
        assert_equal(jax.jit(wrapped)(SMALL), SMALL * 3)

    def test_a_result_that_the_function_keeps_keeps_its_value(self):
        kept = []

        def keep(x, out=None):
            y = torch.mul(x, 2, out=out)
            if type(y) is torch.Tensor:
                kept.append(y)
            return y

        wrapped = jax.jit(in_place(keep))
        first = wrapped(SMALL)
        first.delete()
        for _ in range(20):
            wrapped(SMALL + 7)
        assert_equal(kept[0], SMALL * 2)
        assert_equal(kept[-1], (SMALL + 7) * 2)

    def test_results_in_another_order_than_given(self):
        def swap(x, out=None):
            first, second = out or (None, None)
            double, triple = torch.mul(x, 2, out=first), torch.mul(x, 3, out=second)
            return triple, double

        spec = contract("in_place")
        spec["outputs"] = {"y": "float32[a, b]", "z": "float32[a, b]"}
        triple, double = jax.jit(jax_callable(swap, spec=spec))(SMALL)
        assert_equal(triple, SMALL * 3)
        assert_equal(double, SMALL * 2)

    def test_what_autograd_records_is_copied(self):
        weight = torch.ones(4, 4, requires_grad=True)

        def product(x, out=None):
            return torch.mm(x, weight, out=out)

        wrapped = in_place(product)
        expected = torch.tensor(np.asarray(SMALL)) @ weight.detach()
        assert how(wrapped, SMALL) == ["copied: autograd records what makes it"]
        assert_close(wrapped(SMALL), expected)
        with torch.no_grad():
            assert how(wrapped, SMALL) == ["in place, by the function's own `out=`"]
            assert_close(jax.jit(wrapped)(SMALL), expected)

    def test_a_compiled_function(self):
        compiled = torch.compile(lambda x, out: torch.mul(x, 2, out=out), backend="eager")
        wrapped = in_place(lambda x, out=None: x * 2 if out is None else compiled(x, out))
        assert how(wrapped, SMALL) == ["in place, by the function's own `out=`"]
        assert_equal(wrapped(SMALL), SMALL * 2)

    def test_threads(self):
        _compare_on_threads(in_place(lambda x, out=None: torch.mul(x, 2, out=out)), 2, 0)

    def test_what_it_resizes_is_an_error(self):
        def wrong(x, out=None):
            return torch.mul(x if out is None else torch.cat([x, x]), 2, out=out)

        with pytest.raises(TorchExecutionError):
            in_place(wrong)(SMALL)


def derivative(function, *args):
    """The one derivative of a callable that runs it again, as a graph."""
    names = inspect.signature(function).parameters
    spec = {
        "schema": "jaxtorch/1",
        "name": "again",
        "version": "1.0.0",
        "residuals": "recompute",
        "inputs": {
            name: f"float32[{', '.join(f'{name}_{i}' for i in range(one.ndim))}]"
            for name, one in zip(names, args, strict=True)
        },
    }
    results = function(*(torch.tensor(np.asarray(one)) for one in args))
    names = [f"y{i}" for i in range(len(results))] if isinstance(results, tuple) else ["y"]
    spec["outputs"] = {name: f"float32[{name}_0, {name}_1]" for name in names}
    wrapped = jax_callable(function, spec=spec)
    wrt = tuple(range(len(args)))
    found = jax.jit(jax.grad(lambda *a: sum(r.sum() for r in jax.tree.leaves(wrapped(*a))), wrt))(
        *args
    )
    planned, _ = wrapped._placed(args, {})
    (linearized,) = planned.op.derived.named("linearize")
    return found, linearized


class TestGraphs:
    @pytest.fixture(autouse=True)
    def _whatever_it_costs(self, monkeypatch):
        monkeypatch.setattr(
            "jaxtorch_bridge.torchside.op.results_in_place._WORTHWHILE_BYTES", {"cpu": 0}
        )

    def test_a_backward_writes_in_place(self):
        w = jnp.linspace(-1, 1, 20).reshape(4, 5)
        found, linearized = derivative(lambda x, w: torch.tanh(x @ w), SMALL, w)
        expected = jax.grad(lambda x, w: jnp.tanh(x @ w).sum(), (0, 1))(SMALL, w)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
        op = linearized.linear_call(True, linearized.grad_inputs, linearized.diff_outputs).op
        assert op.results == ("in place, by aten.mm.out",) * 2
        assert op.into == (0, 1)

    def test_ops_with_several_results(self):
        def pooled(x):
            return torch.nn.functional.max_pool2d(torch.tanh(x), 2)

        x = jax.random.normal(jax.random.key(0), (2, 3, 8, 8))
        spec = contract("auto", "float32[b, c, k, l]", "graph")
        spec["inputs"] = {"x": "float32[b, c, m, n]"}
        wrapped = jax_callable(pooled, spec=spec)
        assert_close(wrapped(x), pooled(torch.tensor(np.asarray(x))))
        assert any("max_pool2d" in words for words in how(wrapped, x))

    def test_the_addresses_are_those_of_the_buffers(self):
        wrapped = jax_callable(lambda x, w: torch.tanh(x @ w).t() * 2)
        fn = wrapped._placed((SMALL, SMALL.T), {})[0].op.fn
        sigs = [ArraySig("y", (3, 3), "float32", "float32")]
        graph = capture(
            fn,
            lambda x, w: [torch.tanh(x @ w), (x @ w).t()],
            fn.inputs,
            sigs * 2,
            plain_attention=False,
        )
        found = write_in_place(graph, sigs * 2, "cpu", "auto")
        assert found.into == (0,)
        assert found.words[1] == "copied: it is not row-major"
        buffers = [torch.full((3, 3), torch.nan) for _ in found.into]
        x = torch.tensor(np.asarray(SMALL))
        with torch.no_grad():
            results = found.core(x, x.t().contiguous(), *buffers)
            expected = graph(x, x.t().contiguous())
        for index, buffer in zip(found.into, buffers, strict=True):
            result = results[index]
            assert result.data_ptr() == buffer.data_ptr()
            assert_equal(buffer, expected[index])

    @pytest.mark.parametrize("transform", [jax.jacrev, jax.jacfwd, jax.hessian])
    def test_batched_and_higher_derivatives(self, transform):
        def torch_side(x):
            return (torch.sin(x) @ torch.cos(x).T).exp().mean(0)

        def jax_side(x):
            return jnp.exp(jnp.sin(x) @ jnp.cos(x).T).mean(0)

        x = SMALL / 10
        found = jax.jit(transform(jax_callable(torch_side)))(x)
        assert_close(found, transform(jax_side)(x))

    def test_a_residual_that_is_a_result_as_well(self):
        (found,), _ = derivative(
            lambda x: (torch.exp(x), torch.exp(x) * 2, torch.exp(x).t()), SMALL
        )
        assert_close(found, 4 * jnp.exp(SMALL))

    def test_complex_gradients_are_conjugated_not_in_place(self):
        z = (SMALL + 1j * SMALL[::-1]).astype(jnp.complex64)
        wrapped = jax_callable(lambda z: (z * z).real.sum())
        found = jax.jit(jax.grad(wrapped))(z)
        assert_close(found, jax.grad(lambda z: (z * z).real.sum())(z))
