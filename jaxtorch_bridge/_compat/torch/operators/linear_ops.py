"""Which ATen operations are linear in which arguments. Tried on torch 2.13.0.

An operation that stands nowhere here is not known to be linear, and so is one that torch renames: a
check with numbers then takes the place of the proof. An operation that writes to its first argument
is looked up without the underscore at its end.
"""

from __future__ import annotations

from typing import Any


def _named(text: str) -> frozenset[str]:
    return frozenset(text.split())


def name_of(func: Any) -> str:
    """Under which name an operation stands here."""
    packet = getattr(func, "overloadpacket", None)
    name = str(getattr(packet, "__name__", func))
    # Of an op in place, what it does.
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


# Linear in their first argument, with all others fixed: views, sums, places, discrete Fourier
# transforms.
FIRST = _named(
    """
    alias view reshape _reshape_alias _unsafe_view as_strided expand permute transpose t
    squeeze unsqueeze select slice narrow diagonal unfold unfold_backward split split_with_sizes
    unbind chunk movedim flatten view_as_real view_as_complex real imag _conj conj _conj_physical
    conj_physical _neg_view neg resolve_conj resolve_neg clone contiguous _to_copy to positive
    lift_fresh detach flip roll rot90 tril triu diag_embed diag trace sum mean cumsum
    sum_to_size index index_select gather take take_along_dim repeat repeat_interleave tile
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d adaptive_avg_pool1d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa im2col col2im pixel_shuffle
    pixel_unshuffle channel_shuffle _fft_c2c _fft_r2c _fft_c2r
    block_diag grid_sampler_2d grid_sampler_3d embedding div expand_copy view_copy permute_copy
    native_dropout
    """
)
# Linear in several arguments together: all of them linear or nought.
TOGETHER: dict[str, tuple[int, ...]] = {
    "add": (0, 1),
    "sub": (0, 1),
    "rsub": (0, 1),
    "cat": (0,),
    "stack": (0,),
    "where": (1, 2),
    "copy": (0, 1),
    "complex": (0, 1),
    "constant_pad_nd": (0, 2),
    "lerp": (0, 1),
    "masked_fill": (0, 2),
    "fill": (0, 1),
    "index_put": (0, 2),
    "_index_put_impl": (0, 2),
    "_unsafe_index_put": (0, 2),
    "index_add": (0, 3),
    "index_copy": (0, 3),
    "index_fill": (0, 3),
    "scatter": (0, 3),
    "scatter_add": (0, 3),
    "slice_scatter": (0, 1),
    "select_scatter": (0, 1),
    "diagonal_scatter": (0, 1),
    "as_strided_scatter": (0, 1),
    "masked_scatter": (0, 2),
    "put": (0, 2),
}
# Linear in each of two factors, and together with what is added to the product.
PRODUCTS: dict[str, tuple[int, int, int | None]] = {
    "mul": (0, 1, None),
    "mm": (0, 1, None),
    "bmm": (0, 1, None),
    "mv": (0, 1, None),
    "dot": (0, 1, None),
    "vdot": (0, 1, None),
    "matmul": (0, 1, None),
    "linear": (0, 1, 2),
    "outer": (0, 1, None),
    "ger": (0, 1, None),
    "kron": (0, 1, None),
    "linalg_cross": (0, 1, None),
    "cross": (0, 1, None),
    "addmm": (1, 2, 0),
    "addmv": (1, 2, 0),
    "addbmm": (1, 2, 0),
    "baddbmm": (1, 2, 0),
    "addr": (1, 2, 0),
    "addcmul": (1, 2, 0),
    "convolution": (0, 1, 2),
    "convolution_overrideable": (0, 1, 2),
    "mkldnn_convolution": (0, 1, 2),
    "_sparse_mm": (0, 1, None),
    "_sparse_addmm": (1, 2, 0),
}
# Solutions of linear systems, and attention: linear in this argument. Only the first result is.
LINEAR_IN_ONE = {
    "_scaled_dot_product_flash_attention": 2,
    "_scaled_dot_product_flash_attention_for_cpu": 2,
    "_scaled_dot_product_efficient_attention": 2,
    "linalg_solve_triangular": 1,
    "_linalg_solve_ex": 1,
    "linalg_lu_solve": 2,
    "lu_solve": 0,
    "triangular_solve": 0,
    "cholesky_solve": 0,
    "linalg_ldl_solve": 2,
}
# Of these only shape and dtype of the first argument count.
MADE_LIKE = _named(
    """
    zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones
    new_empty new_full new_empty_strided _new_zeros_with_same_feature_meta sym_size sym_numel
    sym_stride size numel stride is_same_size
    """
)
# Their derivative is nought wherever they have one.
WITHOUT_SLOPE = _named("sign round floor ceil trunc heaviside floor_divide")
# What nobody has written to yet is as good as nought.
NOUGHTS = _named(
    """
    zeros zeros_like new_zeros _new_zeros_with_same_feature_meta empty empty_like empty_strided
    new_empty new_empty_strided zero _efficientzerotensor
    """
)
NOT_LINEAR = _named(
    """
    amax amin max min argmax argmin prod norm linalg_vector_norm linalg_matrix_norm _softmax
    _log_softmax logsumexp var std var_mean std_mean sort topk median mode kthvalue cumprod cummax
    cummin max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d native_layer_norm
    native_group_norm _linalg_det _linalg_slogdet linalg_inv_ex linalg_cholesky_ex linalg_qr
    _linalg_svd _linalg_eigh linalg_eig matrix_exp _cdist_forward _pdist_forward any all
    count_nonzero nonzero _unique2
    """
)
