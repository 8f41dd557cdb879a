"""One contract compared with its function: many calls, each as a fake."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...errors import SpecProblem
from ...spec.language.shapes import names_in
from ...spec.language.wording import listed
from ...spec.model import CallableSpec
from . import problems
from .cases import (
    Case,
    dtype_choices,
    first_sizes,
    has_wide_floats,
    left_out,
    other_sizes,
    ranks_of_rest,
    sizes_together,
    static_choices,
    untried_static,
    values_of,
)
from .fake_call import Evaluator, Outcome
from .named_function import NoSubject, Subject, subject_of
from .output_remarks import free_sizes, stub_remark
from .planned_transforms import Promises, promises_of
from .real_runs import try_shards, try_transforms, try_values
from .shards import shards_of
from .sizes import Sizes, SizeSearch


@dataclass
class Proof:
    """What became of one contract.

    Attributes:
        spec: The contract.
        calls: How many calls were evaluated.
        problems: Where contract and function differ.
        remarks: (subject, words) on what JAX will do.
        runs: How many calls ran for real.
        suggestions: Constraints that would make problems go away.
        unseen: Why the function cannot be evaluated abstractly; empty if it can.
    """

    spec: CallableSpec
    calls: int = 0
    problems: list[SpecProblem] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    suggestions: list[str] = field(default_factory=list)
    runs: int = 0
    unseen: str = ""

    def add(self, problem: SpecProblem) -> None:
        """Note a problem; of those with one part of the contract the first is enough."""
        if all((one.path, one.line) != (problem.path, problem.line) for one in self.problems):
            self.problems.append(problem)


def prove(spec: CallableSpec, *, numeric: bool = False) -> Proof:
    """Compare a contract with the function that it names.

    Imports that function's module and evaluates the function on fakes, in calls that differ in
    every dimension, static choice and optional input. What it prints goes to standard error.

    Args:
        spec: The contract, which names a function.
        numeric: Run the function as well, on small made-up arrays: its values, gradients,
            batches and shards are compared with torch.
    """
    proof = Proof(spec)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            subject = subject_of(spec)
        except NoSubject as error:
            proof.problems += error.problems
            return proof
        try:
            _Prover(subject, proof, numeric).run()
        except (Exception, SystemExit) as error:
            # Whatever a function does, the other contracts are still to be looked at.
            expected = "a function that can be compared with its contract"
            found = problems.first_line(error)
            proof.add(problems.problem_at(spec, "function", expected, found))
    return proof


class _Prover:
    def __init__(self, subject: Subject, proof: Proof, numeric: bool) -> None:
        self._subject = subject
        self._spec = subject.spec
        self._proof = proof
        self._search = SizeSearch(subject.spec)
        self._evaluator = Evaluator(subject)
        self._numeric = numeric
        self._compared = False

    def run(self) -> None:
        base = self._base()
        if base is None:
            # No call works, or none can be seen: in the second case it can still be run.
            if self._proof.unseen and not self._proof.problems:
                self._see()
            return
        # One dimension at a time, so that a difference tells which one.
        for name, sizes in other_sizes(self._search, dict(base.sizes)):
            self._try_size(base, name, sizes)
        if not self._proof.problems:
            # Then all at once, for formulas that hold at some sizes only.
            for sizes in sizes_together(self._search, dict(base.sizes)):
                self._try(base.with_sizes(sizes), "inputs")
        for path, case in self._other_calls(base):
            self._try(case, path)
        # All other calls are as with x64; without it JAX holds narrower floats.
        if has_wide_floats(self._spec):
            for dtypes in dtype_choices(self._spec):
                self._try(replace(base, dtypes=dtypes), "inputs", x64=False)
        untried = untried_static(self._spec)
        if untried:
            self._proof.remarks.append(("static", f"only tried with {', '.join(untried)}"))
        free = free_sizes(self._spec)
        if free is not None:
            self._proof.remarks.append(("sizes", free))
        remark = stub_remark(self._spec, self._evaluator.returned)
        if remark is not None:
            self._proof.remarks.append(("stubs", remark))
        whole = None
        if not self._proof.problems:
            # Only of a function that fits: a plan of another says nothing.
            self._add(promises_of(self._subject, base))
            whole = self._try_shards(base)
        if self._numeric and not self._proof.problems:
            self._run_for_real(base, whole)

    def _base(self) -> Case | None:
        """A call that works, from which the others differ in one thing; None if there is none."""
        choices = static_choices(self._spec)
        if not choices:
            unknown = [name for name, one in self._spec.static.items() if not values_of(one)]
            self._proof.unseen = f"no value to try is known for {listed(unknown)}"
            expected = "a `default` or `choices` for each static argument"
            self._proof.add(
                problems.problem_at(self._spec, f"static.{unknown[0]}", expected, "neither")
            )
            return None
        case = self._first_case()
        failure: tuple[Case, Outcome] | None = None
        found = False
        # Until one works: a function may ask more of its sizes than its contract says.
        for sizes in first_sizes(self._spec, self._search):
            found = True
            tried = case.with_sizes(sizes)
            outcome = self._evaluate(tried)
            if outcome.verdict == "unseen":
                self._proof.unseen = outcome.reason
                return None
            if outcome.problem is not None:
                self._proof.add(outcome.problem)
            if outcome.verdict != "raises":
                if failure is not None:
                    self._note_failure(*failure, f"; it works with {tried.words(self._spec)}")
                return tried
            failure = failure or (tried, outcome)
        if failure is not None:
            self._note_failure(*failure, "")
        elif not found:
            names = listed(self._search.names)
            expected = f"constraints that some sizes of {names} meet"
            found_words = "none that do among those tried"
            self._proof.add(problems.problem_at(self._spec, "constraints", expected, found_words))
        return None

    def _first_case(self) -> Case:
        return Case(
            static=static_choices(self._spec)[0],
            rest=ranks_of_rest(self._spec)[0],
            dtypes=dtype_choices(self._spec)[0],
        )

    def _note_failure(self, case: Case, outcome: Outcome, but: str) -> None:
        expected = "a function that works at all sizes that the contract allows"
        remedy = ". What sizes must meet goes under `constraints`" if but else ""
        found = f"{outcome.reason} with {case.words(self._spec)}{but}{remedy}"
        self._proof.add(problems.problem_at(self._spec, "function", expected, found))

    def _try_size(self, base: Case, name: str, sizes: Sizes) -> None:
        case = base.with_sizes(sizes)
        outcome = self._evaluate(case)
        if outcome.problem is not None:
            self._proof.add(outcome.problem)
        if outcome.verdict != "raises":
            return
        path = self._first_input_with(name)
        expected = f"the function to work at every `{name}` that the contract allows"
        found = f"{outcome.reason} with {case.words(self._spec)}"
        usual = dict(base.sizes)[name]
        if sizes[name] == 1:
            least = self._least(base, name)
            if least is not None:
                self._proof.suggestions.append(f"{name} >= {least}")
                found += f". It works from {least} on: put `{name} >= {least}` under `constraints`"
        elif sizes[name] > 4 * usual:  # one of the large tries, and no mere double
            most = self._most(base, name, sizes[name])
            self._proof.suggestions.append(f"{name} <= {most}")
            found += f". It works up to {most}: put `{name} <= {most}` under `constraints`"
        self._proof.add(problems.problem_at(self._spec, path, expected, found))

    def _least(self, base: Case, name: str) -> int | None:
        """The least size of a dimension at which the function works, others as in ``base``."""
        stay = {other: (size,) for other, size in base.sizes}
        for size in range(2, dict(base.sizes)[name] + 1):
            sizes = self._search.find(stay, {name: size})
            if sizes is None or self._evaluate(base.with_sizes(sizes)).verdict != "raises":
                return size
        return None

    def _most(self, base: Case, name: str, too_large: int) -> int:
        """The largest size of a dimension at which the function works, others as in ``base``."""
        stay = {other: (size,) for other, size in base.sizes}
        most = dict(base.sizes)[name]
        while too_large - most > 1:
            size = (most + too_large) // 2
            sizes = self._search.find(stay, {name: size})
            # Sizes that constraints forbid are on the side of those that work.
            if sizes is None or self._evaluate(base.with_sizes(sizes)).verdict != "raises":
                most = size
            else:
                too_large = size
        return most

    def _other_calls(self, base: Case) -> Iterator[tuple[str, Case]]:
        for static in static_choices(self._spec)[1:]:
            yield "static", replace(base, static=static)
        for without in left_out(self._spec)[1:]:
            first = min(without)
            yield f"inputs.{'.'.join(first)}", replace(base, without=without)
        for dtypes in dtype_choices(self._spec)[1:]:
            changed = [path for path, one in dtypes if (path, one) not in base.dtypes]
            yield f"inputs.{'.'.join(changed[0])}", replace(base, dtypes=dtypes)
        for rest in ranks_of_rest(self._spec)[1:]:
            yield "inputs", replace(base, rest=rest)

    def _try(self, case: Case, path: str, *, x64: bool = True) -> None:
        outcome = self._evaluate(case, x64=x64)
        if outcome.problem is not None:
            self._proof.add(outcome.problem)
        elif outcome.verdict in ("raises", "unseen"):
            expected = "the function to accept every call that the contract allows"
            wide = "" if x64 else " while jax_enable_x64 is off"
            found = f"{outcome.reason} with {case.words(self._spec)}{wide}"
            self._proof.add(problems.problem_at(self._spec, path, expected, found))

    def _try_shards(self, base: Case) -> Case | None:
        """A call that can be cut into shards, if one was found."""
        if not self._spec.sharding:
            return None
        found, whole, shard = shards_of(self._spec, self._search, base)
        self._add(found)
        if shard is not None and not self._proof.unseen:
            self._try(shard, "sharding")
        return whole

    def _see(self) -> None:
        """What cannot be evaluated abstractly has to run, or is not known to be right."""
        if not self._numeric:
            expected = "a function that can be evaluated abstractly"
            found = f"{self._proof.unseen}. See what it does with --numeric"
            self._proof.add(problems.problem_at(self._spec, "function", expected, found))
            return
        first = next(first_sizes(self._spec, self._search))
        base = self._first_case().with_sizes(first)
        for _, sizes in other_sizes(self._search, first):
            self._run_values(base.with_sizes(sizes))
        self._run_for_real(base, self._try_shards(base))

    def _run_for_real(self, base: Case, whole: Case | None) -> None:
        self._run_values(base)
        for _, case in self._other_calls(base):
            self._run_values(case)
        if self._compared and not self._proof.problems:
            self._proof.remarks.append(("numeric", "values are those of torch"))
        if not self._proof.problems:
            self._add(try_transforms(self._subject, base))
            if whole is not None:
                self._add(try_shards(self._subject, whole))

    def _run_values(self, case: Case) -> None:
        self._proof.runs += 1
        found, compared = try_values(self._subject, case)
        self._compared = self._compared or compared
        self._add(found)

    def _add(self, found: Promises) -> None:
        self._proof.remarks += found.remarks
        for problem in found.problems:
            self._proof.add(problem)

    def _evaluate(self, case: Case, *, x64: bool = True) -> Outcome:
        self._proof.calls += 1
        return self._evaluator.evaluate(case, x64=x64)

    def _first_input_with(self, name: str) -> str:
        for path, leaf in self._spec.input_leaves():
            if any(name in names_in(one) for one in leaf.shape.dimensions):
                return f"inputs.{'.'.join(path)}"
        return "inputs"
