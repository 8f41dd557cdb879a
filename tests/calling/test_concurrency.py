"""Calls on many devices at once: right answers, no hang, no growth, and words on the choice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.func import functional_call

from comparing import assert_close
from jaxtorch_bridge import (
    ArgumentError,
    SpecError,
    TorchExecutionError,
    j2t,
    jax_callable,
    t2j,
)
from jaxtorch_bridge.torchside.closure import locks

EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}

# Eight devices, each with parameters of its own, all through one module.
SWAPPING = """
import jax, jax.numpy as jnp, numpy as np, torch
from comparing import is_close
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable

net = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32))

import threading

class Together(torch.nn.Module):
    # All calls are at the same place at once: a race that may not happen shows nothing.
    meeting = threading.Barrier(8, timeout=300)

    def forward(self, x):
        if type(x) is torch.Tensor:
            self.meeting.wait()
        return x

def with_scale(scale, x):
    weights = {name: value * 0 + scale for name, value in net.named_parameters()}
    return torch.func.functional_call(net, weights, (x,))

f = jax_callable(with_scale, concurrency=MODE)
mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
over = dict(mesh=mesh, in_specs=(P("d"), P("d")), out_specs=P("d"), check_vma=False)
step = jax.jit(jax.shard_map(lambda scale, x: f(scale[0], x), **over))
scales = jnp.arange(8.0) / 100
x = jnp.ones((8 * 4, 32))
want = np.concatenate([
    with_scale(torch.tensor(i / 100), torch.ones(4, 32)).detach().numpy() for i in range(8)])
if MODE == "parallel":
    net.insert(1, Together())
    net.append(Together())
wrong = 0
for _ in range(CALLS):
    found = np.asarray(step(scales, x))
    wrong += sum(
        not is_close(a, b) for a, b in zip(np.split(found, 8), np.split(want, 8)))
print(wrong, f.plan(scales[0], x).concurrency.mode)
"""


def swapping(run_python, mode, calls):
    wrong, chosen = run_python(f"MODE, CALLS = {mode!r}, {calls}\n{SWAPPING}", env=EIGHT).split()
    return int(wrong), chosen


def test_swapped_parameters_meet_where_nothing_keeps_them_apart(run_python):
    # The danger itself: should it ever go away, so may what is built against it.
    wrong, chosen = swapping(run_python, "parallel", 1)
    assert chosen == "parallel"
    assert wrong > 0


@pytest.mark.parametrize(("mode", "chosen"), [(None, "locked"), ("locked", "locked")])
def test_swapped_parameters_stay_apart(mode, chosen, run_python):
    assert swapping(run_python, mode, 200) == (0, chosen)


STATEFUL = """
import os, jax, jax.numpy as jnp, numpy as np, torch
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable

class Counting(torch.nn.Module):
    # Reads, then writes: two calls at once would lose a count or use each other's.
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        before = self.count.clone()
        self.count += 1
        self.latest = x * 2
        return torch.stack([before[0], (self.latest - x).sum()])

net = Counting()
f = jax_callable(net)
mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
rounds = 50

def many(x):
    def one(carry, _):
        # The carry keeps XLA from taking the call out of the loop.
        return carry + 1, f(x + carry * 0)
    return jax.lax.scan(one, jnp.zeros(()), length=rounds)[1]

step = jax.jit(jax.shard_map(
    many, mesh=mesh, in_specs=P("d"), out_specs=P(None, "d"), check_vma=False))
x = jnp.arange(8.0)

def threads():
    return len(os.listdir("/proc/self/task"))

