"""Writes as computations of new values, compared with the writes themselves and differences."""

from __future__ import annotations

import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge.torchside.functions.functionalized_writes import functional

X = torch.linspace(0.3, 0.9, 9, dtype=torch.float64).reshape(3, 3)
Y = torch.linspace(0.2, 0.8, 9, dtype=torch.float64).flip(0).reshape(3, 3)
XS, YS = torch.stack([X, X * 0.7]), torch.stack([Y, Y + 0.1])
C = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(2, 3, 3)


def every(parts):
    for _ in parts:
        pass


VIEWS = {
    "element": lambda x, y: x[0].mul_(y[1]),
    "last": lambda x, y: x[-1].mul_(y[1]),
    "column": lambda x, y: x[:, 1].mul_(y[1]),
    "ellipsis": lambda x, y: x[..., None, 2].mul_(y[1][:, None]),
    "ends": lambda x, y: x[-2:, -1].mul_(y[0, :2]),
    "steps": lambda x, y: x[::2, 1:].mul_(y[::2, 1:]),
    "select": lambda x, y: x.select(1, 0).mul_(y[0]),
    "iteration": lambda x, y: every(a.mul_(b) for a, b in zip(x, y, strict=True)),
    "unbind": lambda x, y: every(a.mul_(b) for a, b in zip(x.unbind(1), y, strict=True)),
    "split": lambda x, y: every(a.mul_(y[:, :1]) for a in x.split([1, 2], 1)),
    "chunk": lambda x, y: x.chunk(3, 1)[1].mul_(y[:, :1]),
    "diagonal": lambda x, y: x.diagonal().mul_(y[0]),
    "narrow": lambda x, y: x.narrow(1, 1, 2).mul_(y[:, :2]),
    "transposed": lambda x, y: x.t()[1].mul_(y[0]),
    "view": lambda x, y: x.view(-1)[2:5].mul_(y[0]),
    "flattened": lambda x, y: x.flatten()[::2].mul_(y.flatten()[::2]),
    "of a view": lambda x, y: x.unsqueeze(0)[0, 1].mul_(y[1]),
    "squeezed": lambda x, y: x[0:1].squeeze(0).mul_(y[0]),
    "assigned": lambda x, y: x.__setitem__((slice(None), 0), y[0] * x[:, 1]),
    "assigned place": lambda x, y: x.__setitem__((1, 2), y[0, 0] * x[1, 1]),
    "assigned number": lambda x, y: x.__setitem__(1, 5.0),
    "assigned itself": lambda x, y: x.__setitem__(0, x[0].mul_(2)),
    "assigned places": lambda x, y: x.__setitem__(torch.tensor([0, 2]), y[:2] * x[:2]),
    "assigned row": lambda x, y: x.__setitem__(slice(None), y[:1] * x),
    "copied": lambda x, y: x.transpose(0, 1)[2].copy_(y[0] * x[0]),
    "copied rows": lambda x, y: x.copy_(y[0]).mul_(x.clone()),
    "filled": lambda x, y: x[0].fill_(3.0).mul_(y[0]),
    "triangle": lambda x, y: x.tril_().mul_(y),
    "saved": lambda x, y: x.mul_(y).add_(x.sin()).mul_(x.exp()),
    "masked": lambda x, y: x.masked_fill_(torch.eye(3).bool(), 0.0).mul_(y),
    "added up": lambda x, y: x.index_add_(0, torch.tensor([0, 0]), y[:2] * x[:2]),
    "out": lambda x, y: torch.mul(x, y, out=x),
    "imaginary": lambda x, y: x.copy_(imaginary(x, y)),
}


def imaginary(x, y):
    z = torch.complex(x, y)
    z.imag.mul_(x)
    z.real.add_(z.imag)
    return z.real * z.imag


def on_copy(write):
    def run(x, y):
        x = x.clone()
        write(x, y)
        return (x,)

    return run


