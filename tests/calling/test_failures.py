"""What a caller sees when torch fails, and that the next call works."""

from __future__ import annotations

import traceback

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import OutputError, PlanningError, TorchExecutionError, jax_callable


@pytest.fixture
def x():
    return jnp.arange(6.0).reshape(2, 3)


def unless_fake(tensor):
    return not isinstance(tensor, torch._subclasses.FakeTensor)


def fails_when_run(x, *, mode="a"):
    if unless_fake(x):
        helper(x)
    return x


def helper(x):
    raise KeyError("no such thing")


def test_eager_failure_carries_the_exception_and_its_traceback(x):
    function = jax_callable(fails_when_run)
    with pytest.raises(TorchExecutionError) as caught:
        function(x, mode="b")
    text = str(caught.value)
    assert text.startswith("fails_when_run: the torch function raised KeyError: 'no such thing'")
    assert "in helper" in text
    assert "test_failures.py" in text
    assert "jaxtorch_bridge/" not in text
    assert "x     float32[2, 3]" in text
    assert "mode  'b' (static)" in text
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert any(frame.name == "helper" for frame in traceback.extract_tb(cause.__traceback__))
    assert caught.value.callable_name == "fails_when_run"


def test_failure_under_jit_carries_the_text(x):
    function = jax_callable(fails_when_run)
    with pytest.raises(
        (jax.errors.JaxRuntimeError, ValueError), match="KeyError: 'no such thing'"
    ) as caught:
        jax.jit(function)(x)
    assert "in helper" in str(caught.value)
    assert "x  float32[2, 3]" in str(caught.value)


def test_the_next_call_works(x):
    trouble = []

    @jax_callable
    def function(x):
        if trouble and unless_fake(x):
            raise ValueError("now")
        return x + 1

    jitted = jax.jit(lambda x: function(x))
    for call in (function, jitted):
        assert_equal(call(x), x + 1)
        trouble.append(1)
        with pytest.raises(Exception, match="now"):
            call(x)
        trouble.clear()
        assert_equal(call(x), x + 1)


def test_failure_in_the_middle_of_a_program(x):
    function = jax_callable(fails_when_run)

    @jax.jit
    def program(x):
        big = jnp.ones((300, 300)) @ jnp.ones((300, 300))
        return function(x * big[0, 0]) + 1

    for _ in range(2):
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="no such thing"):
            program(x).block_until_ready()


def test_failure_in_the_backward_pass_names_itself(x):
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            if float(gradient.sum()) > 0:  # a value: known only when it runs
                raise ArithmeticError("no way back")
            return gradient

    function = jax_callable(lambda x: Refuses.apply(x) * 2)
    with pytest.raises(
        Exception, match=r"\(backward\): the torch function raised ArithmeticError|no way back"
    ):
        jax.grad(lambda x: function(x).sum())(x)


def test_keyboard_interrupt_stays_one(x):
    @jax_callable
    def function(x):
        if unless_fake(x):
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        function(x)


def test_wrong_shapes_under_jit_show_torchs_own_words(x):
    function = jax_callable(lambda a, b: a @ b)
    with pytest.raises(PlanningError, match=r"`a` float32\[2, 3\], `b` float32\[2, 3\]") as caught:
        jax.jit(function)(x, x)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(TorchExecutionError, match="RuntimeError: mat1 and mat2"):
        function(x, x)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: 3, r"output 0: expected a torch.Tensor, got int \(3\)"),
        (lambda x: (x, "text"), "output 1: expected a torch.Tensor, got str"),
        (lambda x: object(), "output 0: expected a torch.Tensor, got object"),
    ],
)
def test_results_that_are_no_tensors(result, words, x):
    with pytest.raises(OutputError, match=words):
        jax_callable(result)(x)


def changes_its_mind(kinds):
    """A function that returns something else when it really runs."""
    return jax_callable(lambda x: kinds(x) if unless_fake(x) else x.clone())


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (
            lambda x: x[:1],
            r"output `output`: planned float32\[2, 3\], but torch returned float32\[1, 3\]",
        ),
        (lambda x: x.double(), r"planned float32\[2, 3\], but torch returned float64\[2, 3\]"),
        (
            lambda x: (x.clone(), x.clone()),
            r"expected 1 tensors \(`output` float32\[2, 3\]\), got tuple of 2",
        ),
        (lambda x: None, "but torch returned NoneType"),
        (lambda x: x.to_sparse(), "torch.sparse_coo tensor"),
        (lambda x: x.to("meta"), "output `output`"),
    ],
    ids=["shape", "dtype", "count", "type", "sparse", "meta"],
)
def test_results_that_differ_from_the_plan(kinds, words, x):
    function = changes_its_mind(kinds)
    with pytest.raises(OutputError, match=words):
        function(x)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=words):
        jax.jit(function)(x)


def test_another_structure_than_planned(x):
    function = jax_callable(
        lambda x: {"a": x.clone(), "b": x.clone()} if unless_fake(x) else (x.clone(), x.clone())
    )
    with pytest.raises(OutputError, match="expected results of the structure"):
        function(x)


def test_what_cannot_be_called():
    with pytest.raises(TypeError, match="expected a callable, got int"):
        jax_callable(3)
