// The XLA FFI handler: instantiate once per executable, execute once per call.
#pragma once

#include <memory>

#include "op_table.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// Per-executable state: the op, resolved from its key when the executable is made.
struct OpState {
  static xla::ffi::TypeId id;
  std::shared_ptr<Op> op;
};

XLA_FFI_Error* Instantiate(XLA_FFI_CallFrame* frame);
XLA_FFI_Error* ExecuteCpu(XLA_FFI_CallFrame* frame);
XLA_FFI_Error* ExecuteCuda(XLA_FFI_CallFrame* frame);

const XLA_FFI_TypeInfo* OpStateTypeInfo();

}  // namespace jaxtorch
