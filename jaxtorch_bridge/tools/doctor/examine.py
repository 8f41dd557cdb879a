"""All subjects, one after the other."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator

from .checks import Check, note, problem
from .versions import examine_versions, floors, installed


def examine() -> tuple[Check, ...]:
    """Look at this installation.

    Imports jax and torch, starts JAX and calls a small torch function through it. What cannot
    be looked at becomes a problem.
    """
    checks = list(_guarded("versions", lambda: examine_versions(installed(), floors())))
    # Every other subject needs both.
    broken = [check for name in ("jax", "torch") for check in _import(name)]
    if broken:
        return (*checks, *broken)
    with warnings.catch_warnings(record=True) as caught:
        # Also what was shown once before, which Python would keep back.
        warnings.simplefilter("always")
        for subject, look in _SUBJECTS:
            checks += _guarded(subject, look)
    words = dict.fromkeys(str(one.message).splitlines()[0] for one in caught)
    return (*checks, *(note("warnings", text) for text in words))


def _import(name: str) -> Iterator[Check]:
    try:
        importlib.import_module(name)
    except Exception as error:
        text = f"{name} cannot be imported: {type(error).__name__}: {error}"
        yield problem("versions", text, f"Run: python -m pip install --force-reinstall {name}")


def _devices() -> Iterator[Check]:
    # Here and below: what is broken in one subject must not keep the others from being looked at.
    from .devices import devices_here, examine_devices, examine_memory

    seen = devices_here()
    yield from examine_devices(seen)
    yield from examine_memory(seen)


def _handler() -> Iterator[Check]:
    from .handler import examine_handler

    yield from examine_handler()


def _libraries() -> Iterator[Check]:
    from .libraries import MAPS, examine_libraries, loaded_libraries, versions_told

    if not MAPS.exists():
        yield note("libraries", f"not looked at: there is no {MAPS}")
        return
    yield from examine_libraries(loaded_libraries(MAPS.read_text()), versions_told())


def _tapes() -> Iterator[Check]:
    from ...config import settings
    from .tapes import examine_tapes, tapes_here

    yield from examine_tapes(tapes_here(), settings.tape_bytes)


def _threads() -> Iterator[Check]:
    from .threads import examine_threads, threads_here

    yield from examine_threads(threads_here())


# Libraries behind the handler: by then a call has loaded what calls load.
_SUBJECTS: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
    ("devices", _devices),
    ("handler", _handler),
    ("libraries", _libraries),
    ("threads", _threads),
    ("tapes", _tapes),
)


def _guarded(subject: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(look())
    except Exception as error:
        text = f"cannot be looked at: {type(error).__name__}: {error}"
        found.append(problem(subject, text, "See that message; then run doctor again"))
    return found
