"""What can be set for the whole process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Process-wide settings; change them before the calls that they are to affect are planned.

    Attributes:
        residual_limit_bytes: With ``residuals: auto``, the most bytes that one call keeps between
            its forward and its backward pass; above that the backward pass recomputes.
    """

    residual_limit_bytes: int = 1 << 30


settings = Settings()
