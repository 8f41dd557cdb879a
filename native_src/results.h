// How what torch returns gets into XLA's result buffers.
#pragma once

#include "op_table.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// Asks the kernel for huge pages for a large buffer on the host that is about to be written to.
// Only advice: nothing fails where there are none.
void AdviseHugePages(const xla::ffi::AnyBuffer& buffer, DLDevice device);

// Checks torch's result against the plan, and copies what torch has not written there itself.
xla::ffi::Error StoreOutputs(const Op& op, PyObject* result, xla::ffi::RemainingRets& rets,
                             DLDevice device);

}  // namespace jaxtorch
