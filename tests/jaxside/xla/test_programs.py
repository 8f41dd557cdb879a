"""Exported programs of ``backend="xla"``: for TPUs, and run where there is no torch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export
from torch.nn import functional as F

from comparing import assert_close
from jaxtorch_bridge import from_module


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Block(torch.nn.Module):
    """A residual block, with batch norm by its own statistics."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.skip = torch.nn.Conv2d(3, 8, 1)
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(8) for _ in range(2))
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x):
        y = F.relu(self.norms[0](self.first(x)))
        y = F.relu(self.norms[1](self.second(y)) + self.skip(x))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Lstm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.LSTM(4, 6, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.layer(x)[0]


def mlp():
    parts = [
        torch.nn.Linear(6, 16),
        torch.nn.GELU(),
        torch.nn.LayerNorm(16),
        torch.nn.Linear(16, 3),
    ]
    return torch.nn.Sequential(*parts)


def transformer():
    return torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)


def bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertModel(config)


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return transformers.GPT2LMHeadModel(config)


def tokens():
    return jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 9)), jnp.int32)


# The module, what it takes, and what of its result is trained.
MODELS = {
    "mlp": (mlp, lambda: normal(5, 6), lambda out: out),
    "block": (Block, lambda: normal(2, 3, 8, 8), lambda out: out),
    "transformer": (transformer, lambda: normal(2, 5, 16), lambda out: out),
    "lstm": (Lstm, lambda: normal(2, 7, 4), lambda out: out),
    "bert": (bert, tokens, lambda out: out.last_hidden_state),
    "gpt2": (gpt2, tokens, lambda out: out.logits),
}


@functools.cache
def programs(name):
    """Forward and training step as functions of parameters, buffers and input, with arguments."""
    make, inputs, part = MODELS[name]
    torch.manual_seed(0)
    module = make().train()
    method = lambda module, *args: part(module(*args))  # noqa: E731
    # Copies, as the module is run by torch while a program may still be reading its buffers.
    taken = from_module(module, names="flat", method=method, backend="xla", copy=True)
    x = inputs()
    weights = None

    def forward(params, buffers, x):
        return taken(params, x, buffers=buffers)

    shape = jax.eval_shape(forward, taken.params, taken.buffers, x)[0].shape
    weights = normal(*shape, seed=1)

    def step(params, buffers, x):
        def loss(params):
            result, changed = forward(params, buffers, x)
            return (result * weights).mean(), changed

        (value, changed), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        return value, changed, jax.tree.map(lambda p, g: p - 0.1 * g, params, slopes)

    return module, part, weights, forward, step, (taken.params, taken.buffers, x)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", MODELS)
def test_for_other_platforms(name, platform):
    *_, forward, step, arguments = programs(name)
    for function in (forward, step):
        program = export.export(jax.jit(function), platforms=[platform])(*arguments)
        assert "stablehlo.custom_call" not in program.mlir_module()


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_torchs(name):
    module, part, weights, _, step, arguments = programs(name)
    value, buffers, params = jax.jit(step)(*arguments)
    x = torch.from_numpy(np.array(arguments[2]))
    x = x if x.is_floating_point() else x.long()
    # Batch norm counts in it: as it was before.
    state = {key: one.clone() for key, one in module.state_dict().items()}
    module.zero_grad()
    loss = (part(module(x)) * torch.from_numpy(np.array(weights))).mean()
    loss.backward()
    assert_close(value, jnp.asarray(loss.item(), jnp.float32), factor=10)
    slopes = {key: one.grad for key, one in module.named_parameters() if one.grad is not None}
    # What is left of gradients that cancel, as that of a key's bias, is rounding of others.
    scale = 0.1 * max(float(one.abs().max()) for one in slopes.values())
    for key, parameter in module.named_parameters():
        want = parameter.detach() - 0.1 * slopes.get(key, torch.zeros(()))
        assert_close(params[key], jnp.asarray(want.numpy()), label=key, scale=scale)
    for key, buffer in module.named_buffers():
        if key in buffers and buffer.is_floating_point():
            assert_close(buffers[key], jnp.asarray(buffer.numpy()), label=key)
    module.load_state_dict(state)


def test_where_there_is_no_torch(tmp_path, run_python):
    """All programs in one process, which could not import torch."""
    wanted = {}
    for name in MODELS:
        *_, forward, step, arguments = programs(name)
        for word, function in (("forward", forward), ("step", step)):
            program = export.export(jax.jit(function))(*arguments)
            (tmp_path / f"{name}-{word}").write_bytes(program.serialize())
            wanted[f"{name}-{word}"] = jax.tree.leaves(jax.jit(function)(*arguments))
        leaves = {str(i): np.asarray(one) for i, one in enumerate(jax.tree.leaves(arguments))}
        np.savez(tmp_path / f"{name}-arguments.npz", **leaves)
    out = run_python(
        "import sys\n"
        "sys.modules['torch'] = sys.modules['jaxtorch_bridge'] = None\n"
        "import jax, numpy as np, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "for path in sorted(folder.glob('*-arguments.npz')):\n"
        "    given = np.load(path)\n"
        "    leaves = [given[str(i)] for i in range(len(given.files))]\n"
        "    name = path.name.removesuffix('-arguments.npz')\n"
        "    for word in ('forward', 'step'):\n"
        "        program = jax.export.deserialize((folder / f'{name}-{word}').read_bytes())\n"
        "        args, kwargs = jax.tree.unflatten(program.in_tree, leaves)\n"
        "        results = jax.tree.leaves(program.call(*args, **kwargs))\n"
        "        found = {str(i): np.asarray(one) for i, one in enumerate(results)}\n"
        "        np.savez(folder / f'{name}-{word}.npz', **found)\n"
        "print('torch' in sys.modules and sys.modules['torch'] is not None)\n"
    )
    assert out.strip() == "False"
    for name, leaves in wanted.items():
        found = np.load(tmp_path / f"{name}.npz")
        for number, one in enumerate(leaves):
            assert_close(jnp.asarray(found[str(number)]), one, label=f"{name} {number}")
