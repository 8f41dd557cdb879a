"""Results that torch writes straight into XLA's buffers."""

from __future__ import annotations

import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxtorch_bridge import TorchExecutionError, jax_callable
from jaxtorch_bridge.planner.array_signature import ArraySig
from jaxtorch_bridge.torchside.functions.graph_capture import capture
from jaxtorch_bridge.torchside.op.results_in_place import written

LARGE = jnp.arange(1024.0 * 512).reshape(1024, 512) / 1e5  # 2 MiB
SMALL = jnp.arange(12.0).reshape(3, 4)


def contract(outputs: str, result: str = "float32[a, b]") -> dict[str, object]:
    return {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "float32[a, b]"},
        "outputs": {"y": result},
        "execution": {"outputs": outputs},
    }


def in_place(function, result: str = "float32[a, b]"):
    """The function, with a contract that asks for results in place whatever they cost."""
    return jax_callable(function, spec=contract("in_place", result))


def how(wrapped, *args) -> list[str]:
    """What `explain` says of each output."""
    lines = wrapped.explain(*args).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("outputs"))
    found = itertools.takewhile(lambda line: line[:1] in "o ", lines[start:])
    return [line.partition("], ")[2] for line in found]


class TestCalls:
    def test_the_result_is_the_memory_that_torch_wrote(self):
        addresses = []

        def double(x):
            y = x * 2
            addresses.append(y.data_ptr() if type(y) is torch.Tensor else None)
            return y

        wrapped = in_place(double)
        result = jax.jit(wrapped)(SMALL)
        assert result.unsafe_buffer_pointer() == addresses[-1]
        np.testing.assert_array_equal(result, SMALL * 2)
        assert how(wrapped, SMALL) == ["in place, by aten.mul.out"]

    def test_auto_writes_in_place_what_is_large(self):
        wrapped = jax_callable(lambda x: x + 1)
        assert how(wrapped, LARGE) == ["in place, by aten.add.out"]
        assert how(wrapped, SMALL) == ["copied: for 48 bytes that costs less"]
        np.testing.assert_array_equal(jax.jit(wrapped)(LARGE), LARGE + 1)

    def test_auto_counts_what_watching_each_op_costs(self):
        def many(x):
            for _ in range(20):
                x = x + 1
            return x

        assert how(jax_callable(many), LARGE)[0].startswith("copied")

    def test_copy_copies(self):
        wrapped = jax_callable(lambda x: x + 1, spec=contract("copy"))
        assert how(wrapped, LARGE) == ["copied: execution.outputs is copy"]
        np.testing.assert_array_equal(wrapped(LARGE), LARGE + 1)

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
        wrapped = in_place(function)
        expected = function(torch.tensor(np.asarray(SMALL)))
        for call in (wrapped, jax.jit(wrapped)):
            np.testing.assert_array_equal(call(SMALL), expected)

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
        spec = contract("in_place")
        expected = function(torch.tensor(np.asarray(SMALL)))
        spec["outputs"] = {
            f"y{i}": f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            for i, value in enumerate(expected)
        }
        with jax.enable_x64(True):
            wrapped = jax_callable(function, spec=spec)
            for call in (wrapped, jax.jit(wrapped)):
                for one, other in zip(call(SMALL), expected, strict=True):
                    np.testing.assert_array_equal(one, other.resolve_conj())

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "uint8", "complex64"])
    def test_dtypes(self, dtype):
        array = jnp.arange(12).reshape(3, 4).astype(dtype)
        wrapped = jax_callable(
            lambda x: x + x,
            spec={
                **contract("in_place", f"{dtype}[a, b]"),
                "inputs": {"x": f"{dtype}[a, b]"},
            },
        )
        assert how(wrapped, array) == ["in place, by aten.add.out"]
        np.testing.assert_array_equal(jax.jit(wrapped)(array), array + array)

    def test_a_result_that_the_function_keeps_keeps_its_value(self):
        kept = []

        def keep(x):
            y = x * 2
            if type(y) is torch.Tensor:
                kept.append(y)
            return y

        wrapped = jax.jit(in_place(keep))
        first = wrapped(SMALL)
        first.delete()
        for _ in range(20):
            wrapped(SMALL + 7)
        np.testing.assert_array_equal(kept[0], SMALL * 2)
        np.testing.assert_array_equal(kept[-1], (SMALL + 7) * 2)

    def test_another_op_than_planned_is_copied(self):
        turn = itertools.count()

        def alternate(x):
            return x * 2 if type(x) is not torch.Tensor or next(turn) % 2 else x + x + 0

        wrapped = jax.jit(in_place(alternate))
        for _ in range(4):
            np.testing.assert_array_equal(wrapped(SMALL), SMALL * 2)

    def test_results_in_another_order_than_planned(self):
        turn = itertools.count()

        def swap(x):
            double, triple = x * 2, x * 3
            if type(x) is torch.Tensor and type(double) is torch.Tensor and next(turn) % 2:
                return triple, double
            return double, triple

        spec = contract("in_place")
        spec["outputs"] = {"y": "float32[a, b]", "z": "float32[a, b]"}
        wrapped = jax.jit(jax_callable(swap, spec=spec))
        first, second = ([float(y[0, 1]) for y in wrapped(SMALL)] for _ in range(2))
        assert {tuple(first), tuple(second)} == {(2.0, 3.0), (3.0, 2.0)}

    def test_another_shape_than_planned_is_an_error_and_nothing_is_resized(self):
        def shrink(x):
            return (x if type(x) is not torch.Tensor else x[:2]) * 2

        def grow(x):
            return (x if type(x) is not torch.Tensor else torch.cat([x, x])) * 2

        for function in (shrink, grow):
            with pytest.raises(TorchExecutionError):
                in_place(function)(SMALL)
        np.testing.assert_array_equal(in_place(lambda x: x * 2)(SMALL), SMALL * 2)

    @pytest.mark.parametrize(
        ("function", "before", "after"),
        [
            (lambda x, n: x[:n].clone(), 2, 1),
            (lambda x, n: x[:n] + 1, 2, 1),
            (lambda x, dtype: x.to(dtype), torch.float16, torch.float64),
            (lambda x, dtype: x.to(dtype) + x.to(dtype), torch.bfloat16, torch.int32),
        ],
    )
    def test_what_an_out_form_would_broadcast_or_cast_is_an_error(self, function, before, after):
        class Settings:
            value = before

        def read(x):
            return function(x, Settings.value)

        array = "float32" if type(before) is int else str(before).removeprefix("torch.")
        wrapped = jax_callable(read, spec=contract("in_place", f"{array}[c, d]"))
        assert how(wrapped, SMALL)[0].startswith("in place")
        call = jax.jit(wrapped)
        call(SMALL).block_until_ready()
        Settings.value = after
        with pytest.raises(Exception, match="but torch returned"):
            call(SMALL).block_until_ready()

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x[:, 1:3] * 2,
            lambda x: x * torch.ones(4) + torch.tensor([1.0, 2.0, 3.0, 4.0]),
            lambda x: x.index_add(0, torch.tensor([1, 1]), torch.ones(2, 4)),
            lambda x: torch.nn.functional.linear(x, torch.ones(4, 4), torch.zeros(4)),
            lambda x: torch.where(x > 3, 1.0, x),
            lambda x: (x * 2).detach() * x.mean().detach(),
        ],
    )
    def test_what_explain_calls_in_place_is(self, function):
        addresses = []

        def record(x):
            y = function(x)
            addresses.append(y.data_ptr() if type(y) is torch.Tensor else None)
            return y

        wrapped = jax_callable(record, spec=contract("in_place", "float32[c, d]"))
        assert how(wrapped, SMALL)[0].startswith("in place")
        result = jax.jit(wrapped)(SMALL)
        assert result.unsafe_buffer_pointer() == addresses[-1]
        np.testing.assert_allclose(result, function(torch.tensor(np.asarray(SMALL))), rtol=1e-6)

    def test_what_is_resized_is_copied(self):
        wrapped = jax_callable(
            lambda x: (x * 2).resize_(2, 2), spec=contract("in_place", "float32[c, d]")
        )
        np.testing.assert_array_equal(jax.jit(wrapped)(SMALL), [[0, 2], [4, 6]])

    def test_what_autograd_records_is_copied(self):
        layer = torch.nn.Linear(4, 4)
        wrapped = in_place(lambda x: layer(x))
        assert how(wrapped, SMALL)[0].startswith("copied: autograd records")
        expected = layer(torch.tensor(np.asarray(SMALL))).detach()
        np.testing.assert_allclose(wrapped(SMALL), expected, rtol=1e-6)
        with torch.no_grad():
            assert how(wrapped, SMALL) == ["in place, by aten.addmm.out"]
            np.testing.assert_allclose(jax.jit(wrapped)(SMALL), expected, rtol=1e-6)

    def test_what_a_compiler_runs_is_not_watched(self):
        compiled = torch.compile(lambda x: x * 2, backend="eager")
        wrapped = in_place(lambda x: compiled(x))
        assert "a compiler runs the function" in how(wrapped, SMALL)[0]
        np.testing.assert_array_equal(wrapped(SMALL), SMALL * 2)

    def test_failures_and_writes_are_found_as_before(self):
        def fail(x):
            y = x * 2
            if type(y) is torch.Tensor:
                raise ValueError("no")
            return y

        with pytest.raises(TorchExecutionError, match="ValueError: no"):
            in_place(fail)(SMALL)

    def test_donated_and_carried_arrays_are_read_before_they_are_written(self):
        # The first result is there before the second op reads the argument once more.
        wrapped = in_place(lambda x: (x * 2) + x.flip(0))
        x = np.asarray(SMALL)
        donated = jax.jit(wrapped, donate_argnums=0)(jnp.array(x))
        np.testing.assert_array_equal(donated, x * 2 + x[::-1])
        spec = contract("in_place")
        spec["outputs"] = {"y": "float32[a, b]", "z": "float32[a, b]"}
        pair = jax_callable(lambda x: ((y := x * 2), y + x.flip(0)), spec=spec)

        def step(carry, _):
            first, second = pair(carry)
            return second, first

        last, firsts = jax.jit(lambda x: jax.lax.scan(step, x, None, length=3), donate_argnums=0)(
            jnp.array(x)
        )
        for first in firsts:
            np.testing.assert_allclose(first, x * 2, rtol=1e-6)
            x = x * 2 + x[::-1]
        np.testing.assert_allclose(last, x, rtol=1e-6)

    def test_gradients_inside(self):
        def force(x):
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad((x**3).sum(), x)
            return gradient

        np.testing.assert_allclose(in_place(force)(SMALL), 3 * SMALL**2, rtol=1e-6)

    def test_threads(self):
        wrapped = jax.jit(in_place(lambda x: x * 2 + 1))
        wrapped(SMALL)
        wrong = []

        def work(number):
            for i in range(100):
                result = wrapped(SMALL + number * 100 + i)
                if not np.array_equal(result, (SMALL + number * 100 + i) * 2 + 1):
                    wrong.append((number, i))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class TestOut:
    def test_the_functions_own_out_is_xlas_buffer(self):
        seen = []

        def blend(x, *, weight=0.5, out=None):
            if type(x) is torch.Tensor and out is not None:
                seen.append(out.data_ptr())
            return torch.mul(x, weight, out=out)

        wrapped = in_place(blend)
        result = jax.jit(wrapped)(SMALL)
        np.testing.assert_array_equal(result, SMALL / 2)
        assert result.unsafe_buffer_pointer() == seen[-1]
        assert how(wrapped, SMALL) == ["in place, by the function's own `out=`"]
        np.testing.assert_allclose(jax.grad(lambda x: wrapped(x).sum())(SMALL), 0.5 + 0 * SMALL)

    def test_several_results(self):
        def ordered(x, out=None):
            return tuple(torch.sort(x, 1, descending=True, out=out))

        spec = contract("in_place")
        spec["outputs"] = {"values": "float32[a, b]", "order": "int64[a, b]"}
        with jax.enable_x64(True):
            values, order = jax.jit(jax_callable(ordered, spec=spec))(SMALL)
            np.testing.assert_array_equal(values, SMALL[:, ::-1])
            np.testing.assert_array_equal(order, [[3, 2, 1, 0]] * 3)
        # The order becomes int32, which torch cannot write.
        values, order = jax.jit(jax_callable(ordered, spec=spec))(SMALL)
        np.testing.assert_array_equal(order, [[3, 2, 1, 0]] * 3)

    def test_without_a_contract_that_asks_for_it_out_stays_none(self):
        def double(x, out=None):
            assert out is None
            return torch.mul(x, 2, out=out)

        np.testing.assert_array_equal(jax.jit(jax_callable(double))(LARGE), LARGE * 2)

    def test_a_function_that_ignores_it_is_copied(self):
        wrapped = in_place(lambda x, out=None: x * 3)
        np.testing.assert_array_equal(jax.jit(wrapped)(SMALL), SMALL * 3)

    def test_what_it_resizes_is_an_error(self):
        def wrong(x, out=None):
            return torch.mul(x if out is None else torch.cat([x, x]), 2, out=out)

        with pytest.raises(TorchExecutionError):
            in_place(wrong)(SMALL)


