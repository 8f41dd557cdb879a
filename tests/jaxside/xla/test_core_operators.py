"""Each operator that torch calls a core one has a lowering, or is taken apart into such."""

import torch

from jaxtorch_bridge._compat.torch.capture.graphs import decompositions
from jaxtorch_bridge.jaxside.aten import families as families
from jaxtorch_bridge.jaxside.aten.registry import lowering_of

# By other means.
ELSEWHERE = {
    "_local_scalar_dense.default": "a value that Python reads",
    "nonzero.default": "with a bound, among the operators of sizes that follow from values",
    "resize_.default": "torch takes it apart itself where it traces",
    "sym_numel.default": "sizes are numbers by then",
    "sym_storage_offset.default": "likewise",
    "_native_batch_norm_legit.default": "writes to its arguments, which its functional form gives",
    "atan2.out": "likewise",
    "upsample_bilinear2d.vec": "torch takes it apart itself",
    "upsample_nearest2d.vec": "likewise",
}


def test_core_operators():
    # What `dir(torch.ops.aten)` lists is what this process has used so far.
    names = [name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names()]
    packets = {name.partition(".")[0] for name in names}
    operators = [
        getattr(packet, overload)
        for packet in (getattr(torch.ops.aten, name, None) for name in sorted(packets))
        if isinstance(packet, torch._ops.OpOverloadPacket)
        for overload in packet.overloads()
    ]
    core = [one for one in operators if torch.Tag.core in one.tags]
    assert len(core) > 150
    apart = decompositions()
    missing = {
        one.__name__ for one in core if lowering_of(one.__name__) is None and one not in apart
    }
    assert missing <= ELSEWHERE.keys(), missing - ELSEWHERE.keys()
