"""Planning changes no setting that a user's own thread could see, or be changed by."""

from __future__ import annotations

import gc
import logging
import queue
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch._dynamo
from torch._decomp import decompositions
from torch._dynamo import eval_frame
from torch._functorch import config as functorch_config
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge._compat.torch.func_transforms import warns_of_fallbacks
from jaxtorch_bridge._compat.torch.operators.attention import PlainAttention
from jaxtorch_bridge._compat.torch.operators.recurrent_layers import PlainRnns

_HOOKS = [
    name
    for name, hooks in vars(torch.nn.modules.module).items()
    if name.startswith("_global_") and isinstance(hooks, dict)
]
_KERNELS = ("flash", "mem_efficient", "math", "cudnn", "overrideable")
_LOGGERS = ("torch._subclasses.fake_tensor", "torch._dynamo", "torch")


def settings() -> dict[str, Any]:
    """What is the same in all threads, or what this one has for itself.

    Torch's tracers set some more (anomaly detection, warnings' filters, and `torch.fx` its flag and
    `Module.__call__`); `lasting` has those.
    """
    return {
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        **{name: getattr(torch._C, f"_get_{name}_sdp_enabled")() for name in _KERNELS},
        "attention's order": tuple(torch._C._get_sdp_priority_order()),
        "oneDNN": torch._C._get_mkldnn_enabled(),
        "cuDNN": torch._C._get_cudnn_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "garbage collection": gc.isenabled(),
        "finders": tuple(map(id, sys.meta_path)),
        "Dynamo": (id(torch._dynamo), id(sys.modules["torch._dynamo"])),
        "stance": (eval_frame._stance.stance, eval_frame._stance.backend),
        "Dynamo in fx": torch._dynamo.config.error_on_nested_fx_trace,
        "fakes": functorch_config.fake_tensor_allow_unsafe_data_ptr_access,
        "equal nodes": functorch_config.cse,
        "vmap by loops": torch._C._functorch._is_vmap_fallback_enabled(),
        "LSTMs": id(decompositions.one_layer_lstm),
        "attention": id(functional.scaled_dot_product_attention),
        "hooks": [len(getattr(torch.nn.modules.module, name)) for name in _HOOKS],
        "logging": [logging.getLogger(name).isEnabledFor(logging.ERROR) for name in _LOGGERS],
        "grad": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "traced": (torch.compiler.is_compiling(), torch.compiler.is_exporting()),
        "modes": torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack(),
    }


def lasting() -> dict[str, Any]:
    """What planning leaves as it was, although torch changes it meanwhile."""
    return {
        **settings(),
        "anomalies": torch.is_anomaly_enabled(),
        "filters": list(warnings.filters),
        "calls": id(torch.nn.Module.__call__),
        "questions": (torch.compiler.is_compiling.__code__, torch.compiler.is_exporting.__code__),
        "effects": set(torch.fx.node._side_effectful_functions),
        "warnings of loops": warns_of_fallbacks(),
        "filters of logs": [list(logging.getLogger(name).filters) for name in _LOGGERS],
    }


