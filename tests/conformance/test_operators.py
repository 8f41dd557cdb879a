"""A fixed part of torch's database of operators, called from JAX in every way.

`make conformance` goes over all of it, by the same code. Entries run in a process of their own:
what is imported there changes settings of torch's and of hypothesis's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.outcome import Outcome
from conformance.page import installed_versions, refusals_on
from conformance.ways import WAYS
from conformance.workers import Worker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"

# Every tenth of the database by name, in torch 2.13.
TENTH = """
H __rpow__ _unsafe_masked_index_put_accumulate addmm.decomposed any asin bfloat16
bmm.triton_optimized cdist clamp contiguous cumprod diff einsum exp fft.fftn fft.ihfft2 flip frac
grid_sampler_2d hstack index_reduce.amax isinf jiterator_binary_return_by_ref linalg.cholesky_ex
linalg.inv linalg.lu_solve linalg.pinv.singular linalg.vander log_softmax logit mT masked.mean
masked_fill mean movedim nanmedian neg nn.functional.adaptive_max_pool1d
nn.functional.binary_cross_entropy nn.functional.cosine_embedding_loss
nn.functional.feature_alpha_dropout.with_train nn.functional.hardsigmoid
nn.functional.interpolate.nearest nn.functional.linear_cross_entropy.chunked_none
nn.functional.max_unpool2d.grad nn.functional.normalize nn.functional.pixel_unshuffle
nn.functional.silu.complex nn.functional.triplet_margin_loss norm.nuc permute_copy prod ravel
resize_as_ rsub select signal.windows.gaussian sinh special.bessel_j1
special.hermite_polynomial_he special.modified_bessel_k1 special.spherical_bessel_j0
squeeze.multiple sum_to_size tensordot trace true_divide unravel_index view zeros
"""
# Sizes that follow from values, random numbers, writes, results that are no tensors; and what a run
# over the whole database once found wrong.
OTHERS = "nonzero nn.functional.dropout log_normal item block_diag"
# Some for the sake of their dtypes.
SIXTIETH = """
__rdiv__ bitwise_or div.trunc_rounding gcd linalg.eig lt native_batch_norm
nn.functional.instance_norm nn.functional.softplus round special.legendre_polynomial_p
triangular_solve
"""
OTHER_DTYPES = ("float64", "bfloat16", "complex64", "int64")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    one = Worker(verbose=True)
    yield one
    one.close()


@pytest.mark.table(3)
@pytest.mark.parametrize("entry", (TENTH + OTHERS).split())
def test_an_operator_gives_what_torch_gives_or_is_refused_as_documented(worker, entry):
    _check(worker, entry, "float32")


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
@pytest.mark.parametrize("entry", SIXTIETH.split())
def test_other_dtypes(worker, entry, dtype):
    _check(worker, entry, dtype)


def _check(worker: Worker, entry: str, dtype: str) -> None:
    found = {result.way: result.outcome for result in worker.try_entry(entry, dtype, WAYS)}
    assert found.keys() == set(WAYS)
    if all(outcome == Outcome("no entry") for outcome in found.values()):
        pytest.skip("this release of torch has no such entry")
    wrong = {way: outcome.words for way, outcome in found.items() if outcome.kind == "wrong"}
    assert not wrong
    # Other releases may refuse other things.
    if installed_versions() in PAGE.read_text():
        refused = [way for way, outcome in found.items() if outcome.kind == "refused"]
        assert {(entry, way) for way in refused} <= refusals_on(PAGE), found
