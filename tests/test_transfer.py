"""t2j and j2t on CPU: values, addresses, copies, refusals and lifetimes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge.calling.pytrees.tree_transfer import tree_j2t, tree_t2j
from jaxtorch_bridge.dtypes import DTYPES, WITHOUT_PARTNER, canonical_name
from jaxtorch_bridge.errors import DtypeError, TransferError
from jaxtorch_bridge.transfer import dtype_j2t, dtype_t2j, j2t, t2j

SHAPES = [(), (3,), (2, 3), (2, 3, 4), (0,), (2, 0, 3)]
# One element in: aligned for torch, but not for XLA.
MISALIGNED = slice(1, None)

every_dtype = pytest.mark.parametrize("name", DTYPES)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
both_x64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "x32"])


def make_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    count = int(np.prod(shape))
    return torch.arange(1, count + 1).to(getattr(torch, name)).reshape(shape)


def make_array(name: str, shape: tuple[int, ...]) -> jax.Array:
    count = int(np.prod(shape))
    return jnp.asarray(np.arange(1, count + 1).astype(dtype_of(name)).reshape(shape))


def dtype_of(name: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(getattr(jnp, name))
    return dtype


def bits(value: Any) -> bytes:
    """The elements' bytes in row-major order, so that NaN equals itself and -0 differs from 0."""
    if isinstance(value, torch.Tensor):
        if not value.numel():
            return b""  # torch views an empty tensor's bytes only if its strides allow it
        value = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.asarray(value).tobytes()


def shares(tensor: torch.Tensor, array: jax.Array) -> bool:
    return tensor.data_ptr() == array.unsafe_buffer_pointer()


# --- dtypes


@every_dtype
def test_dtypes_round_trip(name: str) -> None:
    assert dtype_t2j(getattr(torch, name)) == dtype_of(name)
    for spelling in (name, dtype_of(name), getattr(jnp, name)):
        assert dtype_j2t(spelling) is getattr(torch, name)


def test_byte_order_is_not_part_of_a_torch_dtype() -> None:
    assert dtype_j2t(">f4") is torch.float32


@pytest.mark.parametrize("name", sorted(n for n in WITHOUT_PARTNER if hasattr(torch, n)))
def test_torch_dtype_without_partner(name: str) -> None:
    with pytest.raises(DtypeError, match=rf"torch\.{name} cannot go to JAX: \w+"):
        dtype_t2j(getattr(torch, name))


@pytest.mark.parametrize("name", sorted(n for n in WITHOUT_PARTNER if hasattr(jnp, n)))
def test_jax_dtype_without_partner(name: str) -> None:
    with pytest.raises(DtypeError, match=rf"dtype {name} cannot go to torch: torch \w+"):
        dtype_j2t(getattr(jnp, name))


@pytest.mark.parametrize("value", [None, 3, "nonsense", torch.float32, [1]], ids=repr)
def test_dtype_j2t_of_no_dtype(value: Any) -> None:
    with pytest.raises(DtypeError, match="expected a dtype of JAX or numpy; got"):
        dtype_j2t(value)


def test_dtype_t2j_of_no_dtype() -> None:
    with pytest.raises(DtypeError, match=r"expected a torch\.dtype; got 'float32'"):
        dtype_t2j("float32")  # type: ignore[arg-type]


def test_dtype_j2t_of_keys() -> None:
    with pytest.raises(DtypeError, match="key<fry> cannot go to torch"):
        dtype_j2t(jax.random.key(0).dtype)


# --- torch to JAX


@both_x64
@every_shape
@every_dtype
def test_t2j_gives_the_same_bits_on_the_same_memory(
    name: str, shape: tuple[int, ...], x64: bool
) -> None:
    tensor = make_tensor(name, shape)
    held = canonical_name(name, x64=x64)
    with jax.enable_x64(x64):
        array = t2j(tensor)
        assert (array.shape, array.dtype) == (shape, dtype_of(held))
        assert bits(array) == bits(tensor.to(getattr(torch, held)))
        if tensor.numel():
            assert shares(tensor, array) == (held == name)
        # What JAX holds is an array as any other.
        assert bits(jax.jit(lambda x: x)(array)) == bits(array)


