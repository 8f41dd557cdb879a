"""The frozen description of one planned call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from ..choices import Backend, VmapMethod
from .array_signature import ArraySig
from .concurrency import PARALLEL, Concurrency
from .output_inference import Inference


@dataclass(frozen=True)
class CallPlan:
    """Everything that is decided about a call before it runs. Hashable, equal by content.

    Attributes:
        name: The callable's name.
        version: The contract's version; ``0`` without a contract.
        code: Digest of the torch function's code, so that another body is another plan.
        inputs: Array arguments, flat and in order.
        static: Static arguments as (path, text) pairs.
        outputs: Results, flat and in order.
        inference: How the outputs were found.
        sizes: The contract's dimension names with their sizes.
        context: Torch's thread-local settings at plan time, as (name, text) pairs.
        derivative: Which engine reverse mode will try first, in words.
        vmap_method: What ``jax.vmap`` does.
        contract: Digest of the contract, or the empty string.
        source: Where the contract stands, or the empty string.
        backend: What runs the function.
        mutates: Arguments that it writes to.
        copies: Arguments of which it gets a copy of its own.
        concurrency: How calls on several devices share what the function closes over.
        bounds: On each dimension of outputs that has a bound, in words.
        random_key: The words of the random key, which come behind the inputs; None: it
            takes none.
        form: Digest of the form of the arguments and of the call; empty for leaves by position.
    """

    name: str
    version: str
    code: str
    inputs: tuple[ArraySig, ...]
    static: tuple[tuple[str, str], ...]
    outputs: tuple[ArraySig, ...]
    inference: Inference
    sizes: tuple[tuple[str, int], ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    derivative: str = ""
    vmap_method: VmapMethod = "torch_vmap"
    contract: str = ""
    source: str = ""
    concurrency: Concurrency = PARALLEL
    backend: Backend = "eager"
    mutates: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    random_key: ArraySig | None = None
    form: str = ""

    @property
    def label(self) -> str:
        """Name and version, as messages show them."""
        return self.name if self.version == "0" else f"{self.name}@{self.version}"

    @property
    def may_draw(self) -> bool:
        """Whether the function may draw random numbers, as far as planning can tell."""
        return self.inference.random or not self.inference.traced

    @property
    def digest(self) -> str:
        """16 hex digits over everything that decides what runs; the same in every process."""
        # Without how the outputs were found, and what follows from that: another process may find
        # the same ones in another way.
        facts: tuple[Any, ...] = (
            self.name,
            self.version,
            self.code,
            tuple((str(sig), sig.differentiable) for sig in self.inputs),
            self.static,
            tuple(str(sig) for sig in self.outputs),
            self.context,
            self.vmap_method,
            self.contract,
            # Added where there is something to say, so that keys of other functions stay what they
            # were.
            *([self.mutates] if self.mutates else []),
            *([("copies", *self.copies)] if self.copies else []),
            *([("form", self.form)] if self.form else []),
        )
        if self.random_key is not None:
            facts += (str(self.random_key),)
        # Not `hash`, which differs from process to process.
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """The op's key in the native table: ``name@version/digest``."""
        return f"{self.name}@{self.version}/{self.digest}"
