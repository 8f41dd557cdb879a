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
        torch_threads: How many threads torch may use in all of XLA's threads together; each CPU
            device has an equal share, and at least one. None: as many as there are cores.
    """

    residual_limit_bytes: int = 1 << 30
    process_timeout_seconds: int = 120
    torch_threads: int | None = None

    def __setattr__(self, name: str, value: object) -> None:
        # A misspelt name would be a new attribute that nobody reads.
        if name not in type(self).__annotations__:
            known = ", ".join(type(self).__annotations__)
            raise AttributeError(f"settings: expected one of {known}; got `{name}`.")
        if name == "torch_threads":
            if value is not None and not _is_count(value, at_least=1):
                raise ValueError(
                    f"settings.{name}: expected a number of threads, at least 1, or None; "
                    f"got {value!r}."
                )
        elif not _is_count(value, at_least=0):
            unit = name.rpartition("_")[2]
            raise ValueError(f"settings.{name}: expected a number of {unit}, got {value!r}.")
        object.__setattr__(self, name, value)


def _is_count(value: object, *, at_least: int) -> bool:
    # True is an int in Python, but no number of anything.
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


settings = Settings()
