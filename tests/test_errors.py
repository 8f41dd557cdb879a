"""Every error that a caller can meet is of one family."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import jaxtorch_bridge
from jaxtorch_bridge import BridgeError, BridgeWarning, StaleClosureError, TransferError
from jaxtorch_bridge.errors import TracedArrayError

# How parts of the package tell each other something: whoever calls such a part catches it.
WITHIN = {
    "_compat.torch.fake_tensors.ValuesReadError": "one way to evaluate has failed",
    "_compat.torch.value_symbols.HandedOutError": "the same",
    "calling.outputs.containers.NotToldError": "the next run tells",
    "calling.outputs.find_outputs.ConcreteRunNeeded": "an eager call runs for real",
    "calling.loaded_calls._NotThisError": "told in the error of the call",
    "calling.recipe.not_data.NotDataError": "the program says that it has no recipe",
    "calling.recipe.not_data.RecipeError": "told in the error of the call",
    "jaxside.aten.registry.CannotLowerError": "becomes a PlanningError",
    "spec.annotations.shapes.NotReadable": "an annotation says nothing",
    "spec.files.read_contract._NewerFormat": "becomes a SpecError",
    "spec.files.yaml_document.DocumentError": "becomes a SpecError",
    "spec.language.shapes.ShapeSyntaxError": "becomes a SpecError",
    "spec.language.sizes.Clash": "becomes a SpecMismatchError",
    "torchside.derive.engines.engine.NoWayError": "the next engine is asked",
    "torchside.functions.forward_mode_guard.NoForwardModeError": "reverse mode is taken",
    "torchside.functions.graph_capture.NotCapturedError": "the function runs itself",
    "torchside.modules.structure_copy.NotCopiedError": "becomes a ModuleError",
    "torchside.replay_steps.StepError": "told in the error of the call",
    # Of the command, which prints them.
    "tools.check.named_function.NoSubject": "printed",
    "tools.infer.probe.ProbeError": "printed",
    "tools.plan.request.RequestError": "printed",
}


def own_exceptions() -> dict[str, type]:
    found = {}
    for module in pkgutil.walk_packages(jaxtorch_bridge.__path__, "jaxtorch_bridge."):
        if module.name.endswith("__main__"):
            continue
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, BaseException) and kind.__module__.startswith("jaxtorch_bridge."):
                name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("jaxtorch_bridge.")
                found[name] = kind
    return found


def test_every_error_is_a_bridge_error():
    found = own_exceptions()
    others = {
        name for name, kind in found.items() if not issubclass(kind, (BridgeError, BridgeWarning))
    }
    assert others == set(WITHIN)


def test_those_that_a_caller_may_catch_by_name():
    assert issubclass(StaleClosureError, BridgeError)
    assert issubclass(StaleClosureError, RuntimeError)
    assert issubclass(TracedArrayError, TransferError)
    assert issubclass(TracedArrayError, RuntimeError)


@pytest.mark.parametrize("name", jaxtorch_bridge._ERRORS)
def test_the_package_exports_them(name):
    assert getattr(jaxtorch_bridge, name).__module__ == "jaxtorch_bridge.errors"
