// The XLA FFI handler: instantiate once per executable, execute once per call.
#pragma once

#include <memory>

#include "op_table.h"
#include "private_pools.h"
#include "xla/ffi/api/ffi.h"

namespace jaxtorch {

// Per-executable state: the op, resolved from its key when the executable is made. There is a type
// for each platform, because JAX's CPU client and its CUDA plugin are libraries of their own that
// number types apart: with one id for both, the plugin would take ours for one of its own types.
template <DLDeviceType kPlatform>
struct OpState {
  static xla::ffi::TypeId id;
  std::shared_ptr<Op> op;
  PrivatePools pools;
};

// What Python hands to XLA for one platform.
struct PlatformHandlers {
  XLA_FFI_Handler* instantiate;
  XLA_FFI_Handler* execute;
  xla::ffi::TypeId* state_id;
  const XLA_FFI_TypeInfo* state_info;
};

PlatformHandlers HandlersOnCpu();
PlatformHandlers HandlersOnCuda();
// The same, by their metadata fit to be recorded into XLA's command buffers: what the call launches
// runs again and again, and the call itself does not.
PlatformHandlers HandlersOnCudaRecorded();

}  // namespace jaxtorch
