// Makes XLA's stream torch's current stream for one call, ordered after the work already queued
// on torch's own stream and before what is queued there later. Needs the GIL. Does nothing on CPU.
#pragma once

#include "torch_api.h"

namespace jaxtorch {

class TorchStreamScope {
 public:
  TorchStreamScope(DLDevice device, void* stream) {
    if (device.device_type != kDLCUDA) return;
    token_ = PyRef::Steal(PyObject_CallFunction(
        g_torch.enter_stream, "Ki",
        static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(stream)), device.device_id));
    ok_ = static_cast<bool>(token_);
  }
  ~TorchStreamScope() {
    if (!token_) return;
    PyRef left = PyRef::Steal(PyObject_CallOneArg(g_torch.leave_stream, token_.get()));
    if (!left) PyErr_WriteUnraisable(g_torch.leave_stream);
  }
  TorchStreamScope(const TorchStreamScope&) = delete;
  TorchStreamScope& operator=(const TorchStreamScope&) = delete;

  bool ok() const { return ok_; }  // otherwise a Python exception is set

 private:
  PyRef token_;
  bool ok_ = true;
};

}  // namespace jaxtorch