@every_shape
@every_dtype
def test_t2j_copy_true_has_memory_of_its_own(name: str, shape: tuple[int, ...]) -> None:
    tensor = make_tensor(name, shape)
    with jax.enable_x64(True):
        array = t2j(tensor, copy=True)
        assert bits(array) == bits(tensor)
    assert not tensor.numel() or not shares(tensor, array)


def test_narrowing_wraps_and_rounds_as_jax_does() -> None:
    integers = np.array([2**40 + 7, -1, 2**63 - 1])
    floats = np.array([1e300, -1e300, np.nan, 1 / 3])
    with jax.enable_x64(False):
        assert bits(t2j(torch.from_numpy(integers))) == bits(jnp.asarray(integers))
        got = t2j(torch.from_numpy(floats))
        assert_equal(got, [np.inf, -np.inf, np.nan, np.float32(1 / 3)])
        assert t2j(torch.from_numpy(integers.view("u8"))).tolist() == [7, 2**32 - 1, 2**32 - 1]


def strided_views() -> dict[str, torch.Tensor]:
    base = torch.arange(1.0, 25.0).reshape(4, 6)
    imaginary = torch.complex(base, base + 1)
    return {
        "transposed": base.t(),
        "stepped": base[:, ::2],
        "column": base[:, 1],
        "expanded": base[:1].expand(3, 6),
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
        "overlapping": base.as_strided((3, 4), (1, 1)),
        "conjugated": imaginary.conj(),
        "negated": imaginary.conj().imag,
        # One element is always contiguous: only its flag tells that the sign is still to come.
        "negated scalar": imaginary[0, 0].conj().imag,
        "misaligned": base.reshape(-1)[MISALIGNED],
    }


@pytest.mark.parametrize("view", strided_views())
def test_views_are_copied_and_right(view: str) -> None:
    tensor = strided_views()[view]
    array = t2j(tensor)
    assert_equal(array, tensor.resolve_conj().resolve_neg().numpy())
    assert not shares(tensor, array)
    # Row-major, so that functions compiled ahead of time take it.
    compiled = jax.jit(lambda x: x + 1).lower(jnp.zeros(array.shape, array.dtype)).compile()
    assert_equal(compiled(array), np.asarray(array) + 1)


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        ("transposed", r"is not contiguous \(shape \(6, 4\), strides \(1, 6\)\)"),
        ("expanded", r"is not contiguous \(shape \(3, 6\), strides \(0, 1\)\)"),
        ("conjugated", "is lazily conjugated or negated"),
        ("negated scalar", "is lazily conjugated or negated"),
        ("misaligned", "address is not a multiple of 64 bytes"),
    ],
)
def test_t2j_copy_false_says_why_a_copy_is_needed(view: str, reason: str) -> None:
    with pytest.raises(TransferError, match=rf"copy=False, but .*{reason}; pass copy=None"):
        t2j(strided_views()[view], copy=False)


def test_t2j_copy_false_refuses_to_narrow() -> None:
    with (
        jax.enable_x64(False),
        pytest.raises(TransferError, match=r"JAX holds torch\.int64 as torch\.int32 while"),
    ):
        t2j(torch.arange(3), copy=False)


def test_t2j_copy_false_shares() -> None:
    tensor = torch.ones(3)
    assert shares(tensor, t2j(tensor, copy=False))


def test_aligned_view_is_shared_and_only_its_part() -> None:
    base = torch.arange(64.0)
    array = t2j(base[16:20], copy=False)
    assert array.tolist() == [16, 17, 18, 19]
    base[17] = -1
    assert array.tolist() == [16, -1, 18, 19]


def test_odd_strides_of_axes_of_size_one_are_shared() -> None:
    tensor = torch.arange(4.0).as_strided((1, 4), (77, 1))
    assert shares(tensor, t2j(tensor, copy=False))


def test_writes_show_through_shared_memory_only() -> None:
    tensor = torch.zeros(3)
    shared, own = t2j(tensor), t2j(tensor, copy=True)
    tensor.add_(1)
    assert shared.tolist() == [1, 1, 1]
    assert own.tolist() == [0, 0, 0]


