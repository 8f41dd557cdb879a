"""Models as people have them, built from configurations, small enough for two cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Loss = Callable[..., torch.Tensor]


@dataclass
class Case:
    """A loss of torch's, and what to differentiate it by.

    Attributes:
        loss: ``(*inputs)`` to a scalar. Of a module: it calls it.
        inputs: What it takes.
        module: Differentiate by its parameters; None: by the inputs that are floats.
        loss_of: Of a module: ``(output, *inputs)`` to the scalar.
    """

    inputs: Sequence[torch.Tensor]
    loss: Loss | None = None
    module: nn.Module | None = None
    loss_of: Callable[..., torch.Tensor] = field(default=lambda output, *_: output.square().mean())

    def plain(self) -> torch.Tensor:
        """As torch's users call it."""
        if self.module is None:
            assert self.loss is not None
            return self.loss(*self.inputs)
        return self.loss_of(self.module(*self.inputs), *self.inputs)

    def with_parameters(self, parameters: dict[str, torch.Tensor], *inputs: Any) -> torch.Tensor:
        """The same with parameters that are passed in."""
        if self.module is None:
            assert self.loss is not None
            return self.loss(*inputs)
        output = torch.func.functional_call(self.module, parameters, inputs)
        return self.loss_of(output, *inputs)

    @property
    def moving(self) -> tuple[int, ...]:
        """Inputs to differentiate by, where there are no parameters."""
        if self.module is not None:
            return ()
        return tuple(i for i, x in enumerate(self.inputs) if x.is_floating_point())


def _tokens(batch: int, length: int, most: int = 1000) -> torch.Tensor:
    return torch.randint(5, most, (batch, length), dtype=torch.int32)


def _next_token(output: Any, ids: torch.Tensor) -> torch.Tensor:
    logits = output.logits[:, :-1].float()
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].long().flatten())


def minilm() -> Case:
    """all-MiniLM-L6's shape: six layers, width 384."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        vocab_size=2000,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    module = BertModel(config, add_pooling_layer=False)
    return Case(
        (_tokens(4, 128),),
        module=module,
        loss_of=lambda out, *_: out.last_hidden_state.square().mean(),
    )


def gpt2() -> Case:
    """GPT-2, four layers of width 256, with its language-model loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=4,
        n_embd=256,
        n_head=8,
        vocab_size=2000,
        n_positions=128,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    return Case((_tokens(2, 96),), module=GPT2LMHeadModel(config), loss_of=_next_token)


def llama() -> Case:
    """Llama in bfloat16, two layers of width 256."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=2000,
        use_cache=False,
    )
    module = LlamaForCausalLM(config).to(torch.bfloat16)
    return Case((_tokens(2, 64),), module=module, loss_of=_next_token)


def mixtral_experts() -> Case:
    """Mixtral's block of experts, which sends each token where its router says."""
    from transformers.models.mixtral import modeling_mixtral
    from transformers.models.mixtral.configuration_mixtral import MixtralConfig

    config = MixtralConfig(
        hidden_size=128,
        intermediate_size=256,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    config._experts_implementation = "eager"
    module = modeling_mixtral.MixtralSparseMoeBlock(config)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)

    def loss_of(output: Any, *_: Any) -> torch.Tensor:
        return (output[0] if isinstance(output, tuple) else output).square().mean()

    return Case((torch.randn(2, 64, 128),), module=module, loss_of=loss_of)


def vit() -> Case:
    """A vision transformer, four layers of width 192 on 64 x 64 pixels."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=64,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return Case(
        (torch.randn(4, 3, 64, 64),),
        module=ViTModel(config, add_pooling_layer=False),
        loss_of=lambda out, *_: out.last_hidden_state.square().mean(),
    )


def resnet18() -> Case:
    """ResNet-18, whose batch norm is in training."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
    )
    return Case(
        (torch.randn(4, 3, 64, 64),),
        module=ResNetModel(config).train(),
        loss_of=lambda out, *_: out.pooler_output.square().mean(),
    )


def lstm() -> Case:
    """Three layers of LSTM over 64 steps, by its input."""
    module = nn.LSTM(64, 128, num_layers=3, batch_first=True)
    return Case((torch.randn(8, 64, 64),), loss=lambda x: module(x)[0].square().mean())


