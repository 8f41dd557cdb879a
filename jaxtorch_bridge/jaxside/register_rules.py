"""Registers every rule of the primitives."""

from __future__ import annotations

from .._compat.jax_internals import (
    ad,
    batching,
    partial_eval,
    register_dce_rule,
    register_linearization,
)
from . import (
    batching_rules as batch,
)
from . import (
    dead_code,
)
from . import (
    derivative_rules as differentiate,
)
from . import (
    partial_evaluation as partial,
)
from .primitives import torch_call_p, torch_jvp_call_p, torch_linear_call_p

for _primitive in (torch_call_p, torch_jvp_call_p):
    ad.primitive_jvps[_primitive] = differentiate.call_jvp
    register_linearization(_primitive, differentiate.call_linearize)
    batching.primitive_batchers[_primitive] = batch.batch_call

ad.primitive_jvps[torch_linear_call_p] = differentiate.linear_jvp
register_linearization(torch_linear_call_p, differentiate.linear_linearize)
ad.primitive_transposes[torch_linear_call_p] = differentiate.linear_transpose
batching.primitive_batchers[torch_linear_call_p] = batch.batch_linear_call

partial_eval.custom_partial_eval_rules[torch_jvp_call_p] = partial.split_unknown
for _primitive in (torch_call_p, torch_jvp_call_p):
    partial_eval.partial_eval_jaxpr_custom_rules[_primitive] = partial.split_equation

register_dce_rule(torch_call_p, dead_code.forward_rule)
register_dce_rule(torch_jvp_call_p, dead_code.jvp_rule)
register_dce_rule(torch_linear_call_p, dead_code.linear_rule)
