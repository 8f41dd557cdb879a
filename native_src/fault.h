// Failures on their way to XLA, in words that Python finds; see
// torchside/handler/failure_messages.py.
#pragma once

#include "op_table.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// Asks Python for the words of a failure. `payload` is what they are about, None if null.
xla::ffi::Error Fault(const Op& op, const char* kind, size_t index, PyObject* payload);

// The same for the exception that is set, which it takes.
xla::ffi::Error RaisedFault(const Op& op);

}  // namespace jaxtorch