class Watcher:
    """A user's own thread, which looks at the settings often, and whenever it is asked."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._asked, self._looked, self._ended = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            asked = self._asked.is_set()
            now = settings()
            if now not in self.seen:
                self.seen.append(now)
            if asked:
                self._asked.clear()
                self._looked.set()
            self._asked.wait(1e-3)

    def look(self) -> None:
        """Return when the thread has looked once more."""
        if threading.get_ident() != self._thread.ident:
            self._looked.clear()
            self._asked.set()
            assert self._looked.wait(60)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def modules() -> dict[str, Callable[[torch.Tensor], Any]]:
    torch.manual_seed(0)
    encoder = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    lstm, gru = torch.nn.LSTM(4, 4), torch.nn.GRU(4, 4)
    conv = torch.nn.Conv1d(3, 3, 2)
    compiled = torch.compile(torch.nn.Linear(4, 4), backend="eager", fullgraph=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    return {
        "encoder": encoder,
        "attention": lambda x: attend(x[None], x[None], x[None])[0],
        "lstm": lambda x: lstm(x)[0],
        "gru": lambda x: gru(x)[0],
        "conv": conv,
        "compiled": compiled,
        "solve": lambda x: torch.linalg.solve(x @ x.mT + torch.eye(3), x),
        "asks": lambda x: x if torch.compiler.is_exporting() or x.isfinite().all() else x.exp(),
    }


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
@pytest.mark.parametrize("name", modules())
def test_another_thread_sees_nothing_of_it(name):
    function = modules()[name]
    if name == "compiled":
        # Runs compile it, as in torch; what that sets is no part of planning.
        for moving in (False, True):
            function(torch.zeros(2, 3, 4, requires_grad=moving))
    with Watcher() as watcher:

        def meeting(x: torch.Tensor) -> Any:
            watcher.look()
            found = function(x)
            watcher.look()
            return found

        wrapped = jax_callable(meeting)
        x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 4)), jnp.float32)
        before = lasting()
        wrapped.plan(x)
        gradient = jax.grad(lambda x: (wrapped(x) ** 2).sum())
        gradient(x)
        jax.jvp(gradient, (x,), (x,))
        jax.vmap(wrapped)(x[None])
        assert lasting() == before
    assert [one for one in watcher.seen if one != watcher.seen[0]] == []


def test_what_a_user_has_switched_stays_so():
    module = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    wrapped, x = jax_callable(module), jnp.ones((2, 3, 4))
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            before = lasting()
            jax.grad(lambda x: wrapped(x).sum())(x)
            jax.vmap(wrapped)(x[None])
            assert lasting() == before
    finally:
        torch._C._set_mkldnn_enabled(True)
        torch.backends.mha.set_fastpath_enabled(True)
        torch._C._functorch._set_vmap_fallback_warning_enabled(True)


def test_another_thread_still_compiles_meanwhile():
    """While this thread evaluates a compiled function as it was written."""
    compiling: queue.SimpleQueue[int] = queue.SimpleQueue()  # planning would put a list back

    def backend(graph: Any, inputs: Any) -> Any:
        compiling.put(threading.get_ident())
        return graph.forward

    compiled = torch.compile(lambda x: torch.sin(x) + 1, backend=backend, fullgraph=True)

    def function(x: torch.Tensor) -> Any:
        thread = threading.Thread(target=compiled, args=(torch.ones(2),))
        thread.start()
        thread.join()
        return compiled(x)

    plan = jax_callable(function).plan(jnp.ones(3))
    assert plan.inference.how == "fake"
    assert compiling.get_nowait() != threading.get_ident()
    assert compiling.empty()


def test_a_stance_that_another_thread_sets_meanwhile_is_its_own():
    stances: queue.SimpleQueue[str] = queue.SimpleQueue()

    def user() -> None:
        with torch.compiler.set_stance("eager_on_recompile"):
            stances.put(eval_frame._stance.stance)

    def function(x: torch.Tensor) -> Any:
        thread = threading.Thread(target=user)
        thread.start()
        thread.join()
        return x * 2

    jax_callable(function).plan(jnp.ones(3))
    assert stances.get_nowait() == "eager_on_recompile"
    assert eval_frame._stance.stance == "default"


_MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "bools": {"attn_mask": torch.ones(3, 3, dtype=torch.bool).tril()},
    "numbers": {"attn_mask": torch.linspace(-1, 1, 9).reshape(3, 3)},
    "scale": {"scale": 0.3},
}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("mask", _MASKS)
def test_plain_attention_is_that_of_torch(mask, autocast):
    q, k, v = torch.randn(3, 1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    attend = functional.scaled_dot_product_attention
    with torch.autocast("cpu", enabled=autocast):
        with sdpa_kernel(SDPBackend.MATH):
            wanted = attend(q, k, v, **_MASKS[mask])
        with PlainAttention():
            found = attend(q, k, v, **_MASKS[mask])
    assert_equal(found, wanted)


@pytest.mark.parametrize("beneath", [None, "cpu"], ids=["alone", "above another mode"])
def test_plain_attention_inside_of_torchs_own_layer(beneath):
    layer = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    wanted, _ = layer(x, x, x, need_weights=False)
    torch.set_default_device(beneath)
    try:
        with PlainAttention(), torch.profiler.profile() as profile:
            found, _ = layer(x, x, x, need_weights=False)
    finally:
        torch.set_default_device(None)
    assert_close(found, wanted)
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_attention_math" in names
    assert not {name for name in names if "flash" in name or "native_multi_head" in name}


_LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "lstm": lambda: torch.nn.LSTM(3, 4),
    "deep lstm": lambda: torch.nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True),
    "gru": lambda: torch.nn.GRU(3, 4, 2, bidirectional=True),
    "tanh": lambda: torch.nn.RNN(3, 4),
    "relu": lambda: torch.nn.RNN(3, 4, nonlinearity="relu", bias=False),
}


@pytest.mark.parametrize("cudnn", [False, True])
@pytest.mark.parametrize("name", _LAYERS)
def test_plain_recurrent_layers_are_those_of_torch(name, cudnn):
    layer = _LAYERS[name]()
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    wanted = layer(x)
    with PlainRnns(cudnn=cudnn), torch.profiler.profile() as profile:
        found = layer(x)
    assert_close(found, wanted)
    names = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_rnn_layer" not in names
    assert not (cudnn and names & {"aten::gru", "aten::rnn_tanh", "aten::rnn_relu"})
