// The end of a call: torch must let go of XLA's memory.
#pragma once

#include "buffer_view.h"
#include "few_or_many.h"
#include "op_table.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// Tensors over the buffers of one call.
using Views = FewOrMany<BufferView>;

// Drops the input tensors and makes sure that torch let go of XLA's memory. A tensor that
// somebody kept is given memory of its own (by Python, through `fault`) and reported.
xla::ffi::Error ReleaseInputs(const Op& op, xla::ffi::RemainingArgs& args, Views& inputs);

// The same for tensors over result buffers. Keeping a result is no fault: had it been copied
// to XLA's buffer, the tensor kept would have been torch's own. So it is given memory quietly.
xla::ffi::Error ReleaseOutputs(const Op& op, xla::ffi::RemainingRets& rets, Views& outputs);

}  // namespace jaxtorch
