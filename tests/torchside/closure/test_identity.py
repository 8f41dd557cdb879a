"""Digests of functions: the same for the same source and constants, another one otherwise."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import types

import pytest
import torch

from jaxtorch_bridge.torchside.closure import function_identity as identity
from jaxtorch_bridge.torchside.inspection import defining_package as packages

SOURCE = """
import collections, dataclasses, enum, functools, math, types
import numpy as np
import torch
from torch import nn

SCALE = 2.0
TABLE = {"a": 1, "b": [2, 3]}
NAMES = {"x", "y", "z"}
MEAN = torch.tensor([0.5, 0.25])
GRID = np.arange(3.0)


class Mode(enum.Enum):
    FAST = 1


def deep(x):
    return x + 1


def helper(x, bias=3):
    return deep(x) * bias


@functools.lru_cache
def cached(n):
    return n + 10


class Base:
    factor = 4

    def shift(self, x):
        return x - 5


@dataclasses.dataclass
class Settings:
    gain: float = 6.0


class Scaler(Base):
    __slots__ = ("size", "settings")

    def __init__(self):
        self.size = 7
        self.settings = Settings()

    def __call__(self, x):
        return self.shift(x) * self.size * self.settings.gain

    @property
    def twice(self):
        return 8

    @staticmethod
    def fixed(x):
        return x * 9


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2, eps=1e-3)
        self.drop = nn.Dropout(0.5)
        self.act = torch.relu
        self.sizes = [1, 2]
        self.gain = 11.0
        self.constant = torch.tensor([12.0])
        self.register_buffer("table", torch.zeros(3))

    def extra(self, x):
        return x * 13

    def forward(self, x):
        return self.act(self.extra(self.linear(x))) * self.gain


scaler = Scaler()
block = Block()
namespace = types.SimpleNamespace(alpha=14)
lookup = {"f": lambda x: x * 15}


def make(power, weight):
    def f(x, *, mode="none", order=(16, 17)):
        def inner(y):
            return y ** power + helper(y)
        if mode == "scaler":
            return scaler(x) + Scaler.fixed(x) + Mode.FAST.value
        if mode in {"p", "q", "r"}:
            return block(x) + cached(3)
        return inner(x) * SCALE + TABLE["a"] + MEAN + weight + namespace.alpha + lookup["f"](x) \\
            + len(NAMES) + torch.from_numpy(GRID)[0] + math.pi * 18
    return f