def derivative(function, *args):
    """The one derivative of a callable that has been built, and what its kernels say."""
    wrapped = jax_callable(function)
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

    def test_forward_and_backward_write_in_place(self):
        w = jnp.linspace(-1, 1, 20).reshape(4, 5)
        found, linearized = derivative(lambda x, w: torch.tanh(x @ w), SMALL, w)
        expected = jax.grad(lambda x, w: jnp.tanh(x @ w).sum(), (0, 1))(SMALL, w)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
        assert linearized.forward.results == (
            "in place, by aten.tanh.out",
            "copied: it shares memory with another result",
        )
        (kernel,) = linearized._kernels.values()
        assert kernel.op.results == ("in place, by aten.mm.out",) * 2
        assert kernel.op.into == (0, 1)

    def test_ops_with_several_results(self):
        def pooled(x):
            return torch.nn.functional.max_pool2d(torch.tanh(x), 2)

        x = jax.random.normal(jax.random.key(0), (2, 3, 8, 8))
        (found,), linearized = derivative(pooled, x)
        leaf = torch.tensor(np.asarray(x), requires_grad=True)
        pooled(leaf).sum().backward()
        np.testing.assert_allclose(found, leaf.grad, rtol=1e-5, atol=1e-6)
        assert any("max_pool2d" in words for words in linearized.forward.results)

    def test_the_addresses_are_those_of_the_buffers(self):
        wrapped = jax_callable(lambda x, w: torch.tanh(x @ w).t() * 2)
        source = wrapped._placed((SMALL, SMALL.T), {})[0].op.source
        sigs = [ArraySig("y", (3, 3), "float32", "float32")]
        graph = capture(
            source,
            lambda x, w: [torch.tanh(x @ w), (x @ w).t()],
            source.inputs,
            sigs * 2,
            plain_attention=False,
        )
        found = written(graph, sigs * 2, "cpu", "auto")
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
            assert torch.equal(buffer, expected[index])

    @pytest.mark.parametrize("transform", [jax.jacrev, jax.jacfwd, jax.hessian])
    def test_batched_and_higher_derivatives(self, transform):
        def torch_side(x):
            return (torch.sin(x) @ torch.cos(x).T).exp().mean(0)

        def jax_side(x):
            return jnp.exp(jnp.sin(x) @ jnp.cos(x).T).mean(0)

        x = SMALL / 10
        found = jax.jit(transform(jax_callable(torch_side)))(x)
        np.testing.assert_allclose(found, transform(jax_side)(x), rtol=1e-4, atol=1e-5)

    def test_a_residual_that_is_a_result_as_well(self):
        (found,), _ = derivative(
            lambda x: (torch.exp(x), torch.exp(x) * 2, torch.exp(x).t()), SMALL
        )
        np.testing.assert_allclose(found, 4 * jnp.exp(SMALL), rtol=1e-5)

    def test_complex_gradients_are_conjugated_not_in_place(self):
        z = (SMALL + 1j * SMALL[::-1]).astype(jnp.complex64)
        wrapped = jax_callable(lambda z: (z * z).real.sum())
        found = jax.jit(jax.grad(wrapped))(z)
        np.testing.assert_allclose(found, jax.grad(lambda z: (z * z).real.sum())(z), rtol=1e-5)
