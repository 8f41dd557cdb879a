"""Planning on several threads: torch's tracers change the whole process meanwhile."""

from __future__ import annotations

import math
import threading

import jax
import jax.numpy as jnp
import torch

from comparing import assert_equal, is_close
from jaxtorch_bridge import jax_callable


def test_gradients_first_taken_on_many_threads_at_once_leave_no_flag_behind():
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for step in range(1, 5):
                wrapped = jax_callable(lambda x, n=number, s=step: torch.sin(x * (n + 1)) * s)
                x = jnp.ones(2 + step)
                found = jax.grad(lambda x, wrapped=wrapped: wrapped(x).sum())(x)
                expected = step * (number + 1) * math.cos(number + 1)
                if not is_close(found, expected):
                    wrong.append((number, step))
                batch = jax.vmap(wrapped)(jnp.ones((2, 3)))
                if not is_close(batch, step * math.sin(number + 1)):
                    wrong.append((number, step, "batch"))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # What a flag left behind would make an error.
    compiled = torch.compile(lambda x: x + 1, backend="eager")
    assert_equal(jax.jit(jax_callable(compiled))(jnp.zeros(2)), [1, 1])