def slopes(run, index):
    """Central differences of the sum of all results, weighted with C."""
    points = [XS.clone(), YS.clone()]
    found = torch.zeros(points[index].numel(), dtype=torch.float64)
    for place in range(found.numel()):
        for sign in (1, -1):
            moved = [point.clone() for point in points]
            moved[index].view(-1)[place] += sign * 1e-6
            found[place] += sign * (run(*moved) * C).sum() / 2e-6
    return found.view_as(points[index])


@pytest.mark.parametrize("name", VIEWS)
def test_writes_to_views(name):
    plain = on_copy(VIEWS[name])
    form = functional(plain)

    def one_by_one(xs, ys):
        return torch.stack([plain(x, y)[0] for x, y in zip(xs, ys, strict=True)])

    wanted = [slopes(one_by_one, index) for index in (0, 1)]
    value, pull = torch.func.vjp(torch.vmap(lambda *xs: form(*xs)[0]), XS, YS)
    assert_close(value, one_by_one(XS, YS))
    # What differences of two values can tell.
    assert_close(list(pull(C)), wanted, computed_in="float32")

    def gradients(x, y, c):
        return torch.func.vjp(lambda *xs: form(*xs)[0], x, y)[1](c)

    assert_close(list(torch.vmap(gradients)(XS, YS, C)), wanted, computed_in="float32")


@pytest.mark.parametrize("view", [lambda x: x.unfold(0, 2, 2), lambda x: x.as_strided((3,), (4,))])
def test_views_that_functionalize_gets_wrong(view):
    with pytest.raises(NotImplementedError, match="such a view"):
        functional(on_copy(lambda x, y: view(x).mul_(2)))(X, Y)


METHODS = {
    "absolute_ acos_ asin_ atan_ arccos_ arctan_ ceil_ cos_ cosh_ digamma_ erf_ erfc_ erfinv_": (),
    "exp_ exp2_ expm1_ fix_ floor_ frac_ i0_ lgamma_ log_ log10_ log1p_ log2_ logit_ neg_": (),
    "reciprocal_ relu_ round_ rsqrt_ sgn_ sigmoid_ sign_ sin_ sinc_ sinh_ sqrt_ square_ tan_": (),
    "tanh_ negative_ tril_ triu_ trunc_ zero_ nan_to_num_ t_": (),
    "add_ sub_ subtract_ mul_ multiply_ div_ divide_ true_divide_ pow_ copy_ atan2_ arctan2_": (Y,),
    "fmod_ remainder_ hypot_ xlogy_ copysign_ ldexp_ less_ greater_equal_ eq_": (Y,),
    "clip_ clamp_": (0.4, 0.6),
    "addcmul_ addcdiv_": (Y, Y),
    "lerp_": (Y, 0.3),
    "float_power_ polygamma_": (2,),
    "cumsum_ cumprod_": (0,),
    "normal_ uniform_ exponential_ log_normal_ cauchy_": (),
    "bernoulli_ fill_": (0.5,),
    "renorm_": (2, 0, 0.5),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("names", METHODS)
def test_methods(names):
    def derivative(function):
        torch.manual_seed(0)
        x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
        (new,) = function(x, y)
        found = (None, None)  # of what says no more than yes or no
        if new.requires_grad:
            found = torch.autograd.grad((new * new).sum(), (x, y), allow_unused=True)
        return new, *(torch.zeros(3, 3).double() if one is None else one for one in found)

    for name in names.split():

        def write(x, y, name=name):
            getattr(x, name)(*(y if argument is Y else argument for argument in METHODS[names]))

        plain, mine = derivative(on_copy(write)), derivative(functional(on_copy(write)))
        assert_close(mine, plain)


def test_signs_of_zero_and_infinities_are_copied():
    values = torch.tensor([-0.0, 0.0, torch.inf, -torch.inf, torch.nan, 1e-40])
    (found,) = functional(on_copy(lambda x, y: x.copy_(y)))(torch.full((6,), torch.nan), values)
    assert_equal(found.view(torch.int32), values.view(torch.int32))