def test_grad_is_left_behind() -> None:
    tensor = torch.ones(3, requires_grad=True)
    assert shares(tensor, t2j(tensor))
    assert t2j(tensor * 2).tolist() == [2, 2, 2]
    assert tensor.requires_grad


def test_parameters_subclasses_and_inference_tensors() -> None:
    class Tagged(torch.Tensor):
        pass

    with torch.inference_mode():
        inference = torch.ones(3)
    for tensor in (torch.nn.Parameter(torch.ones(3)), torch.ones(3).as_subclass(Tagged), inference):
        assert shares(tensor, t2j(tensor))
        assert t2j(tensor, copy=True).tolist() == [1, 1, 1]


def test_t2j_inside_jit_gives_a_constant() -> None:
    tensor = torch.arange(3)
    with jax.enable_x64(False):
        assert jax.jit(lambda x: x + t2j(tensor))(1).tolist() == [1, 2, 3]


def test_default_device_of_torch_does_not_matter() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).t()
    with torch.device("meta"):
        assert t2j(tensor).tolist() == tensor.tolist()
        assert j2t(jnp.ones(2), copy=True).tolist() == [1, 1]
        assert j2t(np.ones(2)).tolist() == [1, 1]


def test_donating_a_shared_array_leaves_the_tensor_alone_on_cpu() -> None:
    tensor = torch.ones(1024)
    result = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(t2j(tensor, copy=False))
    assert result[0] == -1
    assert tensor.eq(1).all()


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def freed() -> torch.Tensor:
    # The offset makes the address of the view non-null although its memory is gone.
    tensor = torch.ones(32)[4:8]
    tensor.untyped_storage().resize_(0)
    return tensor


def fake() -> torch.Tensor:
    fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
    with fake_tensor.FakeTensorMode():
        return torch.ones(2)


@pytest.mark.filterwarnings("ignore")  # torch warns about making some of these at all
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.eye(2).to_sparse(), r"layout torch\.sparse_coo; call `\.to_dense\(\)`"),
        (lambda: torch.eye(2).to_sparse_csr(), r"layout torch\.sparse_csr; call `\.to_dense"),
        (quantised, r"quantised tensor; call `\.dequantize\(\)`"),
        (lambda: torch.ones(2, device="meta"), "meta tensor, which has no data; pass a real one"),
        (fake, "FakeTensor, which only stands for other tensors; pass a real one"),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
            r"NestedTensor, which only stands .* `\.to_padded_tensor",
        ),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.strided),
            r"a nested tensor; call `\.to_padded_tensor",
        ),
        (freed, "memory is gone"),
        (lambda: [1.0], r"expected a torch\.Tensor; got builtins\.list"),
        (lambda: np.ones(2), r"expected a torch\.Tensor; got numpy\.ndarray"),
        (lambda: jnp.ones(2), r"expected a torch\.Tensor; got jax"),
    ],
)
@pytest.mark.parametrize("copy", [None, True])
def test_t2j_refuses(make: Callable[[], Any], message: str, copy: bool | None) -> None:
    with pytest.raises(TransferError, match=message):
        t2j(make(), copy=copy)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_t2j_names_the_dtype_without_partner() -> None:
    with pytest.raises(DtypeError, match=r"torch\.complex32 cannot go to JAX: .* use complex64"):
        t2j(torch.zeros(2, dtype=torch.complex32))


@pytest.mark.parametrize("transform", ["vmap", "grad", "functionalize"])
def test_t2j_refuses_tensors_that_torch_is_transforming(transform: str) -> None:
    def inner(x: torch.Tensor) -> torch.Tensor:
        with pytest.raises(TransferError, match=r"memory is gone|call t2j outside of them"):
            t2j(x)
        return x.sum()

    getattr(torch.func, transform)(inner)(torch.ones(3))


def test_t2j_wraps_what_jax_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such backend")

    monkeypatch.setattr(jax.dlpack, "from_dlpack", refuse)
    with pytest.raises(TransferError, match=r"tensor on cpu: no such backend; .* `\.cpu\(\)`"):
        t2j(torch.ones(2))


# --- JAX to torch


