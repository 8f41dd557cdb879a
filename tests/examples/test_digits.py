"""The digits example on a few steps, and the contracts that ship beside it."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import SpecMismatchError, jax_callable, load_spec

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits.py"
CONTRACTS = sorted((ROOT / "specs").glob("*.yaml"))
STEPS = 100


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(digits: ModuleType) -> Any:
    return digits.train(STEPS)


def numpy_params(digits: ModuleType) -> Any:
    return digits.initial_params(np.random.default_rng(1))


# ---- Training ------------------------------------------------------------------------------------


def test_first_losses_agree_with_plain_torch(report: Any) -> None:
    first = slice(10)
    # Each step goes on from what the ones before it have rounded.
    assert_close(report.jax.losses[first], report.torch.losses[first], factor=10)
    assert report.loss_gap() < 1e-4


def test_a_short_training_learns_on_both_sides(report: Any) -> None:
    for record in (report.jax, report.torch):
        assert len(record.losses) == len(record.seconds) == STEPS
        assert record.losses[-1] < 0.2 * record.losses[0]
        assert record.accuracy > 0.9


def test_the_report_shows_how_the_bridge_ran(report: Any) -> None:
    assert "digits_cnn@1.0.0" in report.plan
    assert "tape: the function runs once, and torch keeps" in report.plan
    assert "extra runs   0" in report.plan


def test_a_step_consumes_the_state_that_it_is_given(digits: ModuleType) -> None:
    training = digits.JaxTraining(numpy_params(digits))
    before = training.state
    images, labels = next(digits.batches(digits.read_digits().train, 1, np.random.default_rng(0)))
    training.step(images, labels)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def test_gradients_agree_with_plain_torch(digits: ModuleType) -> None:
    images, labels = next(digits.batches(digits.read_digits().train, 1, np.random.default_rng(0)))
    params = numpy_params(digits)
    grads = jax.jit(jax.grad(digits.loss_fn))(params, images, labels)

    tensors = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), params)
    scores = digits.digits_cnn(torch.from_numpy(images), tensors)
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels).long()).backward()
    expected = jax.tree.map(lambda leaf: leaf.grad.numpy(), tensors)
    assert_close(grads, expected)


# ---- Data ----------------------------------------------------------------------------------------


def test_every_image_is_in_one_part(digits: ModuleType) -> None:
    data = digits.read_digits()
    assert len(data.train[1]) + len(data.test[1]) == 1797
    assert set(data.test[1]) == set(range(10))
    assert data.train[0].max() == 1.0


def test_the_split_is_the_same_every_time(digits: ModuleType) -> None:
    assert_equal(digits.read_digits().test[0], digits.read_digits().test[0])


def test_batches_of_an_epoch_do_not_overlap(digits: ModuleType) -> None:
    count = 5 * digits.BATCH_SIZE + 3
    data = np.arange(count), np.arange(count)
    epoch = [labels for _, labels in digits.batches(data, 5, np.random.default_rng(0))]
    assert len(set(np.concatenate(epoch))) == 5 * digits.BATCH_SIZE


# ---- The command ---------------------------------------------------------------------------------


def test_too_few_steps_fail_with_the_accuracy(
    digits: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert digits.main(["--steps", "2", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "after 2 steps, expected at least 0.97" in captured.err


def test_the_command_prints_accuracies_times_and_the_plan(
    digits: ModuleType,
    report: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(digits, "train", lambda steps, after_step: report)
    monkeypatch.setattr(digits, "LEAST_ACCURACY", 0.5)
    assert digits.main(["--steps", str(STEPS)]) == 0
    output = capsys.readouterr().out
    for part in ("test accuracy", "time per step, median", "in the first 10 steps", report.plan):
        assert part in output


@pytest.mark.parametrize("steps", ["0", "-1", "many"])
def test_a_bad_number_of_steps_is_refused(digits: ModuleType, steps: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        digits.main(["--steps", steps])


def test_the_script_finds_its_contract_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Started by a relative path, as a shell would; the fixture's is absolute.
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(os.path.relpath(EXAMPLE, tmp_path), run_name="digits_elsewhere")
    assert names["digits_cnn"].spec.label == "digits_cnn@1.0.0"


# ---- The contracts -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_contract_loads_and_is_accepted(path: Path) -> None:
    spec = load_spec(path)
    assert spec.name == path.stem
    assert jax_callable(lambda: None, spec=path).spec == spec


def test_both_contracts_are_there() -> None:
    assert {path.stem for path in CONTRACTS} >= {"attention", "digits_cnn"}


def test_parameters_fit_the_contract(digits: ModuleType) -> None:
    spec = load_spec(digits.SPEC)
    assert digits.digits_cnn.spec == spec
    params = numpy_params(digits)
    named = {("params", layer, leaf) for layer in params for leaf in params[layer]}
    assert {path for path, _ in spec.input_leaves()} == named | {("images",)}


def test_a_layer_of_the_wrong_width_is_named(digits: ModuleType) -> None:
    params = numpy_params(digits)
    params["dense1"]["weight"] = params["dense1"]["weight"][:, :-1]
    images = np.zeros((2, 1, 8, 8), np.float32)
    with pytest.raises(SpecMismatchError, match=r"params\.dense1\.weight.*to be 512") as caught:
        digits.digits_cnn(images, params)
    assert "digits_cnn.yaml" in str(caught.value)


def attention(
    q: Any, k: Any, v: Any, mask: Any | None = None, *, causal: bool = False
) -> torch.Tensor:
    """What the attention contract describes: ``mask`` says which keys count."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize(
    ("masked", "causal"), [(False, True), (True, False)], ids=["causal", "mask"]
)
def test_the_attention_contract_fits_attention(masked: bool, causal: bool) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 3, 5, 4)), jnp.float32) for _ in range(3))
    mask = jnp.asarray([[True] * 4 + [False], [True] * 5])
    bridged = jax_callable(attention, spec=ROOT / "specs" / "attention.yaml")
    arguments = (q, k, v, mask) if masked else (q, k, v)

    def reference(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        heads_last = (jnp.swapaxes(array, 1, 2) for array in (q, k, v))
        keys = mask[:, None, None, :] if masked else None
        return jnp.swapaxes(
            jax.nn.dot_product_attention(*heads_last, mask=keys, is_causal=causal), 1, 2
        )

    def loss_of(attend: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda q, *rest: (attend(q, *rest) ** 2).sum()))

    actual = loss_of(partial(bridged, causal=causal))(*arguments)
    expected = loss_of(reference)(q, k, v)
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])
