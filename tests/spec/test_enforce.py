from __future__ import annotations

import pytest

from jaxtorch_bridge.errors import SpecMismatchError
from jaxtorch_bridge.spec.enforce.inputs import bind_inputs
from jaxtorch_bridge.spec.enforce.outputs import check_outputs, resolve_outputs
from jaxtorch_bridge.spec.enforce.static_arguments import check_static
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.language.sizes import Sizes
from jaxtorch_bridge.spec.model import CallableSpec

ATTENTION = {
    "schema": "jaxtorch/1",
    "name": "attention",
    "version": "2.1.0",
    "inputs": {
        "q": "float32[batch, heads, seq, dim]",
        "k": "float32[batch, heads, keys, dim]",
        "mask": {"shape": "[batch, keys]", "dtype": "bool", "optional": True},
    },
    "static": {"causal": False},
    "outputs": {"out": "float32[batch, heads, seq, dim]"},
}
Q = ((2, 8, 16, 64), "float32")
K = ((2, 8, 32, 64), "float32")


def contract(
    inputs: dict[str, object], outputs: dict[str, object] | None = None, **more: object
) -> CallableSpec:
    outputs = {"out": "float32[]"} if outputs is None else outputs
    return load_spec({**ATTENTION, "inputs": inputs, "outputs": outputs, **more})


def bind(spec: CallableSpec, *, x64: bool = False, **arrays: tuple[tuple[int, ...], str]) -> Sizes:
    leaves = {tuple(name.split("__")): array for name, array in arrays.items()}
    return bind_inputs(spec, leaves, x64=x64)


@pytest.fixture
def attention() -> CallableSpec:
    return load_spec(ATTENTION)


def test_names_bind_to_sizes(attention):
    sizes = bind(attention, q=Q, k=K, mask=((2, 32), "bool"))
    assert sizes.named == {"batch": 2, "heads": 8, "seq": 16, "dim": 64, "keys": 32}
    assert sizes.ellipsis is None
    assert sizes == bind(attention, k=K, q=Q)
    assert hash(sizes) == hash(bind(attention, q=Q, k=K))


