"""What can be set for the whole process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Process-wide settings; change them before the calls that they are to affect are planned.

    Use the one object, ``jaxtorch_bridge.settings``.

    Attributes:
        tape_bytes: The most bytes on each device that torch keeps between forward and backward
            passes, all of them together; above that the oldest are dropped, and their backward
            passes run the function again. None: a quarter of the machine's memory, an eighth of a
            GPU's. 0: nothing is kept.
        watch_every_call: Look closely at every call of a function that could not be evaluated
            abstractly, which may write to its inputs in ways that torch does not count (through
            ``.data`` or numpy); otherwise at its first calls, and then ever more rarely.
        process_timeout_seconds: In a run of many processes, how long a program waits at its
            first compilation for the other processes to compile it too; 0: not at all.
        torch_threads: How many threads torch may use in all of XLA's threads together; each CPU
            device has an equal share, and at least one. None: as many as there are cores.
        most_plans: How many ways of calling each function are kept planned and compiled: they
            differ in structure, static values, and what the function closes over, not in shapes.
            Above that the oldest are dropped, with a warning. None: all of them.
    """

    tape_bytes: int | None = None
    watch_every_call: bool = False
    process_timeout_seconds: int = 120
    torch_threads: int | None = None
    most_plans: int | None = 512

    def __setattr__(self, name: str, value: object) -> None:
        # A misspelt name would be a new attribute that nobody reads.
        if name not in type(self).__annotations__:
            known = ", ".join(type(self).__annotations__)
            raise AttributeError(f"settings: expected one of {known}; got `{name}`.")
        if name in ("torch_threads", "most_plans"):
            if value is not None and not _is_count(value, at_least=1):
                raise ValueError(
                    f"settings.{name}: expected a number of {name.rpartition('_')[2]}, at least 1, "
                    f"or None; got {value!r}."
                )
        elif name == "watch_every_call":
            if not isinstance(value, bool):
                raise ValueError(f"settings.{name}: expected True or False, got {value!r}.")
        elif name == "tape_bytes" and value is None:
            pass
        elif not _is_count(value, at_least=0):
            unit = name.rpartition("_")[2]
            raise ValueError(f"settings.{name}: expected a number of {unit}, got {value!r}.")
        object.__setattr__(self, name, value)


def _is_count(value: object, *, at_least: int) -> bool:
    # True is an int in Python, but no number of anything.
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


settings = Settings()
