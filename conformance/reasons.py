"""Why something is refused, or torch cannot, in a few words that many entries share."""

from __future__ import annotations

import re

from .outcome import SIZES_FROM_VALUES, Outcome

# The first pattern that an error's words match gives the reason.
_REASONS: tuple[tuple[str, str], ...] = (
    (
        "DynamicSizeError|" + SIZES_FROM_VALUES,
        "sizes of its results follow from values, so that it cannot be transformed; outside of "
        "transformations it gives torch's results",
    ),
    (
        r"MutationError: .*expected it to keep its shape and dtype",
        "it gives its argument another shape, which no array of JAX's can have",
    ),
    (
        r"MutationError",
        "it writes to its arguments, and JAX's arrays cannot change; with `copies` it gives "
        "torch's results",
    ),
    (
        r"OutputError: .*expected a torch.Tensor, got (SymFloat|SymInt|float|int|complex)\b",
        "its result is a number of Python's",
    ),
    (
        r"OutputError: .*expected a torch.Tensor, got (SymBool|bool)\b",
        "its result is a truth value of Python's",
    ),
    (r"OutputError: .*expected a torch.Tensor, got (\w+)", r"its result is of `\1`, and no tensor"),
    (
        r"but torch returned a torch\.sparse",
        "its result is sparse, as no array of JAX's is; with `.to_dense()` behind it it works",
    ),
    (r"TransferError: .*got layout torch.sparse", "an argument is sparse, as no array of JAX's is"),
    (r"DtypeError: .*torch returned (\w+)", r"its result is of \1, which JAX does not have"),
    (
        r"Trying to use forward AD|forward AD",
        "no rule in forward mode",
    ),
    (r"derivative for .* is not implemented|the derivative .* not implemented", "no derivative"),
    (r"does not support automatic differentiation", "no derivative"),
    (r"cannot resize variables that", "it gives another size to what has derivatives"),
    (r"Sparse CSR tensors do not have", "an argument is sparse"),
    (
        r"result type \w+ can't be cast|operation's result requires dtype",
        "the result's dtype is not that of the argument, where it would be written",
    ),
    (r"Jiterator is only supported on CUDA", "on CUDA alone"),
)


def reason_of(outcome: Outcome) -> str:
    """The reason for an outcome: one of those that many share, or the error's first sentence."""
    for pattern, reason in _REASONS:
        match = re.search(pattern, outcome.words)
        if match:
            return match.expand(reason) if "\\1" in reason else reason
    # What the function is called here says nothing.
    words = re.sub(r"^(\w+: )(call|reduced|in_place)(, | \()", r"\1\3", outcome.words)
    return re.split(r"(?<=[a-z\])`'])\. ", words)[0].rstrip(".")[:200]
