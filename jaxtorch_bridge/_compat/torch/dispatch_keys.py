"""What torch's dispatcher has of a thread. Tried on torch 2.13.0 and 2.14.1."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def dispatch_keys_put_back() -> Iterator[None]:
    """Have the thread's dispatch keys on leaving that it had on entering.

    Torch's transforms hold switches of the dispatcher in their frames. Where one fails, an error
    keeps these frames, and when they are let go of, each switch puts back what it found, in no
    order: autograd may stay off, and all that runs on the thread later has gradients of zero, or
    none.
    """
    keys = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    with torch._C._ForceDispatchKeyGuard(*keys):
        try:
            yield
        except BaseException as error:
            _let_go_of_frames(error)
            raise


def _let_go_of_frames(error: BaseException) -> None:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]
