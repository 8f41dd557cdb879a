"""Samples become functions of flat tensors, and batches of samples that differ in values alone."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from comparing import assert_equal
from conformance.samples import cases


def entry_of(function, draw, in_place=None):
    """What `cases` asks of an entry; ``draw`` gives (input, args, kwargs) of each sample."""

    def sample_inputs(device, dtype, *, requires_grad, set_seed):
        for given, args, kwargs in draw(dtype, requires_grad):
            yield SimpleNamespace(
                input=given, args=args, kwargs=kwargs, output_process_fn_grad=lambda result: result
            )

    return SimpleNamespace(
        full_name=function.__name__,
        op=function,
        get_inplace=lambda: in_place,
        supports_autograd=True,
        gradcheck_wrapper=lambda op, *args, **kwargs: op(*args, **kwargs),
        sample_inputs=sample_inputs,
    )


def test_tensors_may_stand_anywhere_in_the_arguments():
    def function(tensors, index, *, weights, scale):
        return tensors[0][index[1]] * scale + weights["a"] - tensors[1]

    def draw(dtype, requires_grad):
        x = torch.randn(3, 2, dtype=dtype).requires_grad_(requires_grad)
        y = torch.randn(2, dtype=dtype)
        yield [x, y], ((None, torch.tensor([2])),), {"weights": {"a": y + 1}, "scale": 2.0}

    (case,) = cases(entry_of(function, draw), "float32", 1)
    x, y, index, weights = case.tensors
    assert index.dtype == torch.int64
    # What torch's samples mark.
    assert case.moved == (0,)
    assert not any(tensor.requires_grad for tensor in case.tensors)
    assert_equal(case.call(x, y, index, weights), x[[2]] * 2.0 + weights - y)
    assert case.in_place is None
    assert case.needs_x64


def test_elements_of_a_batch_differ_in_values_alone():
    def function(x, size):
        return x.reshape(size)

    def draw(dtype, requires_grad):
        yield torch.randn(4, dtype=dtype), ([2, 2],), {}

    (case,) = cases(entry_of(function, draw), "float32", 1)
    ((other,),) = case.batch
    assert other.shape == (4,)
    assert not torch.any(other == case.tensors[0])


def test_the_same_sample_twice_where_another_seed_gives_other_arguments():
    def function(x, power):
        return x**power

    powers = iter(range(10))

    def draw(dtype, requires_grad):
        yield torch.randn(4, dtype=dtype), (next(powers),), {}

    (case,) = cases(entry_of(function, draw), "float32", 1)
    assert_equal(case.batch[0][0], case.tensors[0])


def test_samples_with_several_values_and_many_arguments_come_first():
    def function(x, *others):
        return x

    def draw(dtype, requires_grad):
        for shape, others in [((), 0), ((0, 2), 0), ((3,), 0), ((4,), 0), ((2, 2), 3), ((5,), 0)]:
            yield torch.ones(shape, dtype=dtype), tuple(torch.ones(2) for _ in range(others)), {}

    first, second = cases(entry_of(function, draw), "float32", 2)
    assert [case.tensors[0].shape for case in (first, second)] == [(3,), (2, 2)]


def test_samples_are_the_same_in_every_run():
    def function(x):
        return x

    def draw(dtype, requires_grad):
        yield torch.randn(4, dtype=dtype), (), {}

    (one,), (other,) = (cases(entry_of(function, draw), "float32", 1) for _ in range(2))
    assert_equal(one.tensors[0], other.tensors[0])
    assert one.seed == other.seed
