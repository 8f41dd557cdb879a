"""A part of torch's database of operators, by ``backend="xla"``: torch's results, or a refusal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.evidence import DTYPE_COLUMNS, letter_of, read_evidence
from conformance.workers import Worker

WAYS = ("jit", "vjp", "jvp", "vmap")
# What is right in each way that torch has, in float32. A refusal of one of these is a loss.
LOWERED = """
abs add addmm amax angle atan2 baddbmm cat clamp conj_physical constant_pad_nd cos cumprod cumsum
div.floor_rounding div.no_rounding_mode erf exp expand flip floor fmod gather hypot index_add
index_put index_select lerp log_softmax logsumexp masked_fill matmul maximum mean minimum mul mv
native_layer_norm nn.functional.avg_pool2d nn.functional.conv2d nn.functional.embedding
nn.functional.conv_transpose2d nn.functional.gelu nn.functional.group_norm
nn.functional.max_pool2d nn.functional.silu permute pow prod reciprocal remainder repeat roll
scatter scatter_add sigmoid slice softmax sort sqrt stack std sum tanh topk transpose tril var
where
_segment_reduce.lengths _upsample_bilinear2d_aa addbmm as_strided_scatter cdist cholesky_inverse
cholesky_solve cummax cummin diagonal_scatter fft.ihfft2 frexp geqrf histogram histogramdd i0
igamma igammac index_reduce.amax index_reduce.mean index_reduce.prod kthvalue ldexp
linalg.cholesky_ex linalg.cond linalg.det linalg.eigvalsh linalg.householder_product linalg.inv_ex
linalg.lu linalg.lu_factor_ex linalg.lu_solve linalg.matrix_rank linalg.pinv linalg.pinv.hermitian
linalg.pinv.singular linalg.qr linalg.solve_triangular linalg.svd linalg.svdvals lu_unpack
masked.median masked_scatter matrix_exp median mode nanmedian nn.functional.adaptive_max_pool2d
nn.functional.adaptive_max_pool3d nn.functional.bilinear nn.functional.cosine_similarity
nn.functional.embedding_bag nn.functional.grid_sample nn.functional.margin_ranking_loss
nn.functional.pdist nonzero_static norm.nuc ormqr polygamma.polygamma_n_0 polygamma.polygamma_n_2
put round.decimals_3 special.chebyshev_polynomial_u special.erfcx special.hermite_polynomial_he
special.i0e special.i1 special.i1e special.laguerre_polynomial_l special.legendre_polynomial_p
special.log_ndtr special.ndtri special.shifted_chebyshev_polynomial_w special.spherical_bessel_j0
special.zeta triangular_solve
"""
# Not `sort`: which of equals comes first torch leaves open, and narrow floats have many.
OTHER_DTYPES = "add amax bmm clamp cumsum div.trunc_rounding gather max.reduction_no_dim mul neg \
remainder scatter_add sum where"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    one = Worker(verbose=True, command=(sys.executable, "-m", "conformance.worker", "xla"))
    yield one
    one.close()


@pytest.mark.table(6)
@pytest.mark.parametrize("entry", LOWERED.split())
def test_values_and_derivatives_are_torchs(worker, entry):
    for result in list(worker.try_entry(entry, "float32", WAYS)):
        outcome = result.outcome
        assert outcome.kind in ("right", "torch", "nothing"), f"{result.way}: {outcome.words}"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "complex64", "int64"])
@pytest.mark.parametrize("entry", OTHER_DTYPES.split())
def test_other_dtypes(worker, entry, dtype):
    for result in list(worker.try_entry(entry, dtype, ("jit", "vjp"))):
        outcome = result.outcome
        assert outcome.kind != "wrong", f"{result.way}: {outcome.words}"
        assert outcome.kind != "refused", f"{result.way}: {outcome.words}"


# Every so many of the file's entries: other ones when the file grows.
EVIDENCE = Path(__file__).parents[2] / "conformance" / "xla_evidence.txt"
_EACH = 23


def _sample() -> dict[tuple[str, str], dict[str, str]]:
    """Some entries in float32, and others in one of the other dtypes each."""
    told: dict[str, dict[str, dict[str, str]]] = {}
    for entry, dtype, way, letter in read_evidence(EVIDENCE):
        told.setdefault(entry, {}).setdefault(dtype, {})[way] = letter
    entries, others = sorted(told), [one for one in DTYPE_COLUMNS if one != "float32"]
    chosen = [(entry, "float32") for entry in entries[::_EACH]]
    chosen += [
        (entry, others[place % len(others)])
        for place, entry in enumerate(entries[_EACH // 2 :: _EACH])
    ]
    return {(entry, dtype): told[entry][dtype] for entry, dtype in chosen if dtype in told[entry]}


SAMPLE = _sample()


@pytest.mark.table(6)
@pytest.mark.parametrize(("entry", "dtype"), SAMPLE)
def test_the_file_of_evidence_is_true(worker, entry, dtype):
    told = SAMPLE[entry, dtype]
    results = worker.try_entry(entry, dtype, tuple(told))
    assert {result.way: letter_of(result) for result in results} == told
