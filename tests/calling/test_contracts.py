"""A contract given to `jax_callable` is enforced: when tracing, and when running."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import OutputError, SpecError, SpecMismatchError, jax_callable, load_spec

YAML = """\
schema: jaxtorch/1
name: attention
version: 2.1.0
inputs:
  q: float32[batch, heads, seq, dim]
  k: float32[batch, heads, keys, dim]
  v: float32[batch, heads, keys, dim]
  mask: {shape: "[batch, keys]", dtype: bool, optional: true}
static: {causal: false}
outputs:
  out: float32[batch, heads, seq, dim]
"""


@pytest.fixture
def attention(tmp_path):
    path = tmp_path / "attention.yaml"
    path.write_text(YAML)

    @jax_callable(spec=path)
    def attention(q, k, v, mask=None, *, causal=False):
        weights = q @ k.transpose(-1, -2)
        if mask is not None:
            weights = weights.masked_fill(~mask[:, None, None], -1e9)
        return torch.softmax(weights, -1) @ v

    return attention


def ones(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


def test_a_call_that_fits(attention):
    q, k = ones(2, 3, 5, 4), ones(2, 3, 6, 4)
    assert attention(q, k, k).shape == (2, 3, 5, 4)
    assert jax.jit(attention)(q, k, v=k).shape == (2, 3, 5, 4)
    assert attention(q, k, k, ones(2, 6, dtype=bool), causal=False).shape == (2, 3, 5, 4)
    assert attention.spec == load_spec(attention.spec)
    assert "attention.yaml" in attention.explain(q, k, k)
    assert dict(attention.plan(q, k, k).sizes)["keys"] == 6


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(2, 3, 5, 4), (2, 7, 6, 4), (2, 7, 6, 4)], r"input `k`: .*`heads`.*3.*got 7"),
        ([(2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 8, 4)], r"input `v`: .*`keys`.*6.*got 8"),
        ([(2, 3, 5), (2, 3, 6, 4), (2, 3, 6, 4)], "input `q`: .*rank|input `q`: .*dimensions"),
    ],
)
def test_sizes_that_disagree_name_the_argument_the_sizes_so_far_and_the_line(
    attention, shapes, words, jit
):
    arrays = [ones(*shape) for shape in shapes]
    call = jax.jit(lambda *a: attention(*a)) if jit else attention
    with pytest.raises(SpecMismatchError, match=words) as caught:
        call(*arrays)
    text = str(caught.value)
    assert text.startswith("attention@2.1.0, input `")
    assert "attention.yaml:" in text
    if "`heads`" in words:
        assert "batch=2" in text
        assert caught.value.sizes["batch"] == 2
        assert "attention.yaml:6:6" in text


def test_a_dtype_that_the_contract_does_not_say(attention):
    q = ones(2, 3, 5, 4)
    with pytest.raises(SpecMismatchError, match=r"input `q`: expected dtype float32.*got float16"):
        attention(q.astype(jnp.float16), q, q)


def test_unknown_and_missing_arguments(attention):
    q = ones(2, 3, 5, 4)
    with pytest.raises(SpecMismatchError, match="`v`"):
        attention(q, q)
    with pytest.raises(SpecMismatchError, match="casual"):
        attention(q, q, q, casual=True)


def simple(outputs, **extra):
    return {
        "schema": "jaxtorch/1",
        "name": "simple",
        "version": "1.0.0",
        "inputs": {"x": "float32[n]"},
        "outputs": outputs,
    } | extra


def test_outputs_are_checked_when_tracing():
    wrapped = jax_callable(lambda x: x[:1], spec=simple({"y": "float32[n]"}))
    with pytest.raises(SpecMismatchError, match=r"simple@1\.0\.0, output `y`.*n.*when tracing"):
        jax.jit(wrapped)(ones(3))
    wrapped = jax_callable(lambda x: x > 0, spec=simple({"y": "float32[n]"}))
    with pytest.raises(SpecMismatchError, match=r"output `y`.*float32.*bool"):
        wrapped(ones(3))


def test_what_torch_really_returned_is_checked_when_running():
    """The contract decides under jit; torch then returns something else."""

    def liar(x):
        return x[: int((x > 0).sum())]

    wrapped = jax_callable(liar, spec=simple({"y": "float32[n]"}))
    assert_equal(jax.jit(wrapped)(ones(3)), np.ones(3))
    words = r"simple@1\.0\.0, output `y`: planned float32\[3\], but torch returned float32\[2\]"
    x = jnp.asarray([1.0, -1.0, 1.0])
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=words):
        jax.jit(wrapped)(x)
    with pytest.raises(OutputError, match=words):
        wrapped(x)
    with pytest.raises(OutputError, match=r"Sizes: n=3\. \[contract simple"):
        wrapped(x)
    assert "taken from the contract; the function was not run" in wrapped.explain(x)


def test_an_output_size_that_only_running_tells():
    wrapped = jax_callable(lambda x: x.nonzero(), spec=simple({"y": "int64[found, 1]"}))
    assert wrapped(jnp.asarray([1.0, 0.0, 2.0])).shape == (2, 1)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
def test_torch_sees_int64_labels_where_the_contract_says_so(jit, x64):
    spec = {
        "schema": "jaxtorch/1",
        "name": "cross_entropy",
        "version": "1.0.0",
        "inputs": {"logits": "float32[batch, classes]", "labels": "int64[batch]"},
        "outputs": {"loss": "float32[]"},
    }
    seen = []
    note = seen.append  # a list in reach would be put back after planning

    def cross_entropy(logits, labels):
        note(labels.dtype)
        return torch.nn.functional.cross_entropy(logits, labels)

    with jax.enable_x64(x64):
        wrapped = jax_callable(cross_entropy, spec=spec)
        call = jax.value_and_grad(wrapped)
        logits = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
        labels = jnp.asarray([0, 2, 1, 1], jnp.int32)
        value, gradient = (jax.jit(call) if jit else call)(logits, labels)
    assert set(seen) == {torch.int64}
    tensor = torch.from_numpy(np.array(logits)).requires_grad_()
    wanted = torch.nn.functional.cross_entropy(tensor, torch.tensor([0, 2, 1, 1]))
    wanted.backward()
    assert_close(value, wanted.detach())
    assert_close(gradient, tensor.grad)


def test_outputs_in_a_dict_go_by_name():
    wrapped = jax_callable(
        lambda x: {"total": x.sum(), "each": x * 2},
        spec=simple({"total": "float32[]", "each": "float32[n]"}),
    )
    result = wrapped(ones(3))
    assert float(result["total"]) == 3.0
    assert_equal(result["each"], 2 * np.ones(3))


def test_nested_inputs():
    spec = {
        "schema": "jaxtorch/1",
        "name": "linear",
        "version": "1.0.0",
        "inputs": {
            "x": "float32[batch, n]",
            "params": {"weight": "float32[n, m]", "bias": "float32[m]"},
        },
        "outputs": {"y": "float32[batch, m]"},
    }
    wrapped = jax_callable(lambda x, params: x @ params["weight"] + params["bias"], spec=spec)
    params = {"weight": ones(3, 2), "bias": ones(2)}
    assert_equal(wrapped(ones(4, 3), params), 4 * np.ones((4, 2)))
    with pytest.raises(SpecMismatchError, match=r"input `params.*bias.*`: .*`m`.*2.*got 3"):
        wrapped(ones(4, 3), params | {"bias": ones(3)})


def test_a_bad_file_reports_all_its_problems_with_their_places(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "schema: jaxtorch/1\nname: bad\nversion: 1.0\ninputs:\n  x: float33[n]\n"
        "  y: float32[n\noutputs:\n  z: float32[]\nvjp_dept: 2\n"
    )
    with pytest.raises(SpecError) as caught:
        jax_callable(lambda x, y: x, spec=path)
    lines = {problem.line for problem in caught.value.problems}
    assert {3, 5, 6, 9} <= lines
    assert "did you mean" in str(caught.value).lower()


def test_static_defaults_must_be_the_functions_own():
    spec = simple({"y": "float32[n]"}, static={"scale": 2.0})
    with pytest.raises(SpecError, match=r"static\.scale.*own default 1\.0.*got 2\.0"):
        jax_callable(lambda x, scale=1.0: x * scale, spec=spec)
    assert_equal(jax_callable(lambda x, scale=2.0: x * scale, spec=spec)(ones(2)), [2, 2])


def test_a_modules_inputs_go_by_the_names_of_forward():
    spec = {
        "schema": "jaxtorch/1",
        "name": "linear",
        "version": "1.0.0",
        "inputs": {"input": "float32[batch, 3]"},
        "outputs": {"output": "float32[batch, 2]"},
    }
    assert jax_callable(torch.nn.Linear(3, 2), spec=spec)(ones(4, 3)).shape == (4, 2)


def test_decorated_methods_keep_their_contract_and_example():
    class Holder:
        @jax_callable(spec=simple({"y": "float32[n]"}))
        def method(self, x):
            return x * 2

        @jax_callable(example=(np.ones(2, np.float32),))
        def looks(self, x):
            assert (x > 0).all()
            return x

    holder = Holder()
    assert holder.method.plan(ones(2)).label == "simple@1.0.0"
    with pytest.warns(UserWarning, match="on the example arguments"):
        jax.jit(lambda x: holder.looks(x))(ones(2))
