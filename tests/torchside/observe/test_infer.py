"""How outputs are found: abstractly, in a second way, by the contract, by runs that are counted."""

from __future__ import annotations

import collections
import copy
import queue
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    BridgeWarning,
    PlanningError,
    TorchExecutionError,
    j2t,
    jax_callable,
    t2j,
)


@pytest.fixture
def x():
    return jnp.asarray([[1.0, 2.0], [3.0, 4.0]])


class Runs:
    """A list that no trial run is taken out of: what stands in a queue is not put back."""

    __hash__ = None

    def __init__(self):
        self._queue = queue.SimpleQueue()

    def append(self, value):
        self._queue.put(value)

    def __iter__(self):
        found = [self._queue.get() for _ in range(self._queue.qsize())]
        for value in found:
            self._queue.put(value)
        return iter(found)

    def __eq__(self, other):
        return list(self) == other


def counted(function):
    """The function, and how often it ran for real and on which sums."""
    runs = Runs()

    def wrapped(x):
        if not isinstance(x, torch._subclasses.FakeTensor):
            runs.append(float(x.detach().sum()))
        return function(x)

    return wrapped, runs


def positive_log(x):
    assert (x > 0).all(), "sigma must be positive"
    return x.log()


def hundreds(x):
    assert (x > 99).all(), "must be hundreds"
    return x.log()


def increasing(t):
    if not bool((t[1:] > t[:-1]).all()):
        raise ValueError("times must increase")
    return t.diff()


def branches(x):
    return x / x.norm() if float(x.norm()) > 1 else x


@pytest.mark.parametrize("function", [positive_log, increasing, branches])
def test_eager_functions_that_look_at_values_run_once_and_quietly(function, x):
    times, runs = counted(function)
    wrapped = jax_callable(times)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = wrapped(x)
    assert runs == [10.0]  # the run that planned is the call itself
    assert_close(first, function(torch.from_numpy(np.array(x))))
    assert_close(wrapped(x + 1), function(torch.from_numpy(np.array(x + 1))))
    assert runs == [10.0, 14.0]
    assert "taken from the first eager call, whose result was used" in wrapped.explain(x)
    assert "extra runs   0" in wrapped.explain(x)
    # An earlier eager call of the same plan decides under jit.
    assert_close(jax.jit(wrapped)(x), first)
    assert runs == [10.0, 14.0, 10.0]


def test_the_function_itself_fails_with_its_own_words(x):
    wrapped = jax_callable(positive_log)
    with pytest.raises(TorchExecutionError, match="AssertionError: sigma must be positive"):
        wrapped(-x)
    assert_close(wrapped(x), jnp.log(x))


def test_under_jit_the_contract_decides_without_any_run(x):
    times, runs = counted(positive_log)
    spec = {
        "schema": "jaxtorch/1",
        "name": "positive_log",
        "version": "1.0.0",
        "inputs": {"x": "float32[n, m]"},
        "outputs": {"y": "float32[n, m]"},
    }
    wrapped = jax_callable(times, spec=spec)
    traced = jax.jit(wrapped).trace(x)
    assert runs == []
    assert_close(traced.lower().compile()(x), jnp.log(x))
    assert runs == [10.0]


@pytest.mark.parametrize("kind", ["jax", "numpy", "torch"])
def test_under_jit_the_example_decides_with_one_run_and_a_warning(kind, x):
    times, runs = counted(positive_log)
    example = {"jax": x, "numpy": np.array(x), "torch": torch.from_numpy(np.array(x))}[kind]
    wrapped = jax_callable(times, example=(example,))
    with pytest.warns(BridgeWarning, match="run once more, on the example arguments"):
        result = jax.jit(wrapped)(x + 1)
    assert_close(result, jnp.log(x + 1))
    assert runs == [10.0, 14.0]
    assert "extra runs   1" in wrapped.explain(x)
    assert "one extra run on the example arguments" in wrapped.explain(x)


def test_made_up_values_are_the_last_resort_and_say_so(x):
    times, runs = counted(branches)
    wrapped = jax_callable(times)
    with pytest.warns(BridgeWarning, match="run twice more, on ones and on increasing numbers"):
        jax.jit(wrapped)(x)
    assert runs == [4.0, 8.0, 10.0]
    assert "last resort" in wrapped.explain(x)