@both_x64
@every_shape
@every_dtype
def test_j2t_gives_the_same_bits_on_the_same_memory(
    name: str, shape: tuple[int, ...], x64: bool
) -> None:
    with jax.enable_x64(True):
        array = make_array(name, shape)
    # 64-bit arrays made elsewhere stay what they are.
    with jax.enable_x64(x64):
        tensor = j2t(array, copy=False)
    assert (tuple(tensor.shape), tensor.dtype) == (shape, getattr(torch, name))
    assert bits(tensor) == bits(array)
    assert not tensor.numel() or shares(tensor, array)


@every_shape
@every_dtype
def test_j2t_copy_true_has_memory_of_its_own(name: str, shape: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        array = make_array(name, shape)
    tensor = j2t(array, copy=True)
    assert bits(tensor) == bits(array)
    assert not tensor.numel() or not shares(tensor, array)


@every_dtype
def test_there_and_back_is_the_same_memory(name: str) -> None:
    tensor = make_tensor(name, (2, 3))
    with jax.enable_x64(True):
        back = j2t(t2j(tensor))
    assert back.data_ptr() == tensor.data_ptr()
    assert back.dtype == tensor.dtype


def test_writes_of_torch_show_in_shared_arrays_only() -> None:
    array = jnp.arange(3.0) + 0
    own = j2t(array, copy=True)
    own.add_(10)
    assert array.tolist() == [0, 1, 2]
    j2t(array).add_(10)
    assert array.tolist() == [10, 11, 12]


def test_array_still_being_computed_is_waited_for() -> None:
    @jax.jit
    def slow(x: jax.Array) -> jax.Array:
        return jnp.asarray(jax.lax.fori_loop(0, 30, lambda _, y: y @ x, x) + 1)

    x = jnp.eye(500)
    slow(x).block_until_ready()
    assert_equal(j2t(slow(x)).numpy(), np.eye(500) + 1)


def test_donating_the_source_leaves_the_tensor_alone() -> None:
    array = jnp.ones(1024) + 0
    tensor = j2t(array)
    jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(array).block_until_ready()
    assert tensor.eq(1).all()


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_tracers_are_refused(transform: Callable[..., Any]) -> None:
    message = r"got a tracer \(.*float32\[\].*\)\. .* wrap the torch function in jax_callable"
    values = jnp.ones(3 if transform is jax.vmap else (), jnp.float32)
    with pytest.raises(TransferError, match=message):
        transform(j2t)(values)


def deleted() -> jax.Array:
    array = jnp.ones(3) + 0
    array.delete()
    return array


def donated() -> jax.Array:
    array = jnp.ones(3) + 0
    jax.jit(lambda x: x + 1, donate_argnums=0)(array)
    return array


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (deleted, "is deleted or was donated"),
        (donated, "is deleted or was donated"),
        (lambda: jax.random.key(0), r"PRNG keys \(key<fry>\) .* jax\.random\.key_data"),
        (lambda: np.zeros(3, jax.dtypes.float0), r"float0 is the empty tangent .* jax\.numpy\.z"),
        (lambda: np.ma.array([1.0], mask=[True]), r"mask; call `\.filled\(\)`"),
        (lambda: 1.0, r"expected a jax\.Array or numpy\.ndarray; got builtins\.float"),
        (lambda: torch.ones(2), r"expected a jax\.Array or numpy\.ndarray; got torch\.Tensor"),
        (lambda: jax.new_ref(jnp.ones(3)), r"expected a jax\.Array or numpy\.ndarray; got jax"),
    ],
)
@pytest.mark.parametrize("copy", [None, True])
def test_j2t_refuses(make: Callable[[], Any], message: str, copy: bool | None) -> None:
    with pytest.raises(TransferError, match=message):
        j2t(make(), copy=copy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jnp.zeros(3, "int4"), "dtype int4 cannot go to torch: torch has no 4-bit"),
        (lambda: np.zeros(3, "O"), "dtype object cannot go to torch"),
        (lambda: np.zeros(3, "M8[s]"), r"dtype datetime64\[s\] cannot go to torch"),
        (lambda: np.zeros(3, "U2"), "dtype str64 cannot go to torch"),
    ],
)
def test_j2t_names_the_dtype_without_partner(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DtypeError, match=message):
        j2t(make())


