"""Where a wrapped function could be wrong in silence."""

from __future__ import annotations

import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    BridgeWarning,
    DifferentiationError,
    OutputError,
    ShardingError,
)
from jaxtorch_bridge.compat import Size, torch2jax, torch2jax_auto, torch2jax_flat
from jaxtorch_bridge.compat import torch2jax_without_vjp as without_vjp
from jaxtorch_bridge.torchside.handler.native_module import op_keys

x = jnp.arange(1.0, 4.0)
i = jnp.arange(3)
ones = torch.ones(3)
numbers = torch.arange(3)


def product(a, b):
    return (a * b).sum()


# ---- Arguments without a derivative --------------------------------------------------------------


@pytest.mark.parametrize("use_zeros", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"nondiff_argnums": 1},
        {"nondiff_argnums": (1,)},
        {"nondiff_argnums": [-1]},
        {"nondiff_mask": (False, True)},
    ],
    ids=str,
)
def test_a_nondiff_argument_has_a_zero_gradient_and_the_others_their_own(options, use_zeros):
    wrapped = torch2jax(product, ones, ones, use_zeros=use_zeros, **options)
    # An infinity must not make a NaN of the zero.
    y = x.at[0].set(jnp.inf)
    for transform in (lambda f: f, jax.jit):
        left, right = transform(jax.grad(wrapped, (0, 1)))(x, y)
        assert_equal(left, y)
        assert_equal(right, np.zeros(3))
        assert right.dtype == x.dtype
    primal, tangent = jax.jvp(wrapped, (x, x), (jnp.ones(3), jnp.ones(3)))
    assert (primal, tangent) == (14, 6)


def test_integer_arguments_have_float0_gradients():
    wrapped = torch2jax(product, ones, numbers)
    left, right = jax.grad(wrapped, (0, 1), allow_int=True)(x, i)
    assert_equal(left, i.astype("float32"))
    assert right.dtype == jax.dtypes.float0


def test_a_mask_over_a_tree_freezes_just_its_leaves():
    def function(params, x):
        return ((x @ params["w"] + params["b"]) ** 2).sum()

    params = {"w": torch.ones(3, 2), "b": torch.ones(2)}
    wrapped = torch2jax(function, params, ones, nondiff_mask=({"w": False, "b": True}, False))
    arrays = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    frozen, _ = jax.grad(wrapped, (0, 1))(arrays, x)
    whole = jax.grad(lambda p: ((x @ p["w"] + p["b"]) ** 2).sum())(arrays)
    assert_close(frozen["w"], whole["w"])
    assert_equal(frozen["b"], np.zeros(2))


def test_masks_reach_keyword_arguments():
    wrapped = torch2jax(product, ones, example_kw={"b": ones}, nondiff_mask=((False,), {"b": True}))
    gradient = jax.grad(lambda a, b: wrapped(a, b=b), (0, 1))(x, x + 1)
    assert_equal(gradient, (x + 1, np.zeros(3)))
    plain = torch2jax(product, ones, example_kw={"b": ones}, nondiff_mask=(True,))
    gradient = jax.grad(lambda a, b: plain(a, b=b), (0, 1))(x, x + 1)
    assert_equal(gradient, (np.zeros(3), x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nondiff_argnums": (2,)}, "nondiff_argnums: expected numbers of the 2 positional.*got 2"),
        ({"nondiff_argnums": True}, "got True"),
        ({"nondiff_argnums": "b"}, "got 'b'"),
        ({"nondiff_mask": (True,)}, "nondiff_mask: expected 2 leaves.*got 1"),
        ({"nondiff_mask": (True, 1)}, "expected True or False for each array; got 1"),
        ({"nondiff_argnums": 0, "nondiff_mask": (True, False)}, "got both"),
    ],
)
def test_what_cannot_be_meant_by_nondiff_is_an_error(options, message):
    with pytest.raises(ArgumentError, match=message):
        torch2jax(product, ones, ones, **options)


# ---- Outputs that were declared ------------------------------------------------------------------


def looks_at_values(a):
    return a * 2 if bool(a.sum() > 0) else a * 3


def through_numpy(a):
    return torch.from_numpy(a.detach().numpy() * 2)