counts, sums = [], []
for call in range(CALLS // rounds):
    if call == 5:
        before = threads()
    found = np.asarray(step(x)).reshape(rounds, 8, 2)
    counts += list(found[..., 0].ravel())
    sums.append(np.all(found[..., 1] == np.arange(8.0)))
assert f.plan(x[:1]).concurrency.mode == "locked"
assert all(sums), "a call used another device's numbers"
assert sorted(counts) == list(range(8 * CALLS)), "a count was lost"
assert threads() <= before, f"{before} threads became {threads()}"
print("right", int(net.count))
"""


def test_eight_devices_times_ten_thousand_calls_of_a_stateful_module(run_python):
    printed = run_python(f"CALLS = 10_000\n{STATEFUL}", env=EIGHT)
    assert printed.split() == ["right", "80000"]


SHARED = """
import threading
import jax, jax.numpy as jnp, numpy as np, torch
from comparing import is_close
from jaxtorch_bridge import jax_callable

net = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 32))
zeros = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
swaps = jax_callable(
    lambda x: torch.func.functional_call(net, zeros, (x,)), concurrency="locked", name="swaps")
plain = jax_callable(lambda x: net(x) * 1.0, name="plain")
part = jax_callable(net[1])
gradient = jax.grad(lambda x: plain(x).sum())
x = jnp.ones((16, 32))
others = [jax.jit(plain), jax.jit(part), jax.jit(gradient)]
wants = [np.asarray(other(x)) for other in others]
wrong = []
stop = threading.Event()

def swap():
    run = jax.jit(swaps)
    while not stop.is_set():
        wrong.extend([0] if np.any(np.asarray(run(x))) else [])

device = jax.devices()[1]
def follow(index):
    put = jax.device_put(x, jax.devices()[2 + index])
    for _ in range(150):
        if not is_close(others[index](put), wants[index]):
            wrong.append(index + 1)

threads = [threading.Thread(target=follow, args=(i,)) for i in range(3)]
swapper = threading.Thread(target=swap)
for thread in (swapper, *threads):
    thread.start()
for thread in threads:
    thread.join()
# A new plan of the same module, made while another thread swaps its parameters.
for rows in range(1, 6):
    found = jax.jit(gradient)(jnp.ones((rows, 32)))
    if not is_close(found, wants[2][:rows]):
        wrong.append(9)
stop.set()
swapper.join()
print(wrong, plain.plan(x).concurrency.mode, part.plan(x).concurrency.mode)
"""


def test_callables_over_one_module_keep_out_of_each_others_way(run_python):
    assert run_python(SHARED, env=EIGHT).strip() == "[] parallel parallel"


FAILING = """
import jax, jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable

def fails_on_one(x):
    if float(x[0]) == 2:
        raise KeyError("the third part")
    return x * 2

f = jax_callable(fails_on_one, example=(jnp.ones(1),))
mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
total = jax.shard_map(lambda x: jax.lax.psum(f(x), "d"), mesh=mesh, in_specs=P("d"), out_specs=P())
try:
    jax.block_until_ready(jax.jit(total)(jnp.arange(8.0)))
except Exception as error:
    print("raised", type(error).__name__)
"""


def test_a_failure_on_one_device_is_told_though_others_wait_for_it():
    # It is told before XLA has waited long enough and ends the process without the reason.
    limit = "--xla_cpu_collective_call_terminate_timeout_seconds=300"
    words = ("the torch function raised KeyError: 'the third part'", "other devices may wait for")
    said = ""
    with subprocess.Popen(
        [sys.executable, "-c", FAILING],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XLA_FLAGS": f"{EIGHT['XLA_FLAGS']} {limit}"},
    ) as child:
        for line in child.stdout:
            said += line
            if all(word in said for word in words):
                break
        child.kill()
    assert all(word in said for word in words), said


DROPOUT = """
import jax, jax.numpy as jnp, numpy as np, torch
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable

state = torch.zeros(1)
def noisy(x):
    state.add_(1)  # not to be captured: the backward draws again what the forward drew
    return torch.nn.functional.dropout(x, 0.5)

f = jax_callable(noisy)
mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
def both(x):
    value, pull = jax.vjp(f, x)
    return value, pull(jnp.ones_like(value))[0]
step = jax.jit(jax.shard_map(
    both, mesh=mesh, in_specs=P("d"), out_specs=(P("d"), P("d")), check_vma=False))
