"""The one place that says which versions are tested together.

`constraints/` pins them for CI, one file for each Python; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Combination:
    """Versions that CI runs together, on the CPU.

    Attributes:
        python: Major and minor version.
        jax: Of jax and of jaxlib.
        torch: Without the suffix of a build, such as ``+cpu``.
    """

    python: str
    jax: str
    torch: str

    def __str__(self) -> str:
        return f"Python {self.python} with JAX {self.jax} and torch {self.torch}"


TESTED = (
    Combination("3.11", "0.10.2", "2.13.0"),
    Combination("3.13", "0.12.0.1", "2.14.1"),
)
