"""What test_sharding.py runs with four devices: operations on batches cut along explicit axes."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from comparing import assert_close
from jaxtorch_bridge import jax_callable

rng = np.random.default_rng(0)
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)


def normal(*shape):
    return torch.from_numpy(rng.standard_normal(shape)).float()


linalg, functional = torch.linalg, torch.nn.functional
matrix = normal(8, 4, 4) + 4 * torch.eye(4)
positive = matrix @ matrix.mT + torch.eye(4)
factor = linalg.cholesky(positive)
right, tall = normal(8, 4, 2), normal(8, 6, 4)
x, y, images, sequence = normal(8, 4), normal(8, 4), normal(8, 3, 6, 6), normal(8, 4, 6)
indices = torch.from_numpy(rng.integers(0, 4, (8, 4)))
targets = torch.from_numpy(rng.integers(0, 4, (8,)))
table = normal(4, 6)
torch.manual_seed(0)
lstm = torch.nn.LSTM(6, 5, batch_first=True)
gru = torch.nn.GRU(6, 5, batch_first=True)
attention = torch.nn.MultiheadAttention(6, 2, batch_first=True)
layer = torch.nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0)


def replaced(x, y):
    return x.select_scatter(y[:, 0], 1, 1).slice_scatter(torch.ones(8, 2), 1, 2)


MATRICES = {
    "cholesky": (linalg.cholesky, positive),
    "cholesky upper": (lambda a: linalg.cholesky(a, upper=True), positive),
    "cholesky_ex": (linalg.cholesky_ex, positive),
    "cholesky_solve": (torch.cholesky_solve, right, factor),
    "cholesky_inverse": (torch.cholesky_inverse, factor),
    "inv": (linalg.inv, matrix),
    "inv_ex": (linalg.inv_ex, matrix),
    "solve": (linalg.solve, matrix, right),
    "solve from the right": (lambda a, b: linalg.solve(a, b, left=False), matrix, right.mT),
    "solve for vectors": (linalg.solve, matrix, x),
    "solve with one matrix": (lambda b: linalg.solve(matrix[0], b), right),
    "lu": (linalg.lu, matrix),
    "lu_factor": (linalg.lu_factor, matrix),
    "lu_solve": (lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b), matrix, right),
    "det": (linalg.det, matrix),
    "slogdet": (linalg.slogdet, matrix),
    "qr": (linalg.qr, tall),
    "eigvalsh": (linalg.eigvalsh, positive),
    "eigh": (lambda a: (linalg.eigh(a)[0], linalg.eigh(a)[1].abs()), positive),
    "svdvals": (linalg.svdvals, tall),
    "pinv": (linalg.pinv, tall),
    "matrix_rank": (linalg.matrix_rank, tall),
    "cond": (linalg.cond, matrix),
    "nuclear norm": (lambda a: linalg.matrix_norm(a, "nuc"), tall),
    "matrix_exp": (linalg.matrix_exp, 0.3 * matrix),
    "matrix_power": (lambda a: linalg.matrix_power(a, -2), matrix),
    "solve_triangular": (lambda a, b: linalg.solve_triangular(a, b, upper=False), factor, right),
    "householder_product": (linalg.householder_product, tall, 0.1 * tall[:, 0].contiguous()),
    "eigvals, an island": (lambda a: linalg.eigvals(a).abs().sort().values, positive),
}
OTHERS = {
    "where": (lambda x: torch.where(x > 0, x, torch.zeros(8, 4)), x),
    "masked_fill": (lambda x: x.masked_fill(torch.eye(8, 4).bool(), 2.0), x),
    "max": (lambda x: x.max(-1), x),
    "max along the cut axis": (lambda x: x.max(0), x),
    "mode": (lambda x: x.round().mode(-1)[0], x),
    "quantile": (lambda x: x.quantile(0.3, -1), x),
    "gather": (lambda x, i: x.gather(-1, i.long()), x, indices),
    "scatter": (lambda x, i, y: x.scatter(-1, i.long()[:, :1], y), x, indices, y),
    "scatter_add": (lambda x, i, y: x.scatter_add(-1, i.long(), y), x, indices, y),
    "scatter_reduce": (lambda x, i, y: x.scatter_reduce(-1, i.long(), y, "sum"), x, indices, y),
    "index_add": (lambda x, y: x.index_add(-1, torch.tensor([0, 2, 1, 0]), y), x, y),
    "index_copy": (lambda x, y: x.index_copy(-1, torch.tensor([0, 2]), y[:, :2]), x, y),
    "index_select": (lambda x: x.index_select(-1, torch.tensor([0, 2])), x),
    "index": (lambda x: x[:, torch.tensor([0, 2])], x),
    "replaced": (replaced, x, y),
    "embedding": (lambda i: functional.embedding(i.long(), table), indices),
    "sort": (lambda x: x.sort(-1), x),
    "cumsum": (lambda x: x.cumsum(-1), x),
    "softmax": (lambda x: x.softmax(0), x),
    "layer_norm": (lambda x: functional.layer_norm(x, (4,), y[0]), x),
    "instance_norm": (functional.instance_norm, images),
    "conv2d": (lambda x: functional.conv2d(x, images[:2, :, :3, :3]), images),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 2, return_indices=True), images),
    "pixel_shuffle": (lambda x: functional.pixel_shuffle(x.repeat(1, 4, 1, 1), 2), images),
    "unfold": (lambda x: functional.unfold(x, 2), images),
    "grid_sample": (
        lambda x: functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
        images,
    ),
    "bmm": (lambda x: torch.bmm(x, torch.ones(8, 6, 3)), sequence),
    "matmul with one matrix": (lambda x: x.mT @ table, sequence),
    "einsum": (lambda x: torch.einsum("bij,kj->bik", x, table), sequence),
    "linear behind a transpose": (
        lambda x: functional.linear(x.transpose(0, 1), table, y[0]).transpose(0, 1),
        sequence,
    ),
    "attention": (lambda x: attention(x, x, x)[0], sequence),
    "transformer layer": (layer, sequence),
    "lstm": (lambda x: lstm(x)[0], sequence),
    "gru": (lambda x: gru(x)[0], sequence),
    "cross_entropy": (lambda x, i: functional.cross_entropy(x, i.long()), x, targets),
    "rfft": (lambda x: torch.fft.rfft(x).abs(), x),
    "cat": (lambda x: torch.cat([x, torch.ones(8, 2)], -1), x),
    "cat along the cut axis": (lambda x, y: torch.cat([x, y]), x, y),
    "pad": (lambda x: functional.pad(x, (1, 2), mode="reflect"), x),
    "circular padding": (lambda x: functional.pad(x, (1, 1), mode="circular"), sequence),
    "flip": (lambda x: x.flip(0), x),
    "roll": (lambda x: x.roll(1, -1), x),
}


def total(tree):
    """Of what is real, with weights, so that no gradient vanishes."""
    found = jnp.float32(0)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            weights = 1 + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape) / leaf.size
            found += (jnp.sin(leaf) * weights).sum()
    return found


def loss(f):
    return lambda *a: jax.grad(lambda first: total(f(first, *a[1:])))(a[0])


def tangents(f):
    def run(first, *others):
        return jax.jvp(lambda x: f(x, *others), (first,), (jnp.cos(3 * first),))[1]

    return run


def cut(array, *axes):
    return jax.device_put(array, NamedSharding(mesh, P(*axes)))


functions = {"matrices": MATRICES, "others": OTHERS}[sys.argv[1]]
for name, (function, *given) in functions.items():
    call, eager = (jax_callable(function, backend=one) for one in ("xla", "eager"))
    arrays = [jnp.asarray(one.numpy()) for one in given]
    transforms = {"value": lambda f: f}
    if jnp.issubdtype(arrays[0].dtype, jnp.floating) and name not in ("eigh", "matrix_rank"):
        transforms |= {"grad": loss, "jvp": tangents}
    if name == "householder_product":
        transforms.pop("jvp")
    for axes in ("data", ("data", "model")):
        # One of both is as good as the other for a derivative.
        for way in transforms if axes == "data" else ["value"]:
            want = jax.device_get(jax.jit(transforms[way](eager))(*arrays))
            with jax.set_mesh(mesh):
                found = jax.jit(transforms[way](call))(*(cut(one, axes) for one in arrays))
            assert_close(jax.device_get(found), want, label=f"{name}, {way}", factor=100)
            for one, whole in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
                if way == "value" and whole.shape[:1] == (8,) and "island" not in name:
                    assert one.sharding.spec[0] == axes, (name, one.sharding)

print("fine")
