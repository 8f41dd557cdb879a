"""Exported programs within one process: what they call, and what is refused."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import pytest
import torch
from jax import export

from comparing import assert_equal
from jaxtorch_bridge import (
    BridgeError,
    ExportError,
    ffi_target_names,
    from_module,
    jax_callable,
)


def exported(function, *arguments):
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    return export.export(jax.jit(function), disabled_checks=allowed)(*arguments)


def round_trip(function, *arguments):
    return export.deserialize(exported(function, *arguments).serialize()).call


def test_names_of_targets():
    spec = {"schema": "jaxtorch/1", "name": "lib.f", "version": "2.1.0"}
    spec |= {"inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"}}
    f, g = jax_callable(lambda x: x, spec=spec), jax_callable(lambda x: x, name="plain_g")
    names = ffi_target_names()
    assert names[0] == "jaxtorch_bridge.call"
    assert {"jaxtorch_bridge.call:lib.f@2.1.0", "jaxtorch_bridge.call:plain_g@0"} <= set(names)
    assert list(names) == sorted(names)
    text = exported(f, jnp.ones(2)).mlir_module()
    assert '@"jaxtorch_bridge.call:lib.f@2.1.0"' in text
    del f, g
    gc.collect()
    assert not {"jaxtorch_bridge.call:plain_g@0"} & set(ffi_target_names())


def test_only_what_is_allowed_is_exported():
    f = jax_callable(lambda x: x * 2, name="allowed_f")
    other = export.DisabledSafetyCheck.custom_call("jaxtorch_bridge.call:other@0")
    with pytest.raises(ValueError, match=r"jaxtorch_bridge\.call:allowed_f@0"):
        export.export(jax.jit(f), disabled_checks=[other])(jnp.ones(2))


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        lambda f: jax.grad(lambda x: f(x).sum()),
        jax.vmap,
        jax.jacfwd,
        lambda f: jax.grad(lambda x: jax.grad(lambda x: f(x).sum())(x).sum()),
        lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), c), x, None, length=3),
    ],
    ids=["call", "grad", "vmap", "jacfwd", "second", "jvp", "scan"],
)
def test_round_trip(transform):
    f = jax_callable(lambda x: (x * x).sin(), name="round_trip")
    program = transform(f)
    x = jnp.arange(3.0) + 1
    assert_equal(round_trip(program, x)(x), jax.jit(program)(x))


def test_shapes_may_be_of_any_rank_and_type():
    f = jax_callable(lambda x, i: {"a": x[i], "n": i + 1}, name="trees")
    x, i = jnp.ones((4, 2), "bfloat16"), jnp.array([1, 3])
    result = round_trip(lambda x, i: f(x, i), x, i)(x, i)
    assert result["a"].dtype == "bfloat16"
    assert_equal(result["n"], [2, 4])


def test_functions_that_differ_in_their_weights_alone_need_names():
    def scaled(weight, **options):
        return jax_callable(lambda x: x * weight, **options)

    one = torch.ones(3, requires_grad=True)
    f, g = scaled(one), scaled((2 * one).detach().requires_grad_())
    x = jnp.ones(3)
    program = round_trip(f, x)  # nothing looks like it yet
    assert_equal(g(x), [2, 2, 2])
    for alike in (lambda x: f(x), g):
        with pytest.raises(ExportError, match=r"has the same code and constants.* name=") as caught:
            exported(alike, x)
        assert isinstance(caught.value, BridgeError)
    with pytest.raises(Exception, match=r"ExportError: .*holds several that look alike"):
        program(x)
    named = scaled((3 * one).detach().requires_grad_(), name="thrice")
    assert_equal(round_trip(named, x)(x), [3, 3, 3])


def test_functions_without_weights_may_be_defined_again():
    def define():
        return jax_callable(lambda x: x * 5, name="again")

    first, second = define(), define()
    x = jnp.ones(2)
    assert_equal(first(x), second(x))
    assert_equal(round_trip(second, x)(x), [5, 5])


def test_one_callable_planned_in_two_ways_is_no_double():
    f = jax_callable(lambda x: x + 1, name="two_ways")
    x = jnp.ones(2)
    assert_equal(f(x), f(x=x))
    assert_equal(round_trip(lambda x: f(x=x), x)(x), [2, 2])
    assert_equal(round_trip(jax.grad(lambda x: f(x=x).sum()), x)(x), [1, 1])


def test_nothing_is_imported_because_a_program_says_so(run_python, tmp_path):
    (tmp_path / "sinister.py").write_text("raise SystemExit('imported')")
    text = run_python(
        f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from jaxtorch_bridge import load_spec
spec = load_spec({{"schema": "jaxtorch/1", "name": "sinister.f", "version": "1.0.0",
                  "function": "sinister:f", "inputs": {{}}, "outputs": {{"y": "int8[]"}}}})
import jax, jax.numpy as jnp, torch
from jax import export
from jaxtorch_bridge import ffi_target_names, jax_callable
f = jax_callable(lambda: torch.tensor(1, dtype=torch.int8), spec=spec)
allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
data = export.export(jax.jit(f), disabled_checks=allowed)().serialize()
del f
import gc
gc.collect(); jax.clear_caches(); gc.collect()
try:
    print(export.deserialize(data).call())
except Exception as error:
    print(error)
print("sinister" in sys.modules)
"""
    )
    assert "`sinister.f@1.0.0`" in text
    assert text.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda f, x: f({"a": x}), lambda f, x: f({"b": x})),
        (lambda f, x: f({"b": x}, None), lambda f, x: f({"b": x}, ())),
        (lambda f, x: f({"b": x}, [1]), lambda f, x: f({"b": x}, (1,))),
    ],
    ids=["keys", "nothing", "containers"],
)
def test_a_program_calls_the_function_in_its_own_form(first, second):
    def by_form(tree, rest=None):
        factor = 2 if "a" in tree else 3
        return next(iter(tree.values())) * (factor if isinstance(rest, tuple) else 5 * factor)

    f = jax_callable(by_form, name="by_form")
    x = jnp.ones(2)
    assert first(f, x).tolist() != second(f, x).tolist()
    for way in (second, first):
        program = lambda x, way=way: way(f, x)  # noqa: E731
        assert_equal(round_trip(program, x)(x), program(x))


