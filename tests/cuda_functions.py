"""Functions that stand for torch's and CUDA's, by which the handler changes streams."""

from __future__ import annotations

import ctypes
import threading

from jaxtorch_bridge.torchside.handler.native_module import native

OWN, XLAS, DEVICE = 0x10, 0x20, 1
INT, POINTER, WORD = ctypes.c_int, ctypes.c_void_p, ctypes.c_uint
PLACE = ctypes.POINTER(POINTER)


class Cuda:
    """Seven functions that note what they are asked; `failing` names those that give an error."""

    def __init__(self, *, busy=True, failing=(), own=OWN):
        self.calls, self.busy, self.failing, self.own = [], busy, failing, own
        self.made = 0
        # By the names of native_src/stream_functions.h.
        forms = {
            "current_stream": (INT, PLACE),
            "make_guard": (POINTER, INT, PLACE),
            "drop_guard": (POINTER,),
            "stream_query": (POINTER,),
            "make_event": (PLACE, WORD),
            "record_event": (POINTER, POINTER),
            "wait_for_event": (POINTER, POINTER, WORD),
        }
        # Kept alive here.
        self._functions = [
            ctypes.CFUNCTYPE(INT, *form)(self._noting(name)) for name, form in forms.items()
        ]
        self.addresses = tuple(ctypes.cast(one, POINTER).value for one in self._functions)

    def _noting(self, name):
        def call(*args):
            self.calls.append((name, *(one for one in args if not isinstance(one, PLACE))))
            if name in self.failing:
                return 700
            if name == "current_stream":
                args[1][0] = self.own
            elif name == "make_guard":
                args[2][0] = 0x99
            elif name == "make_event":
                self.made += 1
                args[0][0] = 0x1000 + self.made
            return 600 if name == "stream_query" and self.busy else 0

        return call

    @property
    def names(self):
        return [name for name, *_ in self.calls if name != "make_event"]

    def run(self, function=lambda: None, *, ordered=True, device=DEVICE):
        """On a thread of its own, which has no events yet."""
        found = []

        def work():
            try:
                found.append(native().on_stream(device, XLAS, ordered, function))
            except BaseException as error:
                found.append(error)

        native().set_stream_functions(self.addresses)
        try:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        finally:
            native().set_stream_functions(None)
        return found[0]
