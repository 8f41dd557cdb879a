"""What can be set for the whole process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Process-wide settings; change them before the calls that they are to affect are planned.

    Use the one object, ``jaxtorch_bridge.settings``.

    Attributes:
        residual_limit_bytes: With ``residuals: auto``, the most bytes that one call keeps between
            its forward and its backward pass; above that the backward pass recomputes.
        process_timeout_seconds: In a run of many processes, how long a program waits at its
            first compilation for the other processes to compile it too; 0: not at all.
    """

    residual_limit_bytes: int = 1 << 30
    process_timeout_seconds: int = 120

    def __setattr__(self, name: str, value: object) -> None:
        if name not in type(self).__annotations__:
            known = ", ".join(type(self).__annotations__)
            raise AttributeError(f"settings: expected one of {known}; got `{name}`.")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            unit = name.rpartition("_")[2]
            raise ValueError(f"settings.{name}: expected a number of {unit}, got {value!r}.")
        object.__setattr__(self, name, value)


settings = Settings()