def test_j2t_wraps_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no CUDA here")

    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", refuse)
    with pytest.raises(TransferError, match=r"no CUDA here; .*jax\.device_put\(x, jax\.devices"):
        j2t(jnp.ones(2))


def test_arrays_over_several_devices() -> None:
    script = """
        import jax, numpy as np, pytest
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from jaxtorch_bridge.errors import TransferError
        from jaxtorch_bridge.transfer import j2t
        assert jax.device_count() == 2
        mesh = Mesh(np.array(jax.devices()), ("x",))
        for word, spec in (("sharded", P("x")), ("replicated", P())):
            x = jax.device_put(np.arange(4.0, dtype="f4"), NamedSharding(mesh, spec))
            message = f"one {word} over 2 devices. Use jax.device_put(x, jax.devices()[0])"
            with pytest.raises(TransferError) as caught:
                j2t(x, copy=True)
            assert message in str(caught.value)
            assert "x.addressable_shards" in str(caught.value)
            whole = j2t(jax.device_put(x, jax.devices()[0]))
            assert whole.tolist() == [0, 1, 2, 3]
            parts = [j2t(shard.data).tolist() for shard in x.addressable_shards]
            assert parts == ([[0, 1], [2, 3]] if word == "sharded" else [[0, 1, 2, 3]] * 2)
        second = jax.device_put(np.arange(3), jax.devices()[1])
        assert j2t(second).tolist() == [0, 1, 2]
    """
    # JAX reads the number of devices once, so another process has to have two.
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr


# --- numpy to torch


@every_shape
@every_dtype
def test_numpy_arrays_are_shared(name: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype_of(name))
    tensor = j2t(array, copy=False)
    assert (tuple(tensor.shape), tensor.dtype) == (shape, getattr(torch, name))
    assert bits(tensor) == bits(array)
    assert not tensor.numel() or tensor.data_ptr() == array.ctypes.data


def numpy_views(name: str) -> dict[str, np.ndarray[Any, Any]]:
    base = np.arange(1, 25).astype(dtype_of(name)).reshape(4, 6)
    read_only = base.copy()
    read_only.flags.writeable = False
    record = np.zeros(3, [("first", "i1"), ("second", base.dtype)])
    record["second"] = base[0, :3]
    raw = np.zeros(base.nbytes + 1, np.uint8)[1:].view(base.dtype)
    raw[:] = base.reshape(-1)
    return {
        "read-only": read_only,
        "broadcast": np.broadcast_to(base[0], (2, 6)),
        "reversed": base[::-1, ::-1],
        "field": record["second"],
        "misaligned": raw,
    }


@pytest.mark.parametrize("name", ["int64", "float32", "complex128", "bfloat16", "float16"])
@pytest.mark.parametrize("view", numpy_views("float32"))
def test_awkward_numpy_arrays_are_copied_and_right(view: str, name: str) -> None:
    array = numpy_views(name)[view]
    tensor = j2t(array)
    assert bits(tensor) == bits(array)
    tensor.zero_()
    assert array.astype(np.complex128).all()
    with pytest.raises(TransferError, match=r"copy=False, but the numpy array .*; pass copy=None"):
        j2t(array, copy=False)


@pytest.mark.parametrize("code", ["i2", "u8", "f4", "c16"])
def test_byte_swapped_numpy_arrays_are_copied_and_right(code: str) -> None:
    array = np.arange(6).astype(np.dtype(code).newbyteorder()).reshape(2, 3)
    for view in (array, array[::-1], array[0, 1]):
        view = np.asarray(view)
        assert_equal(j2t(view).numpy(), view)
        assert j2t(view).dtype is dtype_j2t(code)
    with pytest.raises(TransferError, match="copy=False, but the numpy array is byte-swapped"):
        j2t(array, copy=False)


def test_numpy_views_with_forward_strides_are_shared() -> None:
    base = np.arange(12.0).reshape(3, 4)
    for view in (base.T, base[:, ::2], base[1:, 1]):
        tensor = j2t(view, copy=False)
        assert tensor.data_ptr() == view.ctypes.data
        assert_equal(tensor.numpy(), view)