class MessagePassing(nn.Module):
    """Energies of atoms from messages between neighbours, as interatomic potentials have them."""

    def __init__(self, width: int = 64, steps: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.filters = nn.ModuleList(
            nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(steps)
        )
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(steps)
        )
        self.readout = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.register_buffer("centres", torch.linspace(0, 5, 16))

    def energy(self, kinds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Of the atoms within 3 of each other: how many there are depends on where they are."""
        with torch.no_grad():
            near = torch.cdist(positions, positions) < 3.0
            near.fill_diagonal_(False)
            source, target = near.nonzero(as_tuple=True)
        distance = (positions[source] - positions[target]).norm(dim=-1, keepdim=True)
        radial = torch.exp(-((distance - self.centres) ** 2))
        atoms = self.embed(kinds)
        for weigh, update in zip(self.filters, self.updates, strict=True):
            messages = atoms[source] * weigh(radial)
            atoms = atoms + update(torch.zeros_like(atoms).index_add(0, target, messages))
        return self.readout(atoms).sum()

    def forward(self, kinds: torch.Tensor, positions: torch.Tensor) -> tuple[Any, Any]:
        """Energy and forces."""
        positions = positions.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.energy(kinds, positions)
        (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
        return energy, -gradient


def potential() -> Case:
    """A message-passing potential, trained on energies and forces."""
    return Case(
        (torch.randint(0, 10, (64,), dtype=torch.int32), torch.rand(64, 3) * 6),
        module=MessagePassing(),
        loss_of=lambda out, *_: out[0] ** 2 * 1e-4 + out[1].square().mean(),
    )


_STEPS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def dormand_prince(rate: Callable[[Any], Any], y: Any, end: float, tolerance: float) -> Any:
    """Dormand and Prince's method of orders 5 and 4 (1980), with steps that adapt."""
    time, step = 0.0, 0.1
    while time < end:
        step = min(step, end - time)
        slopes = [rate(y)]
        for weights in _STEPS:
            moved = y + step * sum(w * k for w, k in zip(weights, slopes, strict=True))
            slopes.append(rate(moved))
        error = step * sum(w * k for w, k in zip(_ERROR, slopes, strict=True))
        size = float(error.detach().abs().max()) / tolerance
        if size <= 1:
            time, y = time + step, moved
        step *= min(5.0, max(0.2, 0.9 * max(size, 1e-10) ** -0.2))
    return y


def ode() -> Case:
    """A neural differential equation whose solver chooses its steps by what it finds."""
    net = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32))
    return Case(
        (torch.randn(16, 32),),
        loss=lambda y: dormand_prince(net, y, 1.0, 1e-4).square().mean(),
    )


class _Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(128, 256), nn.Linear(256, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = x + self.second(torch.sigmoid(self.first(x)) * torch.tanh(self.first(x)))
        return x


def scripted() -> Case:
    """TorchScript, which hides its operations from torch.func."""
    module = torch.jit.script(_Gate())
    return Case((torch.randn(64, 128),), loss=lambda x: module(x).square().mean())


class Swish(torch.autograd.Function):
    """A function as they were written before ``setup_context``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """x * sigmoid(x)."""
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Of memory, the input alone."""
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return gradient * gate * (1 + x * (1 - gate))


def old_function() -> Case:
    """A network with custom activations."""
    weights = [torch.randn(128, 128) / 11 for _ in range(6)]

    def loss(x: torch.Tensor) -> torch.Tensor:
        for weight in weights:
            x = Swish.apply(x @ weight)
        return x.square().mean()

    return Case((torch.randn(64, 128),), loss=loss)


CASES: dict[str, Callable[[], Case]] = {
    "MiniLM": minilm,
    "GPT-2": gpt2,
    "Llama, bfloat16": llama,
    "Mixtral's experts": mixtral_experts,
    "ViT": vit,
    "ResNet-18 in training": resnet18,
    "LSTM, three layers": lstm,
    "message-passing potential": potential,
    "adaptive ODE solver": ode,
    "TorchScript": scripted,
    "custom functions": old_function,
}


def build(name: str) -> Case:
    """The case, with the same numbers each time."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    return CASES[name]()
