"""How Python ends well with programs under way that call torch.

Python takes its lock away when it ends, and a thread of XLA's that asks for it then ends the
process with an abort. It is promised that

- programs that the main thread dispatched are completed, and so are those on several devices,
  whoever dispatched them. The wait has no bound, like JAX's own for programs that call nothing;
- calls of torch that have begun are completed, also where an interrupt ends that wait;
- calls that XLA's own threads ask for later fail, with an error that says why.

Nothing is promised where daemon threads run JAX: they abort a process without torch as well.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import time
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.backend import get_backend
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_STEP_SECONDS = 2e-3

# By process: a fork has none of the threads of XLA's that its parent would wait for.
_natives: dict[int, ModuleType] = {}


def wait_at_the_end(native: ModuleType) -> None:
    """Have Python wait for programs when it ends: from now on some may call torch.

    Args:
        native: The compiled module.
    """
    _natives[os.getpid()] = native


# Runs before JAX's own exit function, which would wait for programs with Python's lock held, and
# after all that were registered later than this import: so those may still have XLA call torch.
@atexit.register
def _end() -> None:
    native = _natives.get(os.getpid())
    if native is None:
        return
    try:
        _wait_for_programs()
    except BaseException:
        _keep_clients()
        raise
    finally:
        while native.shut_out_xlas_threads():
            # Lets go of Python's lock, which the threads that are within need to get out.
            time.sleep(_STEP_SECONDS)


def _platforms() -> set[str]:
    return {jax.default_backend(), "cpu"}


def _wait_for_programs() -> None:
    """Return when programs of our own are done, which queue behind all others.

    A device runs programs in the order in which they are dispatched. On CPUs there are two queues:
    of the process for programs on several devices, of each thread for those that it dispatches on
    one.
    """
    for platform in _platforms():
        devices = jax.local_devices(backend=platform)
        for count in {1, len(devices)}:
            _run_on(devices[:count])


def _run_on(devices: list[jax.Device]) -> None:
    mesh = Mesh(np.array(devices), ("devices",))
    # The user's own mesh and switches may still hold.
    with jax.set_mesh(mesh), jax.disable_jit(False):
        sharding = NamedSharding(mesh, PartitionSpec("devices"))
        program = jax.jit(lambda: jnp.zeros(len(devices)), out_shardings=sharding)
        program().block_until_ready()


def _keep_clients() -> None:
    """Have JAX's clients outlive Python: their end would wait for programs, which fail half-way.

    A device may then wait for another in a collective, which XLA ends with an abort after 40 s.
    """
    for platform in _platforms():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(get_backend(platform)))
