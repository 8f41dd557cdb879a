"""Which function a loaded program calls, where this process holds others than the exporting one."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import pytest
import torch
from jax import export

from comparing import assert_equal
from jaxtorch_bridge import ffi_target_names, jax_callable
from jaxtorch_bridge.torchside.handler.native_module import op_keys

FAILURES = (jax.errors.JaxRuntimeError, ValueError)
x = jnp.arange(3.0) + 1


def exported(program, *arguments):
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    made = export.export(jax.jit(program), disabled_checks=allowed)(*arguments)
    return made.serialize()


def load(data):
    # JAX would take the executable that it has of an equal program.
    jax.clear_caches()
    return export.deserialize(data).call


def forgotten(make, program=lambda f: f, *arguments):
    """A program that calls a function which this process no longer holds."""
    f = make()
    label = repr(f).removeprefix("jax_callable(").rstrip(")").partition("@")[0] + "@"
    data = exported(program(f), *(arguments or (x,)))
    del f
    jax.clear_caches()
    gc.collect()
    assert not [key for key in op_keys() if key.startswith(label)]
    return data


def scaled(by, name="times", **options):
    return jax_callable(lambda x: x * by, name=name, **options)


def weights(number):
    return torch.full((3,), float(number), requires_grad=True)


def test_a_function_that_is_made_again_is_planned():
    data = forgotten(lambda: scaled(2))
    again = scaled(2)
    assert_equal(load(data)(x), 2 * x)
    del again


def test_without_the_function_the_words_say_what_to_import():
    data = forgotten(lambda: scaled(2, "missing"))
    with pytest.raises(FAILURES, match=r"OpNotRegisteredError: .*`missing@0`.*Import the module"):
        load(data)(x)


@pytest.mark.parametrize(
    ("make", "other", "words"),
    [
        (lambda: scaled(2), lambda: scaled(3), "the code is another one"),
        (
            lambda: jax_callable(lambda x: x + 1, name="times"),
            lambda: jax_callable(lambda x: x - 1, name="times"),
            "the code is another one",
        ),
        (
            lambda: scaled(2, mutates=()),
            lambda: scaled(2, copies=("x",)),
            r"`copies` is another one \(none in the program, x here\)",
        ),
        (
            lambda: scaled(2),
            lambda: scaled(2, vmap_method="sequential"),
            r"\(torch_vmap in the program, sequential here\)",
        ),
        (
            lambda: scaled(2),
            lambda: scaled(2, nondiff=("x",)),
            r"other arguments .*float32\[3\] \(no derivative\) here",
        ),
    ],
    ids=["number", "code", "copies", "vmap_method", "nondiff"],
)
def test_a_function_that_differs_is_refused_with_what_differs(make, other, words):
    for program in (lambda f: f, lambda f: jax.grad(lambda x: f(x).sum())):
        data = forgotten(make, program)
        differs = other()
        with pytest.raises(FAILURES, match=rf"`times@0` .*differs here: .*{words}.*Import the"):
            load(data)(x)
        assert_equal(differs(x), differs.torch(torch.tensor([1.0, 2.0, 3.0])))
        del differs


def test_another_contract_of_the_same_version_is_refused():
    def make(outputs):
        spec = {"schema": "jaxtorch/1", "name": "lib.f", "version": "1.0.0"}
        spec |= {"inputs": {"x": "float32[n]"}, "outputs": {"y": outputs}}
        return jax_callable(lambda x: x * 2, spec=spec)

    data = forgotten(lambda: make("float32[n]"))
    other = make("float32[3]")
    with pytest.raises(FAILURES, match=r"`lib.f@1.0.0` .*the contract is another one"):
        load(data)(x)
    del other


def test_functions_that_differ_in_weights_alone_are_never_mistaken():
    data = forgotten(lambda: scaled(weights(2), "weighed"))
    first = scaled(weights(2), "weighed")
    assert_equal(load(data)(x), 2 * x)
    second = scaled(weights(5), "weighed")
    # Also while only one of them has been planned.
    with pytest.raises(FAILURES, match=r"ExportError: .*several that look alike.*name="):
        load(data)(x)
    del first, second


def test_of_two_with_one_name_the_right_one_is_called():
    data = forgotten(lambda: scaled(2, "both"), jax.vmap, jnp.stack([x, x]))
    three, two, broken = scaled(3, "both"), scaled(2, "both"), jax_callable(len, name="both")
    assert_equal(three(x), 3 * x)
    assert_equal(load(data)(jnp.stack([x, x]))[1], 2 * x)
    del three, two, broken


def test_static_values_keep_their_types():
    def make():
        def by_type(x, value):
            return x * {int: 2, bool: 3, float: 5, str: 7, bytes: 11}[type(value)]

        return jax_callable(by_type, name="by_type")

    values = (1, True, 1.0, "1", b"1")
    programs = [forgotten(make, lambda f, value=value: lambda x: f(x, value)) for value in values]
    f = make()
    for data, factor in zip(reversed(programs), (11, 7, 5, 3, 2), strict=True):
        assert_equal(load(data)(x), factor * x)
    del f


def test_floats_keep_every_bit():
    def make():
        def sign(x, value):
            return x.new_tensor([value]).signbit() * 1.0 + x * (value == value)

        return jax_callable(sign, name="sign")

    values = (0.0, -0.0, float("nan"), float("-inf"), 5e-324)
    programs = [forgotten(make, lambda f, value=value: lambda x: f(x, value)) for value in values]
    f = make()
    wanted = [f(x, value) for value in values]
    for data, expected in zip(programs, wanted, strict=True):
        assert_equal(load(data)(x), expected)


def test_a_program_keeps_its_dtypes_whatever_the_process_holds():
    def make():
        return jax_callable(lambda x: (x.double().cumsum(0), x.argmax()), name="wide")

    narrow = forgotten(make)
    with jax.enable_x64(True):
        wide = forgotten(make)
    f = make()
    with jax.enable_x64(True):
        total, index = load(narrow)(x)
        assert (total.dtype, index.dtype) == ("float32", "int32")
    total, index = load(wide)(x)
    assert (total.dtype, index.dtype) == ("float64", "int64")
    assert_equal(total, [1, 3, 6])
    del f


def test_another_default_dtype_is_refused():
    data = forgotten(lambda: scaled(2, "default"))
    f = scaled(2, "default")
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(
            FAILURES, match=r"default dtype torch.float32; here it is torch.float64"
        ):
            load(data)(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_equal(load(data)(x), 2 * x)
    del f


def test_torchs_settings_are_those_of_the_exporting_thread():
    def make():
        return jax_callable(lambda x: x @ x.T, name="product")

    square = jnp.ones((3, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = forgotten(make, lambda f: f, square)
    f = make()
    assert load(half)(square).dtype == "bfloat16"
    assert f(square).dtype == "float32"


def test_a_function_that_looks_at_values_is_planned_by_one_call():
    def make():
        return jax_callable(lambda x: x * 2 if x.sum() > 0 else -x, name="looks_at_values")

    def plan(f):
        f(x)
        return f

    data = forgotten(lambda: plan(make()))
    f = make()
    with pytest.raises(FAILURES, match=r"call it once with arguments float32\[3\]"):
        load(data)(x)
    f(x)
    assert_equal(load(data)(x), 2 * x)


def test_an_executable_owns_its_op():
    data = forgotten(lambda: scaled(2, "owned"))
    f = scaled(2, "owned")
    compiled = jax.jit(load(data)).lower(x).compile()
    del f
    jax.clear_caches()
    gc.collect()
    assert_equal(compiled(x), 2 * x)
    assert any(key.startswith("owned@") for key in op_keys())
    del compiled
    gc.collect()
    assert not any(key.startswith("owned@") for key in op_keys())


def test_many_threads_may_load_at_once():
    from concurrent.futures import ThreadPoolExecutor

    data = forgotten(lambda: scaled(2, "many"), lambda f: jax.grad(lambda x: (f(x) ** 2).sum()))
    f = scaled(2, "many")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: load(data)(x), range(8)):
            assert_equal(found, 8 * x)
    del f