f = make(19, torch.tensor([20.0]))
bound = scaler.shift
call = scaler
partial = functools.partial(f, mode="scaler")
"""


def code_digest(function):
    return identity.code_digest(function)[0]


def load(source=SOURCE, name="identity_sample"):
    module = types.ModuleType(name)
    sys.modules[name] = module  # where dataclasses look names up
    try:
        exec(compile(source, "sample.py", "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


@pytest.mark.parametrize("name", ["f", "bound", "call", "partial", "block"])
def test_the_same_source_has_the_same_digest(name):
    first, second = load(), load("# moved down by a line\n" + SOURCE)
    assert code_digest(getattr(first, name)) == code_digest(getattr(second, name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y ** power", "y * power"),
        ("math.pi * 18", "math.pi * 18.5"),
        ("math.pi", "math.e"),
        ("order=(16, 17)", "order=(16, 18)"),
        ('mode="none"', 'mode="any"'),
        ("make(19,", "make(19.0,"),
        ("tensor([20.0])", "tensor([20.5])"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ('"a": 1', '"a": True'),
        ("[2, 3]", "[3, 2]"),
        ('"y", "z"}', '"y", "w"}'),
        ("0.5, 0.25", "0.5, 0.5"),
        ("np.arange(3.0)", "np.arange(4.0)"),
        ("np.arange(3.0)", "np.arange(3)"),
        ("FAST = 1", "FAST = 2"),
        ("return x + 1\n", "return x - 1\n"),
        ("bias=3", "bias=4"),
        ("n + 10", "n + 11"),
        ("return x - 5", "return x - 6"),
        ("factor = 4", "factor = 5"),
        ("gain: float = 6.0", "gain: float = 6.5"),
        ("self.size = 7", "self.size = 8"),
        ("self.shift(x) *", "self.shift(x) +"),
        ("return 8", "return 9"),
        ("x * 9", "x * 10"),
        ("eps=1e-3", "eps=1e-4"),
        ("Dropout(0.5)", "Dropout(0.25)"),
        ("self.act = torch.relu", "self.act = torch.tanh"),
        ("self.sizes = [1, 2]", "self.sizes = [1, 3]"),
        ("self.gain = 11.0", "self.gain = 11.5"),
        ("tensor([12.0])", "tensor([12.5])"),
        ("x * 13", "x * 14"),
        ("nn.Linear(2, 2)", "nn.Linear(2, 2, bias=False)"),
        ("zeros(3)", "zeros(4)"),
        ("alpha=14", "alpha=15"),
        ("x * 15", "x * 16"),
        ("class Scaler(Base)", "class Scaler(Mode if False else Base)"),
    ],
)
def test_a_change_anywhere_is_another_digest(old, new):
    assert SOURCE.count(old) == 1
    changed = load(SOURCE.replace(old, new))
    if old == "class Scaler(Base)":  # the same class, written otherwise
        assert code_digest(changed.f) == code_digest(load().f)
    else:
        assert code_digest(changed.f) != code_digest(load().f)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("bound", "return x - 5", "return x - 6"),
        ("bound", "self.size = 7", "self.size = 8"),
        ("bound", "factor = 4", "factor = 5"),
        ("call", "self.shift(x) *", "self.shift(x) +"),
        ("partial", 'mode="scaler")', 'mode="other")'),
        ("partial", "y ** power", "y * power"),
        ("block", "self.gain = 11.0", "self.gain = 11.5"),
        ("block", "x * 13", "x * 14"),
        ("block", "* self.gain", "+ self.gain"),
    ],
)
def test_methods_objects_partials_and_modules(name, old, new):
    assert SOURCE.count(old) == 1
    changed = load(SOURCE.replace(old, new))
    assert code_digest(getattr(changed, name)) != code_digest(getattr(load(), name))


def test_weights_and_buffers_are_state_not_identity():
    module = load()
    before = code_digest(module.block)
    with torch.no_grad():
        module.block.linear.weight.add_(1)
        module.block.norm.running_mean.add_(1)
    assert code_digest(module.block) == before
    module.block.eval()
    assert code_digest(module.block) != before


def test_functions_that_may_differ_where_their_digests_do_not():
    module = load()
    assert identity.code_digest(module.block)[1]
    assert identity.code_digest(module.f)[1]  # reaches the block
    assert not identity.code_digest(module.bound)[1]
    assert not identity.code_digest(lambda x: x)[1]
    weight = torch.ones(2)
    assert not identity.code_digest(lambda x: x * weight)[1]
    weight.requires_grad_()
    assert identity.code_digest(lambda x: x * weight)[1]


def test_hooks_count_but_not_their_numbers():
    first, second = load().block, load().block
    torch.nn.Identity().register_forward_hook(lambda *_: None)  # moves torch's counter on
    handles = [one.register_forward_pre_hook(lambda module, args: None) for one in (first, second)]
    assert code_digest(first) == code_digest(second) != code_digest(load().block)
    for handle in handles:
        handle.remove()


def test_what_the_function_itself_counts_is_left_out():
    source = "calls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return x\n"
    module = load(source)
    before = code_digest(module.f)
    module.f(torch.ones(1))
    assert code_digest(module.f) == before


def test_cycles_and_helpers_that_call_each_other():
    source = """
def even(x, n):
    return x if n == 0 else odd(x, n - 1)
def odd(x, n):
    return -x if n == 0 else even(x, n - 1)
loop = [1]
loop.append(loop)
def f(x):
    return even(x, len(loop))