x = jnp.ones((8, 1000))
wrong = 0
for _ in range(20):
    value, gradient = step(x)
    wrong += int(np.sum(np.asarray(value) != np.asarray(gradient)))
print(wrong)
"""


def test_a_backward_draws_what_its_own_forward_drew(run_python):
    assert run_python(DROPOUT, env=EIGHT).strip() == "0"


@pytest.fixture
def x():
    return jnp.ones((3, 4))


def scaled(module):
    """Calls the module with other parameters than its own."""

    def call(x):
        return functional_call(module, {n: p * 2 for n, p in module.named_parameters()}, (x,))

    return call


class Stops(torch.nn.Module):
    """Calls a module twice; a real run stops in between until it is let go."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.entered, self.go = threading.Event(), threading.Event()

    def forward(self, x):
        first = self.net(x)
        if type(first) is torch.Tensor:
            self.entered.set()
            assert self.go.wait(60)
        return self.net(first)


@pytest.mark.parametrize("first", ["swap", "read"])
def test_no_call_meets_the_swapped_parameters_of_another(first, x):
    net = torch.nn.Linear(4, 4).requires_grad_(False)
    stops = Stops(net)
    eyes = {"weight": torch.eye(4), "bias": torch.ones(4)}
    inside = {f"net.{name}": value for name, value in eyes.items()}
    if first == "swap":
        swaps = jax_callable(lambda x: functional_call(stops, inside, (x,)))
        reads = jax_callable(lambda x: net(x))
        wanted = {"swap": x + 2, "read": net(j2t(x)).numpy()}
    else:
        swaps = jax_callable(lambda x: functional_call(net, eyes, (x,)))
        reads = jax_callable(lambda x: stops(x))
        wanted = {"swap": x + 1, "read": net(net(j2t(x))).numpy()}
    calls = {"swap": swaps, "read": reads}
    assert {name: f.plan(x).concurrency.mode for name, f in calls.items()} == {
        "swap": "locked",
        "read": "parallel",
    }
    found = {}
    second = "read" if first == "swap" else "swap"
    threads = {
        name: threading.Thread(target=lambda name=name: found.update({name: calls[name](x)}))
        for name in (first, second)
    }
    threads[first].start()
    assert stops.entered.wait(60)
    threads[second].start()
    while not locks._waiting and second not in found:
        time.sleep(0.001)
    assert not found, "the second call did not wait"
    stops.go.set()
    for thread in threads.values():
        thread.join(60)
    for name, value in wanted.items():
        assert_close(found[name], value)


def test_calls_that_read_run_together(x):
    net = torch.nn.Linear(4, 4).requires_grad_(False)
    together = threading.Barrier(2, timeout=60)

    def meets(x):
        if type(x) is torch.Tensor:
            together.wait()
        return net(x)

    functions = [jax_callable(meets), jax_callable(lambda x: meets(x) * 2)]
    assert [f.plan(x).concurrency.mode for f in functions] == ["parallel", "parallel"]
    found = []
    threads = [threading.Thread(target=lambda f=f: found.append(f(x))) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2


def concurrency_line(function, *arguments, **options):
    text = jax_callable(function, **options).explain(*arguments)
    (line,) = [line for line in text.splitlines() if line.startswith("concurrency")]
    return line.removeprefix("concurrency  ")


class KeepsResult(torch.nn.Module):
    def forward(self, x):
        self.latest = x * 2
        return self.latest + 1


class Swaps(torch.nn.Module):
    scale = 1.0

    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, x):
        before, self.scale = self.scale, 3.0
        try:
            return x * self.scale
        finally:
            self.scale = before