def test_when_nothing_works_every_way_is_listed(x):
    with pytest.raises(PlanningError) as caught:
        jax.jit(jax_callable(hundreds, example=(np.ones(7, np.float32),)))(x)
    text = str(caught.value)
    for words in (
        "`x` float32[2, 2]",
        "  fake, fake-plain-attention: DataDependent",
        "  example: ",
        "  made-up ones, made-up increasing numbers, ",
        "made-up zeros: AssertionError: must be hundreds",
    ):
        assert words in text
    assert "give a contract with outputs, example=(...)" in text


def test_gradients_outside_of_jit_have_values_to_run_on(x):
    times, runs = counted(positive_log)
    wrapped = jax_callable(times)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), 1 / x)
    assert 0.0 not in runs


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_transformer_layers_are_found_abstractly(training, grad):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    layer.train(training)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 32)), jnp.float32)
    with torch.set_grad_enabled(grad):
        wrapped = jax_callable(layer)
        result = wrapped(x)
        wanted = layer(torch.from_numpy(np.array(x)))
        assert wrapped.plan(x).inference.traced
        assert wrapped.plan(x).inference.extra_runs == 0
    assert_close(result, wanted.detach())


def test_a_second_abstract_way_is_tried_before_any_run(x):
    """Fails at a fused attention kernel, which the second way goes round."""
    times, runs = counted(lambda x: x * 2)

    class Refusing(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "flash" in str(func):
                raise RuntimeError("stride mismatch")
            return func(*args, **(kwargs or {}))

    def picky(x):
        if isinstance(x, torch._subclasses.FakeTensor):
            with Refusing():
                torch.nn.functional.scaled_dot_product_attention(*[x.reshape(1, 1, -1, 1)] * 3)
        return times(x)

    wrapped = jax_callable(picky)
    plan = wrapped.plan(x)
    assert plan.inference.how == "fake-plain-attention"
    assert runs == []
    assert "not fake: RuntimeError: stride mismatch" in wrapped.explain(x)


def test_what_fails_as_a_fake_for_other_reasons_runs_with_a_warning(x):
    times, runs = counted(lambda x: x * 2)

    def refuses_fakes(x):
        if isinstance(x, torch._subclasses.FakeTensor):
            raise RuntimeError("no fakes here")
        return times(x)

    wrapped = jax_callable(refuses_fakes)
    with pytest.warns(BridgeWarning, match="no fakes here.*this eager call was run on copies"):
        wrapped(x)
    assert runs == [10.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped(x)
        wrapped(jnp.ones(3))  # one warning a callable
    assert runs == [10.0, 10.0, 3.0]


def test_planning_takes_no_memory_and_no_flops():
    wrapped = jax_callable(lambda x: (x @ x @ x @ x @ x).sum())
    small = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    wrapped.plan(small)
    before = psutil.Process().memory_info().rss
    huge = jax.ShapeDtypeStruct((1 << 17, 1 << 17), jnp.float32)  # 64 GiB a matrix
    assert wrapped.plan(huge).outputs[0].shape == ()
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_plan_and_explain_take_shapes_alone():
    wrapped = jax_callable(lambda x, *, k=2: x * k)
    shape = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
    assert wrapped.plan(shape, k=3).outputs[0].dtype == "bfloat16"
    assert "k  3" in wrapped.explain(shape, k=3)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_undeclared_randomness_is_noted_and_plain_attention_is_not():
    x = jnp.ones((2, 3, 4))
    assert "random" in jax_callable(lambda x: torch.nn.functional.dropout(x)).explain(x)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert "random" not in jax_callable(lambda x: attention(x, x, x)).explain(x)


def test_a_call_on_constants_inside_somebodys_jit():
    wrapped = jax_callable(positive_log)
    constant = np.asarray([1.0, 2.0], np.float32)
    result = jax.jit(lambda y: wrapped(constant) + y)(jnp.ones(2))
    assert_close(result, np.log(constant) + 1)


# --- what such runs leave behind ------------------------------------------------------------------


def reads_values(x):
    """So that a first jitted call is planned by runs on made-up values."""
    return bool(x.abs().sum() > 1e9)


class Holder:
    def __init__(self):
        self.calls = 0
        self.seen = collections.deque(maxlen=3)
        self.cache = collections.OrderedDict(first=1, second=2)


def everything(example=None):
    """A function that changes all that it can, and what tells what it has changed."""
    torch.manual_seed(0)
    layer, norm = torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(4)
    weight, held = torch.ones(2), Holder()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)

    def step(x):
        if reads_values(x):
            return x.sum()
        held.calls += 1
        held.seen.append(held.calls)
        held.cache.move_to_end("first")
        weight.add_(1)
        weight.data.mul_(2)
        optimizer.zero_grad()
        loss = (layer(norm(x)) * weight).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss.detach() + torch.rand(())

    def state():
        tensors = [*layer.state_dict().values(), *norm.state_dict().values(), weight]
        tensors += [v for s in optimizer.state.values() for v in s.values()]
        values = [tensor.clone() for tensor in tensors]
        grads = [None if p.grad is None else p.grad.clone() for p in layer.parameters()]
        plain = held.calls, list(held.seen), list(held.cache), len(optimizer.state)
        return values, grads, plain, torch.get_rng_state()

    return jax_callable(step, example=example), step, state


def equal_states(one, other):
    values, grads, plain, generator = one
    others, other_grads, other_plain, other_generator = other
    assert plain == other_plain
    assert_equal(values, others)
    for mine, theirs in zip(grads, other_grads, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert type(mine) is torch.Tensor
            assert_equal(mine, theirs)
    assert_equal(generator, other_generator)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize("example", [False, True])
def test_runs_that_nobody_asked_for_leave_nothing_behind(example):
    x = jnp.asarray(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).numpy())
    wrapped, _, state = everything((jnp.ones((5, 4)),) if example else None)
    before = state()
    jax.jit(wrapped).lower(x)
    equal_states(state(), before)
    # And the call is the first one.
    _, twin, twins_state = everything()
    want = [twin(j2t(x)) for _ in range(2)]
    expected = twins_state()
    wrapped, _, state = everything((jnp.ones((5, 4)),) if example else None)
    jitted = jax.jit(wrapped)
    found = [jax.block_until_ready(jitted(x)) for _ in range(2)]
    equal_states(state(), expected)
    assert_close(found, [t2j(one) for one in want])


def test_gradients_that_a_backward_inside_accumulates_are_no_fakes():
    layer = torch.nn.Linear(4, 1)

    def energy(x):
        found = layer(x).pow(2).sum()
        found.backward()
        return found.detach()

    wrapped, x = jax_callable(energy), jnp.ones((5, 4))
    wrapped.plan(x)
    assert layer.weight.grad is None
    jax.block_until_ready(wrapped(x))
    twin = copy.deepcopy(layer)
    twin.zero_grad()
    twin(torch.ones(5, 4)).pow(2).sum().backward()
    assert_equal(layer.weight.grad, twin.weight.grad)


def test_planning_leaves_requires_grad_alone():
    weight = torch.ones(3)

    def f(x):
        weight.requires_grad_()
        return x * weight

    jax_callable(f).plan(jnp.ones(3))
    assert not weight.requires_grad


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
def test_a_trial_takes_back_no_step_of_another_thread():
    layer = torch.nn.Linear(2, 1)
    begun, ended, runs = threading.Event(), threading.Event(), Runs()

    def slow(x):
        if reads_values(x):
            return x.sum()
        if type(x) is torch.Tensor:
            runs.append(1)
            begun.set()
            # It does not end in this time, or it would be taken back.
            ended.wait(0.5)
        return layer(x)

    def step(x):
        layer.weight.data.add_(x.sum())
        return x

    before = layer.weight.detach().clone()
    stepping, x = jax_callable(step), jnp.ones((3, 2))
    stepping(0 * x)

    def other():
        assert begun.wait(60)
        jax.block_until_ready(stepping(x))
        ended.set()

    thread = threading.Thread(target=other)
    thread.start()
    jax.jit(jax_callable(slow)).lower(x)
    thread.join()
    assert len(list(runs)) > 0
    assert_close(layer.weight.detach(), before + 6)
