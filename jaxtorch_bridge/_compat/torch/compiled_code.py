"""What ``torch.compile`` makes of modules. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import sys
from typing import Any

import torch

from .dynamo import load_deprecated

# What `torch.nn.Module.compile` sets; called in place of the module's own code.
COMPILED_CALL = "_compiled_call_impl"
# Before the names of everything inside of a compiled module.
PREFIX = "_orig_mod."


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether ``torch.compile(module)`` made it."""
    # Where Dynamo is not loaded, it has made nothing: asking must not load it.
    frames = sys.modules.get("torch._dynamo.eval_frame")
    return frames is not None and isinstance(module, frames.OptimizedModule)


def compiled_graph(graph: torch.fx.GraphModule) -> Any:
    """A captured graph, compiled by Inductor for the shapes that it was captured with."""
    load_deprecated("torch._inductor.compile_fx")
    # Not the module: a failure in its code would be hidden by one of Dynamo's, which meets fx's own
    # words for it.
    return torch.compile(graph.forward, fullgraph=True, dynamic=False)


def compiled_function(function: Any) -> Any:
    """A function of tensors compiled by Inductor, with its derivative; where Dynamo cannot follow
    it, the parts between."""
    load_deprecated("torch._inductor.compile_fx")
    return torch.compile(function, dynamic=False)


def inside_of(module: Any) -> torch.nn.Module:
    """The module that was compiled."""
    inside: torch.nn.Module = module._orig_mod
    return inside


def compiled_like(module: Any, inside: torch.nn.Module) -> torch.nn.Module:
    """Another module compiled in the same way: backend, mode and options."""
    from torch._dynamo.eval_frame import OptimizedModule

    return OptimizedModule(inside, module.dynamo_ctx)


def compiled_call_like(call: Any, module: torch.nn.Module) -> Any:
    """What ``module.compile(...)`` would set, with the options behind ``call``."""
    names = call.__code__.co_freevars
    # Backend, mode and options stand in a closure of torch's alone.
    cells = dict(zip(names, call.__closure__ or (), strict=True))
    return cells["self"].cell_contents(module._call_impl)