SCRIPTS = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@SCRIPTS
@pytest.mark.filterwarnings("ignore:.*draws random numbers, and nothing declares them")
def test_explain_says_what_was_chosen_and_why(x):
    linear = torch.nn.Linear(4, 4)
    norm = torch.nn.BatchNorm1d(4)
    scripted = torch.jit.script(torch.nn.Linear(4, 4))
    in_dict = {"deep": [linear]}
    lines = {
        "plain": concurrency_line(lambda x: x + 1, x),
        "module": concurrency_line(linear, x),
        "swap": concurrency_line(scaled(linear), x),
        "in a dict": concurrency_line(lambda x: scaled(in_dict["deep"][0])(x), x),
        "attribute": concurrency_line(Swaps(), x),
        "kept": concurrency_line(KeepsResult(), x),
        "statistics": concurrency_line(norm, x),
        "looks": concurrency_line(lambda x: linear(x) * float(x.sum()), x),
        "looks, alone": concurrency_line(lambda x: x * float(x.sum()), x),
        "scripted": concurrency_line(lambda x: scaled(linear)(scripted(x)), x),
        "own module": concurrency_line(lambda x: scaled(torch.nn.Linear(4, 4))(x), x),
    }
    assert lines == {
        "plain": "parallel: it closes over nothing that can change",
        "module": "parallel: it changes nothing that it closes over",
        "swap": "locked: it swaps parameters of `Linear` while it runs",
        "in a dict": "locked: it swaps parameters of `Linear` while it runs",
        "attribute": "locked: it swaps attributes of `Swaps` while it runs",
        "kept": "locked: it changes attributes of `KeepsResult`",
        "statistics": "locked: it writes to tensors that it closes over",
        "looks": "locked: it could not be traced abstractly and may change `Linear`",
        "looks, alone": "parallel: it closes over nothing that it could change",
        "scripted": "locked: it swaps parameters of `Linear` while it runs",
        "own module": "parallel: it closes over nothing that can change",
    }


def contract(**more):
    return {
        "schema": "jaxtorch/1",
        "name": "scaled",
        "version": "1.0.0",
        "inputs": {"x": "float32[n, m]"},
        "outputs": {"y": "float32[n, m]"},
        **more,
    }


@pytest.mark.parametrize("mode", ["parallel", "locked"])
def test_contract_and_keyword_override_the_planner(mode, x):
    linear = torch.nn.Linear(4, 4)
    by_contract = jax_callable(scaled(linear), spec=contract(concurrency=mode))
    by_keyword = jax_callable(scaled(linear), concurrency=mode)
    for f in (by_contract, by_keyword):
        assert f.plan(x).concurrency.mode == mode
        assert_close(f(x), scaled(linear)(torch.ones(3, 4)).detach())
    although = ", although it swaps parameters of `Linear` while it runs"
    reason = "as asked" + (although if mode == "parallel" else "")
    assert str(by_keyword.plan(x).concurrency) == f"{mode}: {reason}"


def test_the_contracts_digest_knows_the_field_only_where_it_is_set():
    from jaxtorch_bridge import load_spec

    plain, locked = load_spec(contract()), load_spec(contract(concurrency="locked"))
    assert "concurrency" not in plain.to_dict()
    assert locked.to_dict()["concurrency"] == "locked"
    assert plain.digest() != locked.digest()
    assert load_spec(locked.to_dict()) == locked


def test_other_words_and_contradictions_are_refused():
    linear = torch.nn.Linear(4, 4)
    with pytest.raises(ArgumentError, match="one of parallel, locked; got 'serial'"):
        jax_callable(linear, concurrency="serial")
    with pytest.raises(SpecError, match="`concurrency`: expected"):
        jax_callable(scaled(linear), spec=contract(concurrency="serial"))
    with pytest.raises(ArgumentError, match="the contract says `concurrency: parallel`"):
        jax_callable(scaled(linear), spec=contract(concurrency="parallel"), concurrency="locked")


def test_the_word_for_what_there_was_before_is_refused_with_advice(x):
    advice = "which is `locked` now.*from_module"
    with pytest.raises(ArgumentError, match=advice):
        jax_callable(torch.nn.Linear(4, 4), concurrency="replicated")
    with pytest.raises(SpecError, match=f"`concurrency`: .*{advice}.*jaxtorch migrate"):
        jax_callable(torch.nn.Linear(4, 4), spec=contract(concurrency="replicated"))