def test_a_disagreeing_name_says_who_set_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attention.yaml").write_text(
        "schema: jaxtorch/1\nname: attention\nversion: 2.1.0\ninputs:\n"
        "  q: float32[batch, heads, seq, dim]\n  k: float32[batch, heads, keys, dim]\n"
        "outputs: {out: 'float32[batch]'}\n"
    )
    with pytest.raises(SpecMismatchError) as caught:
        bind(load_spec("attention.yaml"), q=Q, k=((2, 4, 16, 64), "float32"))
    assert str(caught.value) == (
        "attention@2.1.0, input `k`: expected dimension `heads` (axis 1) to be 8, set by `q` "
        "axis 1; got 4 in shape (2, 4, 16, 64). Sizes so far: batch=2, heads=8, seq=16, dim=64. "
        "Make both agree. [attention.yaml:6:6]"
    )
    assert caught.value.callable_name == "attention@2.1.0"
    assert caught.value.argument == "k"
    assert caught.value.sizes == {"batch": 2, "heads": 8, "seq": 16, "dim": 64}


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"q": Q}, r"input `k`: expected an array float32\[batch, heads, keys, dim\]; got nothing"),
        ({"q": Q, "k": K, "masc": ((2, 32), "bool")}, r"`masc`: .*\(did you mean `mask`\?\); got"),
        ({"q": Q, "k": K, "causal": ((), "bool")}, "a plain Python value, as it is static"),
        ({"q": Q, "k": ((2, 8), "float32")}, r"expected rank 4 for `\[batch.*; got rank 2 in"),
        ({"q": Q, "k": (K[0], "float16")}, "expected dtype float32; got float16 in shape"),
        ({"q": Q, "k": (K[0], "float64")}, "Cast `k` before the call"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(attention, arrays, match):
    with pytest.raises(SpecMismatchError, match=match) as caught:
        bind(attention, **arrays)
    assert caught.match(r"\[contract attention@2\.1\.0, inputs\.\w+\]$")


def test_a_fixed_size_must_agree():
    spec = contract({"x": "float32[n, 3]"})
    with pytest.raises(SpecMismatchError, match=r"axis 1 to have size 3; got 4 in shape \(2, 4\)"):
        bind(spec, x=((2, 4), "float32"))


def test_a_name_twice_in_one_input_must_agree():
    spec = contract({"x": "float32[n, n]"})
    with pytest.raises(
        SpecMismatchError, match=r"`n` \(axis 1\) to be 2, set by `x` axis 0; got 4"
    ):
        bind(spec, x=((2, 4), "float32"))


def test_arithmetic_waits_for_the_input_that_binds_its_names():
    spec = contract({"y": "float32[n+1, m//2]", "x": "float32[n, m]"})
    assert bind(spec, x=((3, 8), "float32"), y=((4, 4), "float32")).named == {"n": 3, "m": 8}
    match = r"input `y`: expected dimension `m//2` \(axis 1\) to be 4; got 5 in shape \(4, 5\)"
    with pytest.raises(SpecMismatchError, match=match):
        bind(spec, x=((3, 8), "float32"), y=((4, 5), "float32"))


def test_arithmetic_over_an_absent_optional_input_is_not_checked():
    optional = {"shape": "[n]", "dtype": "float32", "optional": True}
    spec = contract({"y": "float32[n+1]", "x": optional})
    assert bind(spec, y=((4,), "float32")).named == {}


def test_arithmetic_that_has_no_size_is_an_error():
    spec = contract({"x": "float32[n, m]", "y": "float32[n//m]"}, {"out": "float32[n-m]"})
    with pytest.raises(SpecMismatchError, match="a size for the dimension `n//m`; got a division"):
        bind(spec, x=((3, 0), "float32"), y=((4,), "float32"))
    with pytest.raises(SpecMismatchError, match=r"output `out`: expected a size of 0 or more .*-2"):
        resolve_outputs(spec, Sizes((("n", 1), ("m", 3))))


@pytest.mark.parametrize(
    ("shape", "actual", "rest", "named"),
    [
        ("[..., n]", (2, 3, 4), (2, 3), {"n": 4}),
        ("[n, ...]", (2, 3, 4), (3, 4), {"n": 2}),
        ("[n, ..., m]", (2, 3, 4), (3,), {"n": 2, "m": 4}),
        ("[n, ..., m]", (2, 4), (), {"n": 2, "m": 4}),
        ("[...]", (), (), {}),
    ],
)
def test_the_ellipsis_takes_what_is_left(shape, actual, rest, named):
    spec = contract({"x": f"float32{shape}"}, {"out": "float32[3, ...]"})
    sizes = bind(spec, x=(actual, "float32"))
    assert (sizes.ellipsis, sizes.named) == (rest, named)
    assert resolve_outputs(spec, sizes) == ((("out",), (3, *rest), "float32"),)


def test_the_ellipsis_is_the_same_everywhere():
    spec = contract({"x": "float32[..., n]", "y": "float32[..., n, 1]"})
    match = r"`...` to be \(2, 3\), set by `x`; got \(2,\) in .* Sizes so far: ...=\(2, 3\), n=4"
    with pytest.raises(SpecMismatchError, match=match):
        bind(spec, x=((2, 3, 4), "float32"), y=((2, 4, 1), "float32"))
    with pytest.raises(SpecMismatchError, match="expected at least rank 2 for"):
        bind(spec, x=((2, 3, 4), "float32"), y=((2,), "float32"))


def test_axes_after_the_ellipsis_are_counted_in_the_array():
    spec = contract({"x": "float32[n, ..., m, n+1]"})
    with pytest.raises(SpecMismatchError, match=r"`n\+1` \(axis 4\) to be 3; got 9"):
        bind(spec, x=((2, 7, 7, 4, 9), "float32"))


@pytest.mark.parametrize(
    ("wanted", "given", "x64", "fits"),
    [
        ("int64", "int32", False, True),
        ("uint64", "uint32", False, True),
        ("float64", "float32", False, True),
        ("complex128", "complex64", False, True),
        ("int64", "int64", True, True),
        ("int64", "int32", True, True),
        ("uint64", "uint32", True, True),
        ("int64", "uint32", True, False),
        ("float64", "float32", True, False),
        ("complex128", "complex64", True, False),
        ("int32", "int64", True, False),
        ("float32", "float64", True, False),
        ("float32", "bfloat16", False, False),
    ],
)
def test_which_dtypes_stand_for_one_of_the_contract(wanted, given, x64, fits):
    spec = contract({"x": f"{wanted}[]"})
    if fits:
        assert bind(spec, x64=x64, x=((), given)) == Sizes()
    else:
        with pytest.raises(SpecMismatchError, match=f"expected dtype .*; got {given} in"):
            bind(spec, x64=x64, x=((), given))


def test_groups_are_bound_and_named_by_path():
    spec = contract({"params": {"w": "float32[n]", "b": ["float32[n]"]}})
    with pytest.raises(SpecMismatchError, match=r"input `params\.b\.0`: .* set by `params\.w`"):
        bind(spec, params__w=((2,), "float32"), params__b__0=((3,), "float32"))


def test_outputs_resolve_from_the_inputs(attention):
    sizes = bind(attention, q=Q, k=K)
    assert resolve_outputs(attention, sizes) == ((("out",), (2, 8, 16, 64), "float32"),)


def test_outputs_with_names_of_their_own_wait_for_the_run():
    spec = contract({"x": "float32[n]"}, {"a": "int64[hits]", "b": {"c": "float32[hits+1, n]"}})
    sizes = bind(spec, x=((4,), "float32"))
    assert resolve_outputs(spec, sizes) is None
    returned = [((7,), "int64"), ((8, 4), "float32")]
    bound = check_outputs(spec, sizes, returned, x64=False, when="when running")
    assert bound.named == {"n": 4, "hits": 7}
    assert resolve_outputs(spec, bound) == (
        (("a",), (7,), "int64"),
        (("b", "c"), (8, 4), "float32"),
    )
    match = r"output `b\.c`: expected dimension `hits\+1` \(axis 0\) to be 8; torch returned 9"
    with pytest.raises(SpecMismatchError, match=match):
        check_outputs(
            spec, sizes, [((7,), "int64"), ((9, 4), "float32")], x64=False, when="when running"
        )


def test_outputs_with_an_unbound_ellipsis_wait_for_the_run():
    assert resolve_outputs(contract({}, {"out": "int8[..., 2]"}), Sizes()) is None


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        ([], r"outputs: expected 1 \(`out`\); torch returned 0 arrays when tracing"),
        ([Q, Q], "torch returned 2 arrays when tracing"),
        (
            [((2, 8, 16, 32), "float32")],
            r"`dim` \(axis 3\) to be 64, set by `q` axis 3; torch returned 32 in shape "
            r"\(2, 8, 16, 32\) when tracing",
        ),
        ([((2, 8), "float32")], "rank 4 for .*; torch returned rank 2 in"),
        ([(Q[0], "float16")], "expected dtype float32; torch returned float16 in shape"),
        ([(Q[0], "qint8")], r"qint8 \(JAX has no quantised dtypes"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(attention, returned, match):
    sizes = bind(attention, q=Q, k=K)
    with pytest.raises(SpecMismatchError, match=match) as caught:
        check_outputs(attention, sizes, returned, x64=True, when="when tracing")
    assert caught.match(r"Change the function or the contract .*\[contract attention@2\.1\.0, outp")
    assert caught.value.sizes == sizes.named


def test_output_dtypes_narrow_only_without_x64():
    spec = contract({}, {"out": "float32[]"})
    assert check_outputs(spec, Sizes(), [((), "float64")], x64=False, when="w") == Sizes()
    with pytest.raises(SpecMismatchError, match="expected dtype float32; torch returned float64"):
        check_outputs(spec, Sizes(), [((), "float64")], x64=True, when="when running")


def test_static_arguments_must_be_listed(attention):
    check_static(attention, {"causal": True})
    with pytest.raises(
        SpecMismatchError, match=r"`casual`: .*\(did you mean `causal`\?\)"
    ) as caught:
        check_static(attention, {"causal": True, "casual": 1})
    assert caught.value.argument == "casual"
    with pytest.raises(SpecMismatchError, match="`q`: expected an array, as it is an input"):
        check_static(attention, {"q": 1})
    with pytest.raises(SpecMismatchError, match="one of the static arguments none; got a static"):
        check_static(contract({}, static={}), {"dim": 1})