WRONG = {
    "size": (lambda a: a * 2, Size((4,)), r"float32\[4\].*float32\[3\]"),
    "rank": (lambda a: a * 2, Size((1, 3)), r"float32\[1, 3\].*float32\[3\]"),
    "dtype": (lambda a: a > 0, Size((3,)), r"float32\[3\].*bool\[3\]"),
    "fewer": (lambda a: (a, a), Size((3,)), "as output_shapes declares, 1; torch returned 2"),
    "more": (lambda a: a, (Size((3,)),) * 2, "as output_shapes declares, 2; torch returned 1"),
    "unseen size": (through_numpy, Size((4,)), r"float32\[4\].*float32\[3\]"),
    "unseen rank": (through_numpy, Size((3, 1)), r"float32\[3, 1\].*float32\[3\]"),
    "unseen dtype": (
        through_numpy,
        jax.ShapeDtypeStruct((3,), jnp.int32),
        r"int32\[3\].*float32\[3\]",
    ),
    "unseen count": (looks_at_values, (Size((3,)),) * 2, "declares, 2; torch returned 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_outputs_other_than_declared_are_errors(case):
    function, output_shapes, message = WRONG[case]
    wrapped = torch2jax(function, ones, output_shapes=output_shapes)
    with pytest.raises(OutputError, match=message):
        wrapped(x)
    with pytest.raises((OutputError, jax.errors.JaxRuntimeError), match=message):
        jax.block_until_ready(jax.jit(wrapped)(x))


@pytest.mark.parametrize("function", [looks_at_values, through_numpy])
def test_a_function_that_cannot_be_traced_is_not_run_for_declared_outputs(function):
    runs = []

    def counted(a):
        if type(a) is torch.Tensor:
            runs.append(a)
            del runs[:-1]
        return {"y": function(a)}

    wrapped = torch2jax(counted, ones, output_shapes=[Size((3,))])
    assert "taken as declared; the function was not run" in wrapped.explain(x)
    assert runs == []
    (result,) = jax.jit(wrapped)(x)
    assert_equal(result, 2 * x)


def test_results_come_in_the_declared_structure():
    def function(a):
        return {"b": a, "a": a + 1}

    # Leaves are taken in JAX's order, in which names are sorted.
    first, second = torch2jax(function, ones, output_shapes=(Size((3,)), Size((3,))))(x)
    assert_equal(first, x + 1)
    assert_equal(second, x)
    named = torch2jax(lambda a: [a, (a + 1,)], ones, output_shapes={"p": ones, "q": {"r": ones}})(x)
    assert_equal(named["q"]["r"], x + 1)


def test_integer_results_are_narrowed_where_jax_would():
    wrapped = torch2jax(lambda a: a.argmax(), ones, output_shapes=jax.ShapeDtypeStruct((), "int64"))
    assert (wrapped(x).dtype, int(wrapped(x))) == (jnp.int32, 2)
    unseen = torch2jax(
        lambda a: torch.tensor(int(a.detach().numpy().argmax())),
        ones,
        output_shapes=jax.ShapeDtypeStruct((), "int32"),
    )
    assert (unseen(x).dtype, int(unseen(x))) == (jnp.int32, 2)


# ---- Other dtypes than the examples' -------------------------------------------------------------


def test_floats_after_an_integer_example_stay_floats_and_have_gradients():
    wrapped = torch2jax(product, ones, numbers)
    half = x + 0.5
    assert_close(wrapped(x, half), (x * half).sum())
    assert_equal(jax.grad(wrapped, 1)(x, half), x)
    assert float(wrapped(x, i)) == 8


def test_a_tensor_example_gives_torch_its_dtype_back():
    seen = []

    def look(a, labels):
        seen.append((a.dtype, labels.dtype))
        return torch.nn.functional.cross_entropy(a, labels)

    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    wrapped = torch2jax(look, logits, labels)
    arrays = jnp.asarray(logits.numpy(), jnp.float32), jnp.asarray(labels.numpy())
    assert arrays[1].dtype == jnp.int32
    wrapped(*arrays)
    value, gradient = jax.jit(jax.value_and_grad(wrapped))(*arrays)
    assert set(seen) == {(torch.float64, torch.int64)}
    assert value.dtype == gradient.dtype == jnp.float32
    single = logits.float().requires_grad_()
    torch.nn.functional.cross_entropy(single, labels).backward()
    assert_close(gradient, single.grad)
    hessian = jax.hessian(wrapped)(*arrays)
    expected = torch.autograd.functional.hessian(
        lambda a: torch.nn.functional.cross_entropy(a, labels), single.detach()
    )
    assert_close(hessian, expected)


def test_shapes_as_examples_leave_torch_what_jax_holds():
    seen = []

    def look(a):
        seen.append(a.dtype)
        return a * 2

    torch2jax(look, jax.ShapeDtypeStruct((3,), "float64"))(x)
    assert set(seen) == {torch.float32}


def test_with_x64_wide_and_narrow_calls_are_kept_apart():
    wrapped = torch2jax(lambda a: a * 2, torch.ones(3, dtype=torch.float64))
    with jax.enable_x64(True):
        wide = jnp.asarray([0.1, 0.2, 0.3], jnp.float64)
        assert wrapped(wide).dtype == jnp.float64
        assert_equal(wrapped(wide), 2 * wide)
        assert wrapped(wide.astype(jnp.float32)).dtype == jnp.float32
    assert wrapped(x).dtype == jnp.float32
    declared = torch2jax(lambda a: a * 2, ones, output_shapes=Size((3,)))
    with jax.enable_x64(True), pytest.warns(BridgeWarning, match=r"float64\[3\]"):
        assert declared(wide).dtype == jnp.float64


def test_python_numbers_are_arrays_as_their_examples_were():
    def function(a, scale):
        return a * scale + scale.numel()

    wrapped = torch2jax(function, ones, torch.tensor(1.0))
    assert_equal(wrapped(x, 2.5), 2.5 * x + 1)
    assert_close(jax.grad(lambda s: wrapped(x, s).sum())(2.5), 6)
    # Another number must not be another plan with the old number in it.
    assert_equal(wrapped(x, 3.5), 3.5 * x + 1)


# ---- Other structures than the examples' ---------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [((x,), {}), (([x], x), {}), ((x, x, x), {}), ((x,), {"b": x}), ((x, None), {})],
    ids=["fewer", "a list", "more", "by name", "None"],
)
def test_another_structure_is_an_error(arguments):
    args, kwargs = arguments
    with pytest.raises(ArgumentError, match=r"expected arguments .* of the examples' structure"):
        torch2jax(product, ones, ones)(*args, **kwargs)


def test_another_structure_than_the_first_call_had_is_an_error():
    wrapped = torch2jax_auto(lambda tree: tree["a"] + tree["b"])
    assert_equal(wrapped({"a": x, "b": x}), 2 * x)
    assert wrapped({"a": jnp.ones(2), "b": 1.0}).shape == (2,)
    with pytest.raises(ArgumentError, match="of the examples' structure"):
        wrapped({"a": x, "b": x, "c": x})


def test_leaves_that_are_no_arrays_are_errors():
    with pytest.raises(ArgumentError, match=r"example `args\[1\]`: expected a tensor.*got 3 \(int"):
        torch2jax(product, ones, 3)
    with pytest.raises(ArgumentError, match=r"example `kwargs\['b'\]`.*got 'mean'"):
        torch2jax(product, ones, example_kw={"b": "mean"})
    with pytest.raises(ArgumentError, match=r"argument `args\[1\]`: expected an array.*Tensor"):
        torch2jax(product, ones, ones)(x, ones)
    with pytest.raises(ArgumentError, match="got 'text'"):
        torch2jax(product, ones, ones)(x, "text")


# ---- Derivatives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_depth_is_the_highest_order(depth):
    derivative = torch2jax(lambda a: a**4, torch.tensor(1.0), depth=depth)
    expected = [16.0, 32.0, 48.0, 48.0]
    for order in range(depth + 1):
        assert float(derivative(2.0)) == expected[order]
        derivative = jax.grad(derivative)
    with pytest.raises(DifferentiationError, match=f"wrapped with depth={depth}; got one of order"):
        derivative(2.0)


def test_forward_mode_counts_too():
    wrapped = torch2jax(lambda a: (a**3).sum(), ones, depth=1)
    assert float(jax.jvp(wrapped, (x,), (x,))[1]) == 108
    with pytest.raises(DifferentiationError, match="depth=1"):
        jax.hessian(wrapped)(x)
    with pytest.raises(DifferentiationError, match=r"expected no derivative, since .*depth=0"):
        jax.jvp(without_vjp(lambda a: a * 2, ones), (x,), (x,))


def test_without_torch_vjp_only_autograd_differentiates(monkeypatch):
    def function(a):
        return (torch.sin(a) * a).sum()

    asked = []

    def spy(function, *primals, vjp=torch.func.vjp):
        asked.append(len(primals))  # and not the function, which holds tensors
        return vjp(function, *primals)

    monkeypatch.setattr(torch.func, "vjp", spy)
    wrapped = torch2jax(function, ones, use_torch_vjp=False)
    tensor = torch.from_numpy(np.array(x))
    expected = torch.autograd.functional.jacobian(function, tensor)
    assert_close(jax.grad(wrapped)(x), expected)
    expected = torch.autograd.functional.hessian(function, tensor)
    assert_close(jax.hessian(wrapped)(x), expected)
    words = wrapped.explain(x)
    assert "tape: the function runs once" in words
    assert "torch.func" not in words
    assert asked == []
    # Otherwise graphs of torch.func are what higher orders go by.
    assert_close(jax.hessian(torch2jax(function, ones))(x), expected)
    assert asked


def test_keyword_arguments_have_gradients():
    def function(a, *, scale, shift=None):
        return (a * scale if shift is None else a * scale + shift).sum()

    wrapped = torch2jax(function, ones, example_kw={"scale": ones, "shift": ones})
    gradient = jax.grad(lambda a, kw: wrapped(a, **kw), (0, 1))
    left, right = jax.jit(gradient)(x, {"scale": 2 * x, "shift": x})
    assert_equal(left, 2 * x)
    assert_equal(right["scale"], x)
    assert_equal(right["shift"], np.ones(3))
    with pytest.raises(ArgumentError, match="structure"):
        wrapped(x, scale=x)


def test_example_values_decide_where_shapes_do_not():
    def positive(a):
        return a[a > 0]

    wrapped = torch2jax(positive, torch.tensor([1.0, -1.0, 2.0]))
    with pytest.warns(BridgeWarning, match="run once more, on the example arguments"):
        result = jax.jit(wrapped)(jnp.asarray([-1.0, 5.0, 6.0]))
    assert_equal(result, [5, 6])


# ---- Locks ---------------------------------------------------------------------------------------


class Watched:
    """A lock that knows how often it was taken, and whether it is held."""

    # Without a __dict__, or the engine would put its state back after a trial run.
    __slots__ = ("held", "lock", "taken")

    def __init__(self):
        self.lock, self.taken, self.held = threading.Lock(), 0, False

    def __enter__(self):
        self.lock.acquire()
        self.taken, self.held = self.taken + 1, True

    def __exit__(self, *error):
        self.held = False
        self.lock.release()


def test_a_lock_is_held_forwards_and_backwards_and_given_back():
    lock = Watched()

    def function(a):
        assert lock.held or type(a) is not torch.Tensor
        if bool(a.sum() < 0):
            raise ValueError("negative")
        return (a**2).sum()

    wrapped = torch2jax(function, ones, output_shapes=Size([]), lock=lock)
    assert_equal(jax.grad(wrapped)(x), 2 * x)
    assert (lock.taken, lock.held) == (2, False)
    with pytest.raises(Exception, match="negative"):
        wrapped(-x)
    assert not lock.held
    graph = Watched()
    gradient = jax.jit(jax.grad(torch2jax(lambda a: (a**2).sum(), ones, lock=graph)))
    assert_equal(gradient(x), 2 * x)
    assert (graph.taken > 0, graph.held) == (True, False)


@pytest.mark.parametrize(("method", "calls"), [("sequential", 4), ("torch_vmap", 1)])
def test_a_lock_is_held_by_batches(method, calls):
    lock = Watched()
    wrapped = torch2jax(lambda a: a * 2, ones, vmap_method=method, lock=lock)
    assert_equal(jax.vmap(wrapped)(jnp.ones((4, 3))), np.full((4, 3), 2))
    assert (lock.taken, lock.held) == (calls, False)


@pytest.mark.parametrize(
    "declared", [{}, {"output_shapes": [Size((4, 2))]}], ids=["free", "declared"]
)
def test_modules_are_kept_apart_whether_outputs_are_declared_or_not(declared):
    linear = torch.nn.Linear(3, 2).requires_grad_(False)
    params = dict(linear.named_parameters())

    def swapping(params, x):
        return torch.func.functional_call(linear, params, (x,))

    arrays = {"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    wrapped = torch2jax(swapping, params, torch.ones(4, 3), **declared)
    assert "concurrency  locked" in wrapped.explain(arrays, jnp.ones((4, 3)))
    norm = torch2jax(torch.nn.BatchNorm1d(2), torch.ones(4, 2), **declared)
    assert "concurrency  locked" in norm.explain(jnp.ones((4, 2)))


def test_a_module_that_is_switched_is_seen():
    dropout = torch.nn.Dropout(1.0)
    wrapped = torch2jax(dropout, ones, output_shapes=Size((3,)))
    assert_equal(wrapped(x), np.zeros(3))
    dropout.eval()
    assert_equal(wrapped(x), x)
    assert_equal(jax.grad(lambda a: wrapped(a).sum())(x), np.ones(3))


def test_the_process_lock_lets_calls_nest():
    inner = torch2jax(lambda a: a * 2, ones, lock=True)

    def outer(a):
        return torch.from_numpy(np.array(inner(np.array(a.numpy()))))

    wrapped = torch2jax(outer, ones, output_shapes=Size((3,)), lock=True)
    assert_equal(wrapped(x), 2 * x)


# ---- The rest ------------------------------------------------------------------------------------


def test_flat_functions_take_arrays_and_give_what_was_declared():
    wrapped = torch2jax_flat(lambda a, b: (a + b, a.sum()), [ones, torch.tensor(1.0)])
    total, first = wrapped(x, x)
    assert_equal(total, 2 * x)
    assert float(first) == 6
    assert_equal(jax.vmap(wrapped)(jnp.stack([x, x]), jnp.stack([x, x]))[1], [6, 6])
    with pytest.raises(OutputError, match=r"float32\[3\], as declared; torch returns float32\[4\]"):
        wrapped(jnp.ones(4), jnp.ones(4))
    with pytest.raises(ArgumentError, match="expected arrays as positional arguments"):
        wrapped([x], x)
    with pytest.raises(DifferentiationError, match="depth=0"):
        jax.grad(lambda a: wrapped(a, a)[1])(x)
    with pytest.raises(ArgumentError, match="expected output_shapes; got none"):
        torch2jax_flat(lambda a: a)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1.5}, "expected depth as an integer; got 1.5"),
        ({"lock": "yes"}, "expected lock as True, False or a lock"),
        ({"vmap_method": "none"}, "expected vmap_method as one of"),
        ({"example_kw": [1]}, "example_kw: expected a dict"),
        ({"output_shapes": "ab"}, "output_shapes: expected torch.Size"),
        ({"output_shapes": (Size((3,)), 2.5)}, "got 2.5"),
    ],
)
def test_parameters_that_mean_nothing_are_errors(options, message):
    with pytest.raises(ArgumentError, match=message):
        torch2jax(lambda a: a, ones, **options)


