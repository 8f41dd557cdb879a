"""What decides a plan's key, fact by fact: to tell what differs where two keys do."""

from __future__ import annotations

from collections.abc import Mapping

from .plan import CallPlan

# Each fact, and what differs where it does. The first that do are told: others follow from them.
_WORDS = {
    "contract": "the contract is another one",
    "form": "the arguments come in another form",
    "inputs": "torch sees other arguments",
    "static": "the static values are others",
    "context": "torch's settings are others",
    "random key": "the random key is another one",
    "vmap_method": "`vmap_method` is another one",
    "mutates": "`mutates` is another one",
    "copies": "`copies` is another one",
    # Behind those that it follows from.
    "code": "the code is another one: the function's own, its module's name, or what it reads, "
    "closes over or calls",
    "outputs": "the results are others",
}
# Digests, which nobody can read.
_UNREADABLE = ("contract", "code", "form")
# Of a fact that is shown.
_MOST_CHARACTERS = 200


def facts_of(plan: CallPlan) -> dict[str, str]:
    """The facts, as texts."""
    return {
        "contract": plan.contract,
        "code": plan.code,
        "form": plan.form,
        "inputs": ", ".join(
            f"{sig}{'' if sig.differentiable else ' (no derivative)'}" for sig in plan.inputs
        ),
        "static": ", ".join(f"{path}={text}" for path, text in plan.static),
        "context": ", ".join(f"{name}={text}" for name, text in plan.context),
        "random key": "" if plan.random_key is None else str(plan.random_key),
        "vmap_method": plan.vmap_method,
        "mutates": ", ".join(plan.mutates),
        "copies": ", ".join(plan.copies),
        "outputs": ", ".join(map(str, plan.outputs)),
    }


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs in the process of a program and in this one, in words; empty if nothing does."""
    for name, words in _WORDS.items():
        ours, theirs = here.get(name, ""), there.get(name, "")
        if ours == theirs:
            continue
        if name in _UNREADABLE:
            return words
        return f"{words} ({_shown(theirs)} in the program, {_shown(ours)} here)"
    return ""


def _shown(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        return text[:_MOST_CHARACTERS] + "..."
    return text or "none"