"""
    first, second = load(source), load(source)
    assert code_digest(first.f) == code_digest(second.f)
    assert code_digest(load(source.replace("-x if", "+x if")).f) != code_digest(first.f)


@pytest.fixture
def package():
    names = ["identity_lib", "identity_lib.ops"]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["identity_lib"].ops = sys.modules["identity_lib.ops"]
    yield sys.modules["identity_lib.ops"]
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize(
    "use",
    [
        "import identity_lib\ndef f(x):\n    return identity_lib.ops.helper(x)",
        "import identity_lib.ops as ops\ndef f(x):\n    return (lambda y: ops.helper(y))(x)",
        "def f(x):\n    from identity_lib.ops import helper\n    return helper(x)",
        "import identity_lib.ops as ops\ndef f(x):\n    return ops.NUMBER * x",
    ],
)
def test_helpers_in_other_modules(use, package):
    def digest(body, number):
        exec(f"NUMBER = {number}\ndef helper(x):\n    return x {body} * NUMBER", package.__dict__)
        return code_digest(load(use).f)

    first = digest("+ 1", 1)
    assert digest("+ 1", 1) == first
    assert digest("+ 1", 2) != first
    if "helper" in use:
        assert digest("+ 2", 1) != first


def test_wrapped_functions_are_followed():
    def wrapped(body):
        source = f"import torch\n@torch.no_grad()\ndef f(x):\n    return x {body}\n"
        return code_digest(load(source).f)

    assert wrapped("+ 1") == wrapped("+ 1") != wrapped("+ 2")


def test_a_torch_function_and_lambdas():
    assert code_digest(torch.sin) == code_digest(torch.sin) != code_digest(torch.cos)
    assert code_digest(functools.partial(torch.sum, dim=0)) != code_digest(
        functools.partial(torch.sum, dim=1)
    )


def test_objects_of_other_libraries_do_not_lead_far():
    source = "import logging\nlogger = logging.getLogger('a')\ndef f(x):\n    logger.debug(x)\n"
    before = code_digest(load(source).f)
    import logging

    logging.getLogger("b").addHandler(logging.NullHandler())
    assert code_digest(load(source).f) == before


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes modules of installed packages; nothing else counts as installed."""
    monkeypatch.setattr(packages, "_library_folders", lambda: (str(tmp_path),))

    def install(name, source, version):
        packages._version.cache_clear()
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / "it.py")
        module.__version__ = version
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, module.__file__, "exec"), module.__dict__)
        return module

    yield install
    packages._version.cache_clear()


def test_of_other_packages_the_version_counts(install):
    def digest(number, version):
        source = f"N = {number}\ndef helper(x):\n    return x * N\n"
        install("identity_other", source, version)
        use = "from identity_other import helper\ndef f(x):\n    return helper(x)\n"
        return code_digest(load(use).f)

    assert digest(1, "1.0") == digest(1, "1.0") != digest(1, "1.1")
    assert digest(1, "1.0") == digest(2, "1.0")  # a release that is not what it says


def test_the_functions_own_package_is_followed_also_where_it_is_installed(install):
    def digest(number):
        source = f"N = {number}\ndef helper(x):\n    return x * N\n"
        source += "def f(x):\n    return helper(x)\n"
        return code_digest(install("identity_own", source, "1.0").f)

    assert digest(1) == digest(1) != digest(2)


def test_packages_are_found_by_the_name_they_were_published_under(monkeypatch):
    packages._distribution.cache_clear()
    found = packages._distribution("yaml")
    assert found is not None
    assert found.metadata["Name"] == "PyYAML"
    own = types.ModuleType("of_nobody")
    own.__file__ = "/somewhere/of_nobody.py"
    monkeypatch.setitem(sys.modules, "of_nobody", own)
    # All that is installed is not looked at for what stands elsewhere: that takes long.
    monkeypatch.setattr(importlib.metadata, "distributions", None)
    assert packages._distribution("of_nobody") is None


def test_of_the_functions_own_package_its_recorded_files_count(tmp_path, monkeypatch):
    def digest(code, name="identity_recorded"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,sha256={code},9\n{info.name}/RECORD,,\n")
        for cached in (packages._distribution, packages._version, packages._recorded_code):
            cached.cache_clear()
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / name / "__init__.py")
        monkeypatch.setitem(sys.modules, name, module)
        source = "def helper(x):\n    return x\ndef f(x):\n    return helper(x)\n"
        exec(compile(source, module.__file__, "exec"), module.__dict__)
        return code_digest(module.f)

    monkeypatch.setattr(packages, "_library_folders", lambda: (str(tmp_path),))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert digest("aaa") == digest("aaa") != digest("bbb")
