"""Decode with a language model of transformers inside of `jax.lax.scan`.

The model is called as it is. It writes to its cache, which has a fixed size: calls give it a copy,
and the cache that it returns is carried on. Torch's own greedy decoding is compared.

    python examples/decoding.py --steps 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import torch
from transformers import GPT2Config, GPT2LMHeadModel, StaticCache

from jaxtorch_bridge import jax_callable, tree_t2j

PROMPTS = [[5, 17, 42], [8, 8, 3]]


def make_model():
    """A small GPT-2 with random weights, large enough that its words differ."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 128}
    # No word ends a text: both sides go all the way.
    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(**sizes, **ends, initializer_range=0.5)).eval()


def empty_cache(config, batch: int, length: int):
    """The cache as JAX has it, already with all of its arrays: `scan` carries one structure."""
    cache = StaticCache(config=config, max_cache_len=length)
    heads = config.n_head
    cache.early_initialization(batch, heads, config.n_embd // heads, torch.float32, "cpu")
    return tree_t2j(cache, copy=True)


def decode_in_jax(model, prompts: jax.Array, steps: int) -> jax.Array:
    """The words that follow each prompt, (batch, steps)."""
    language_model = jax_callable(model, copies=("cache",))

    def ask(ids, cache):
        answer = language_model(ids, cache=cache)
        return answer.logits[:, -1].argmax(-1).astype(jnp.int32), answer.cache

    def step(carry, _):
        word, cache = carry
        return ask(word[:, None], cache), word

    @jax.jit
    def decode(prompts, cache):
        _, words = jax.lax.scan(step, ask(prompts, cache), length=steps)
        return words.T

    batch, length = prompts.shape
    return decode(prompts, empty_cache(model.config, batch, length + steps))


def decode_in_torch(model, prompts: torch.Tensor, steps: int) -> torch.Tensor:
    """The same by transformers itself."""
    known = torch.ones_like(prompts)
    with torch.no_grad():
        found = model.generate(
            prompts, attention_mask=known, max_new_tokens=steps, do_sample=False, pad_token_id=0
        )
    return found[:, prompts.shape[1] :]


def main(argv: Sequence[str] | None = None) -> int:
    """Decode on both sides, compare, and give back the exit code."""
    parser = argparse.ArgumentParser(description="A language model's cache in lax.scan.")
    parser.add_argument("--steps", type=int, default=20, help="default: %(default)s")
    args = parser.parse_args(argv)
    model = make_model()
    found = decode_in_jax(model, jnp.array(PROMPTS, jnp.int32), args.steps)
    plain = decode_in_torch(model, torch.tensor(PROMPTS), args.steps)
    for prompt, words in zip(PROMPTS, found.tolist(), strict=True):
        print(f"{prompt} is followed by {words}")
    if found.tolist() != plain.tolist():
        print("decoding: JAX and torch do not agree", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
