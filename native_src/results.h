// How what torch returns gets into XLA's result buffers.
#pragma once

#include "op_table.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// Checks torch's result against the plan, and copies what torch has not written there itself.
xla::ffi::Error StoreOutputs(const Op& op, PyObject* result, xla::ffi::RemainingRets& rets,
                             DLDevice device);

}  // namespace jaxtorch