def test_numpy_copy_true_has_memory_of_its_own() -> None:
    array = np.ones(3, dtype_of("bfloat16"))
    j2t(array, copy=True).zero_()
    assert array.tolist() == [1, 1, 1]


# --- trees


def test_trees_keep_their_structure_and_other_leaves() -> None:
    tensor = torch.ones(2)
    tree = {"a": (tensor, 3, None), "b": ["text", torch.nn.Parameter(torch.zeros(()))]}
    there = tree_t2j(tree)
    assert isinstance(there["a"][0], jax.Array)
    assert (there["a"][1:], there["b"][0]) == ((3, None), "text")
    assert there["b"][1].tolist() == 0
    back = tree_j2t({**there, "c": np.ones(2), "d": np.float32(1)})
    assert back["a"][0].data_ptr() == tensor.data_ptr()
    assert isinstance(back["c"], torch.Tensor)
    assert isinstance(back["d"], np.float32)


def test_trees_pass_copy_on() -> None:
    tensor, array = torch.ones(2), jnp.ones(2)
    assert not shares(tensor, tree_t2j([tensor], copy=True)[0])
    assert not shares(tree_j2t([array], copy=True)[0], array)
    with pytest.raises(TransferError, match=r"leaf `\[0\]`: t2j: copy=False, but"):
        tree_t2j([torch.ones(3)[MISALIGNED]], copy=False)


def test_errors_in_trees_name_the_leaf() -> None:
    with pytest.raises(TransferError, match=r"leaf `\['w'\]\[1\]`: .* got a meta tensor") as caught:
        tree_t2j({"w": [torch.ones(2), torch.ones(2, device="meta")]})
    assert isinstance(caught.value.__cause__, TransferError)
    with pytest.raises(TransferError, match=r"leaf `\['k'\]`: j2t: typed PRNG keys"):
        tree_j2t({"k": jax.random.key(0)})
    with pytest.raises(DtypeError, match=r"leaf `\[0\]`: dtype int4 cannot go to torch"):
        tree_j2t((jnp.zeros(2, "int4"),))
    with pytest.raises(DtypeError, match=r"^dtype int4 cannot go to torch"):
        tree_j2t(jnp.zeros(2, "int4"))


# --- lifetimes


def overwrite_freed_memory() -> None:
    """Collect, then take and fill blocks of the sizes in use here."""
    gc.collect()
    for _ in range(8):
        torch.full((4096,), -7.0)
        (jnp.zeros(4096) - 7).block_until_ready()
        np.full(4096, -7.0, np.float32)


def test_array_outlives_its_tensor() -> None:
    tensor = torch.arange(4096.0)
    array = t2j(tensor, copy=False)
    del tensor
    overwrite_freed_memory()
    assert_equal(array, np.arange(4096))


def test_tensor_outlives_its_array() -> None:
    for delete in (False, True):
        array = jnp.arange(4096.0) + 0
        tensor = j2t(array, copy=False)
        if delete:
            array.delete()
        del array
        overwrite_freed_memory()
        assert_equal(tensor.numpy(), np.arange(4096))


def test_tensor_outlives_its_numpy_array() -> None:
    array = np.arange(4096, dtype=np.float32)
    tensor = j2t(array, copy=False)
    del array
    overwrite_freed_memory()
    assert_equal(tensor.numpy(), np.arange(4096))


def test_numpy_memory_is_let_go_with_the_tensor() -> None:
    owner = np.ones(4096, np.float32)
    released = weakref.ref(owner)
    tensor = j2t(owner, copy=False)
    own = j2t(owner, copy=True)
    del owner
    gc.collect()
    assert released() is not None
    del tensor
    gc.collect()
    assert released() is None
    assert own.eq(1).all()


def test_torch_memory_is_let_go_with_the_array() -> None:
    owner = np.ones(4096, np.float32)
    released = weakref.ref(owner)
    tensor = torch.from_numpy(owner)
    # numpy aligns to 16 bytes only; XLA wants 64.
    tensor = tensor[-tensor.data_ptr() % 64 // 4 :]
    array = t2j(tensor, copy=False)
    del owner, tensor
    gc.collect()
    assert released() is not None
    assert array[0] == 1
    del array
    gc.collect()
    assert released() is None
