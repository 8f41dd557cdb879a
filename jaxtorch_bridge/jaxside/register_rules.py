"""Registers every rule of the primitives."""

from __future__ import annotations

from .._compat.jax.primitive_rules import (
    ad,
    batching,
    partial_eval,
    register_dce_rule,
    register_linearization,
)
from . import batching_rules, dead_code, derivative_rules, partial_evaluation, transpose_rules
from .primitives import torch_call_p, torch_jvp_call_p, torch_linear_call_p

for _primitive in (torch_call_p, torch_jvp_call_p):
    ad.primitive_jvps[_primitive] = derivative_rules.call_jvp
    register_linearization(_primitive, derivative_rules.call_linearize)
    batching.primitive_batchers[_primitive] = batching_rules.batch_call

ad.primitive_jvps[torch_linear_call_p] = derivative_rules.linear_jvp
register_linearization(torch_linear_call_p, derivative_rules.linear_linearize)
ad.primitive_transposes[torch_call_p] = transpose_rules.call_transpose
ad.primitive_transposes[torch_jvp_call_p] = transpose_rules.jvp_call_transpose
ad.primitive_transposes[torch_linear_call_p] = derivative_rules.linear_transpose
batching.primitive_batchers[torch_linear_call_p] = batching_rules.batch_linear_call

# Only the joint call can be half known; of the others JAX's default is right, which takes them as
# known or unknown as a whole.
partial_eval.custom_partial_eval_rules[torch_jvp_call_p] = partial_evaluation.split_unknown
for _primitive in (torch_call_p, torch_jvp_call_p):
    partial_eval.partial_eval_jaxpr_custom_rules[_primitive] = partial_evaluation.split_equation

register_dce_rule(torch_call_p, dead_code.forward_rule)
register_dce_rule(torch_jvp_call_p, dead_code.jvp_rule)
register_dce_rule(torch_linear_call_p, dead_code.linear_rule)