def test_an_exception_releases_the_lock(x):
    linear = torch.nn.Linear(4, 4)

    def fails(x):
        if type(x) is torch.Tensor and float(x[0, 0]) < 0:
            raise KeyError("negative")
        return linear(x)

    f = jax_callable(fails, concurrency="locked")
    for _ in range(2):
        with pytest.raises(TorchExecutionError, match="negative"):
            f(-x)
    found = []
    thread = threading.Thread(target=lambda: found.append(f(x)))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert_close(found[0], linear(torch.ones(3, 4)).detach())


@pytest.mark.parametrize("mode", ["locked", "parallel"])
@pytest.mark.parametrize("looks", [False, True])
def test_a_function_may_call_bridges_over_its_own_module(mode, looks, x):
    linear = torch.nn.Linear(4, 4)

    def plain(x):
        # The inner function, too, may need a run of its own when it is planned.
        return linear(x) * (float(x[0, 0] == x[0, 0]) if looks else 1)

    inner = jax_callable(plain, concurrency="locked", name="inner")

    def outer(tensor):
        assert float(tensor.sum()) > 0  # looks at values, so it is not traced abstractly
        return linear(tensor) + j2t(inner(t2j(tensor.detach().clone())))

    f = jax_callable(outer, concurrency=mode)
    want = 2 * linear(torch.ones(3, 4)).detach()
    found = []

    def call():
        found.append(f(x))
        found.append(jax.jit(f)(x))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "the inner call waits for the outer one"
    for result in found:
        assert_close(result, want)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_function_that_swaps_follows_its_module(x):
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    bias = torch.zeros(4)
    f = jax_callable(lambda x: functional_call(net, {"0.bias": bias}, (x,)))
    jitted = jax.jit(f)
    net.eval()
    assert f.plan(x).concurrency.mode == "locked"
    jitted(x)
    with torch.no_grad():
        net[0].weight.mul_(2)  # in place, as optimizers do
    assert_close(jitted(x), (torch.ones(3, 4) @ net[0].weight.T).detach())
    net[0].weight = torch.nn.Parameter(torch.eye(4))
    assert_close(jitted(x), np.ones((3, 4)))
    assert net[0].bias is not bias


class Holder:
    def __init__(self):
        self.net = torch.nn.Linear(4, 4)

    def call(self, x):
        return functional_call(self.net, {"bias": torch.zeros(4)}, (x,))


def recursive_over(net):
    def call(x, depth=2):
        if depth:
            return call(x, depth - 1)
        return functional_call(net, {"bias": torch.zeros(4)}, (x,))

    return call


def with_module(net, x):
    return functional_call(net, {"bias": torch.zeros(4)}, (x,))


WAYS = {
    "bound method": lambda: (Holder().call,),
    "recursive closure": lambda: (recursive_over(torch.nn.Linear(4, 4)),),
    "static argument": lambda: (with_module, torch.nn.Linear(4, 4)),
    "partial": lambda: (__import__("functools").partial(with_module, torch.nn.Linear(4, 4)),),
}


@pytest.mark.parametrize("way", WAYS)
def test_swaps_are_seen_in_every_way_to_refer_to_a_module(way, x):
    function, *static = WAYS[way]()
    f = jax_callable(function)
    assert f.plan(*static, x).concurrency.mode == "locked"
    want = function(*static, torch.ones(3, 4)).detach()
    assert_close(f(*static, x), want)
    assert_close(
        jax.grad(lambda x: f(*static, x).sum())(x),
        jax.grad(lambda x: (x @ jnp.zeros((4, 4))).sum())(x) + _weights(function, static),
    )


def _weights(function, static):
    tensor = torch.ones(3, 4, requires_grad=True)
    return torch.autograd.grad(function(*static, tensor).sum(), tensor)[0].numpy()