def test_a_dtype_that_examples_do_not_tell_is_an_error():
    for examples, got in (
        ((ones, ones.double()), "float32, float64"),
        ((numbers, numbers), "none"),
    ):
        with pytest.raises(ArgumentError, match=f"one floating dtype.*got {got}"):
            torch2jax(product, *examples, output_shapes=Size([]))


def test_the_old_name_of_out_specs():
    with pytest.warns(DeprecationWarning, match="old name of out_specs"):
        without_vjp(lambda a: a, ones, output_sharding_spec=jax.P())
    with (
        pytest.warns(DeprecationWarning, match="old name"),
        pytest.raises(ArgumentError, match="got both"),
    ):
        without_vjp(lambda a: a, ones, output_sharding_spec=jax.P(), out_specs=jax.P())


def test_nothing_stays_registered_once_nobody_can_call_it():
    def wrap_and_call():
        for declared in ({}, {"output_shapes": Size([])}):
            wrapped = torch2jax(kept, ones, **declared)
            jax.jit(jax.grad(wrapped))(x)
            wrapped(x)
            jax.jit(lambda a, kw=declared: torch2jax(kept, a, **kw)(a))(x)

    def kept(a):
        return (a**2).sum()

    wrap_and_call()
    assert any(key.startswith("kept@") for key in op_keys())
    gc.collect()
    gc.collect()
    assert not any(key.startswith("kept@") for key in op_keys())


def test_tensors_pass_straight_through():
    function = torch2jax(lambda a: [a, 1], ones, output_shapes=(Size((3,)), Size([])))
    result = function(ones)
    assert result[0] is ones
    assert result[1] == 1


def test_sharding_errors_are_of_the_family():
    assert issubclass(ShardingError, ValueError)
