"""Calls that type checkers must reject, and why. Read, never run.

A line that is wrong says so at its end: the error codes of mypy, then the rules of pyright
without the `report` that each begins with.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnusedVariable=false

from typing import Any, assert_type

from jax import Array
from mylib.choices import choices
from mylib.models import Encoder, scale, split, step
from mylib.ops import attention, shapes
from mylib.optional import constants, late, noise
from torch import Tensor

from jaxtorch_bridge import jax_callable


def kinds_of_arrays(x: Array, t: Tensor) -> None:
    attention(x, t, x)  # wrong: call-overload | ArgumentType CallIssue
    attention(t, t, t, mask=x)  # wrong: call-overload | ArgumentType CallIssue
    attention(x, x, 1.0)  # wrong: call-overload | ArgumentType CallIssue
    attention(x, x, None)  # wrong: call-overload | ArgumentType CallIssue
    noise(x, high=t)  # wrong: call-overload | ArgumentType CallIssue
    assert_type(attention(t, t, t), Array)  # wrong: assert-type | AssertTypeFailure


def numbers_of_arguments(x: Array) -> None:
    attention(x, x)  # wrong: call-overload | CallIssue
    attention(x, x, x, x, True)  # wrong: call-overload | CallIssue
    attention(x, x, x, keys=x)  # wrong: call-overload | CallIssue
    late(x, x)  # wrong: call-overload | CallIssue
    constants(x)  # wrong: arg-type call-arg | CallIssue
    Encoder().forward(x, x)  # wrong: call-overload | CallIssue


def static_arguments(x: Array) -> None:
    attention(x, x, x, causal="yes")  # wrong: call-overload | ArgumentType CallIssue
    shapes(x, x, x, x, x, x, x, count=0.5)  # wrong: call-overload | ArgumentType CallIssue
    constants(count="3")  # wrong: arg-type | ArgumentType


def typed_static_arguments(x: Array, t: Any, m: str) -> None:
    choices(x, x, table=t, anything=1)  # wrong: call-overload | CallIssue
    choices(x, x, table=t, anything=1, eps="1")  # wrong: call-overload | ArgumentType CallIssue
    choices(x, x, table=t, eps=1, mode=m, **t)  # wrong: call-overload | ArgumentType CallIssue


def trees(x: Array, t: Tensor) -> None:
    step({}, (x, x), (x,), (), {})  # wrong: call-overload | ArgumentType CallIssue
    weight = {"weight": x}
    params = {"encoder": weight, "layers": ({"w": x}, x)}
    step(params, (x, x), (x,), (), {})  # wrong: call-overload | ArgumentType CallIssue
    noise(group={"high": x})  # wrong: call-overload | ArgumentType CallIssue
    noise(group={"low": 1})  # wrong: call-overload | ArgumentType CallIssue


def results(x: Array) -> None:
    low, middle, high = split(x)  # wrong: misc | AssignmentType
    scale(x)["rows"]  # wrong: typeddict-item | GeneralTypeIssues
    attention(x, x, x)["out"].keys()  # wrong: attr-defined | AttributeAccessIssue
    result: Tensor = attention(x, x, x)  # wrong: assignment | AssignmentType


@jax_callable
def decorated(x: Array, times: int = 1) -> Array:
    return x


class Holder:
    @jax_callable
    def method(self, x: Array, times: int = 1) -> Array:
        return x


def decorated_functions_have_their_own_parameters(x: Array) -> None:
    decorated()  # wrong: call-arg | CallIssue
    decorated(x, time=2)  # wrong: call-arg | CallIssue
    decorated(x, times="2")  # wrong: arg-type | ArgumentType
    Holder().method()  # wrong: call-arg | CallIssue
    Holder().method(x, "2")  # wrong: arg-type | ArgumentType
    Holder().method.explain(x, 1, 2)  # wrong: call-arg | CallIssue
    other: Tensor = Holder().method(x)  # wrong: assignment | AssignmentType
