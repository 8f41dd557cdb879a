"""Words that contracts and keywords share."""

from __future__ import annotations

from typing import Literal

VmapMethod = Literal[
    "torch_vmap", "sequential", "sequential_unrolled", "expand_dims", "broadcast_all"
]
ConcurrencyMode = Literal["parallel", "locked", "replicated"]
Backend = Literal["eager", "compile", "aot", "auto"]
OutputsMode = Literal["in_place", "copy", "auto"]
RandomMode = Literal["none", "key"]