def test_a_program_calls_a_module_in_its_own_mode():
    taken = from_module(torch.nn.Dropout(0.5))
    x, key = jnp.ones(64), jax.random.key(0)

    def applied(train):
        return lambda x: taken.apply(taken.params, x, train=train, rng=key)

    assert_equal(applied(False)(x), x)
    for train in (True, False):
        assert_equal(round_trip(applied(train), x)(x), applied(train)(x))


def test_wrapping_a_function_starts_no_backend(run_python):
    text = run_python(
        """
from jax._src import xla_bridge
from jaxtorch_bridge import jax_callable
f = jax_callable(lambda x: x, name="early")
assert not xla_bridge.backends_are_initialized()
import jax, jax.numpy as jnp, numpy as np
made = jax.ffi.ffi_call("jaxtorch_bridge.call:early@0", jax.ShapeDtypeStruct((2,), "float32"))
late = jax_callable(lambda x: x, name="late")
again = jax.ffi.ffi_call("jaxtorch_bridge.call:late@0", jax.ShapeDtypeStruct((2,), "float32"))
for call in (made, again):
    try:
        call(jnp.ones(2), op="early@0/0123456789abcdef", exported=np.int64(1))
    except Exception as error:
        print(error)
"""
    )
    # Both reach the handler.
    assert text.count("OpNotRegisteredError: this program calls the torch function `early@0`") == 2


def test_a_program_for_several_platforms():
    f = jax_callable(lambda x: x * 2, name="several_platforms")
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    x = jnp.ones(3)
    made = export.export(jax.jit(f), disabled_checks=allowed, platforms=("cpu", "cuda"))(x)
    data = made.serialize()
    del f
    jax.clear_caches()
    gc.collect()
    again = jax_callable(lambda x: x * 2, name="several_platforms")
    assert_equal(export.deserialize(data).call(x), [2, 2, 2])
    del again
