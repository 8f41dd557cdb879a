"""What differs from torch is called wrong, whatever way shows it; runs outlive their processes."""

from __future__ import annotations

import sys

import pytest
import torch

from conformance.outcome import Outcome, combined, outcome_of
from conformance.page import refusals_on, write_page
from conformance.result import Result, read_results
from conformance.samples import Case
from conformance.ways import WAYS, try_way
from conformance.workers import Worker
from jaxtorch_bridge import BridgeError, TorchExecutionError, jax_callable


def case_of(call, in_place=None):
    x, y = torch.linspace(0.1, 0.9, 6).reshape(2, 3), torch.linspace(0.2, 0.7, 6).reshape(2, 3)
    return Case(
        call=call,
        in_place=in_place,
        reduced=call,
        tensors=(x,),
        batch=((y,),),
        moved=(0,),
        seed=0,
    )


SINE = case_of(lambda x: torch.sin(x), lambda *tensors: tensors[0].sin_())


class WrongSlope(torch.autograd.Function):
    """A sine with another function's slope, in both modes."""

    @staticmethod
    def forward(x):
        return torch.sin(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, weight):
        return weight


@pytest.mark.parametrize("way", WAYS)
def test_the_same_function_is_right(way):
    assert try_way("sin", way, SINE) == Outcome("right")


@pytest.mark.parametrize("way", ["jit", "vjp", "jvp", "vmap"])
def test_other_values_are_wrong(way):
    def wrap(function, **options):
        return jax_callable(lambda *tensors: function(*tensors) * 1.001, **options)

    outcome = try_way("sin", way, SINE, wrap)
    assert outcome.kind == "wrong"
    assert "they differ by" in outcome.words


def test_another_new_value_is_wrong():
    def wrap(function, **options):
        return jax_callable(lambda *tensors: function(*tensors).mul_(1.001), **options)

    assert try_way("sin", "in place", SINE, wrap).kind == "wrong"


@pytest.mark.parametrize("way", ["vjp", "jvp"])
def test_a_wrong_derivative_of_right_values_is_wrong(way):
    def wrap(function, **options):
        return jax_callable(lambda *tensors: WrongSlope.apply(*tensors), **options)

    assert try_way("sin", "jit", SINE, wrap) == Outcome("right")
    assert try_way("sin", way, SINE, wrap).kind == "wrong"


def test_a_batch_that_is_mixed_up_is_wrong():
    def wrap(function, **options):
        # Right for one, where the axis that is turned is the only one of its size.
        return jax_callable(lambda x: torch.sin(x.flip(0) if x.dim() == 3 else x), **options)

    def claiming(function, **options):
        return wrap(function, vmap_method="broadcast_all", **options)

    assert try_way("sin", "jit", SINE, claiming) == Outcome("right")
    assert try_way("sin", "vmap", SINE, claiming).kind == "wrong"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BridgeError("no"), "refused"),
        (TorchExecutionError("torch failed"), "wrong"),
        (ValueError("no"), "wrong"),
    ],
)
def test_only_errors_that_are_meant_are_refusals(error, kind):
    def find():
        raise error

    assert outcome_of(lambda: 1, find, lambda found, expected: None).kind == kind


def test_where_torch_cannot_there_has_to_be_no_result():
    def expect():
        raise RuntimeError("no derivative")

    def refuse():
        raise BridgeError("torch has no derivative")

    outcome = outcome_of(expect, refuse, lambda found, expected: None)
    assert outcome == Outcome("torch", "RuntimeError: no derivative")
    assert outcome_of(expect, lambda: 0, lambda found, expected: None).kind == "wrong"


def test_the_worst_of_several_calls_counts():
    right, torch_cannot, wrong = Outcome("right"), Outcome("torch"), Outcome("wrong", "here")
    assert combined([right, wrong, torch_cannot]) == wrong
    assert combined([torch_cannot, right]) == right
    assert combined([]).kind == "nothing"


def test_a_process_that_dies_costs_one_way():
    dying = """
import json, os, sys
for line in sys.stdin:
    for way in json.loads(line)["ways"]:
        print(json.dumps({"way": way}), flush=True)
        if way == "vjp":
            os.abort()
        print(json.dumps({"kind": "right", "words": "", "seconds": 0}), flush=True)
"""
    worker = Worker(command=[sys.executable, "-c", dying])
    results = list(worker.try_entry("sin", "float32", ["jit", "vjp", "jvp"]))
    worker.close()
    assert [result.way for result in results] == ["jit", "vjp", "jvp"]
    assert [result.outcome.kind for result in results] == ["right", "wrong", "right"]
    assert "the process ended with -6" in results[1].outcome.words


def test_a_process_that_never_answers_costs_one_way():
    sleeping = "import time; time.sleep(1000)"
    worker = Worker(command=[sys.executable, "-c", sleeping], limit_seconds=0.2)
    (result,) = worker.try_entry("sin", "float32", ["jit"])
    worker.close()
    assert result.outcome == Outcome("wrong", "no result within 0.2 s")


def test_a_page_has_what_was_found(tmp_path):
    results = [
        Result("add", "float32", "jit", Outcome("right")),
        Result("item", "float32", "jit", Outcome("refused", "OutputError: | no")),
        Result("item", "float32", "vmap", Outcome("refused", "OutputError: | no")),
        Result("igamma", "float32", "vjp", Outcome("torch", "RuntimeError: cannot")),
    ]
    file, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    # The last line is of a run that was stopped.
    file.write_text("".join(result.line() + "\n" for result in results) + '{"entry": "ad')
    assert read_results(file) == results
    write_page(results, page)
    text = page.read_text()
    assert "| float32 | jit | 1 | 1 | 0 | 0 | 0 | 0 |" in text
    assert "| RuntimeError: cannot | vjp | all | `igamma` |" in text
    assert refusals_on(page) == {("item", "jit"), ("item", "vmap")}
    write_page([*results, Result("sin", "float32", "vjp", Outcome("wrong", "off"))], page)
    assert "| off | vjp | all | `sin` |" in page.read_text().partition("## Refused")[0]
