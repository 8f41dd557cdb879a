// Makes XLA's stream torch's current stream for one call. Needs the GIL. Does nothing on CPU.
#pragma once

#include "torch_api.h"

namespace jaxtorch {

// Whether a call is ordered after the work already queued on torch's own stream and before what is
// queued there later. One that touches nothing but XLA's buffers need not be.
enum class StreamOrder : bool { kAlone = false, kWithTorch = true };

class TorchStreamScope {
 public:
  TorchStreamScope(DLDevice device, void* stream, StreamOrder order);
  ~TorchStreamScope();
  TorchStreamScope(const TorchStreamScope&) = delete;
  TorchStreamScope& operator=(const TorchStreamScope&) = delete;

  bool ok() const { return ok_; }  // otherwise a Python exception is set

 private:
  void EnterDirectly(int32_t device, void* stream, StreamOrder order);
  void LeaveDirectly();

  // By Python.
  PyRef token_;
  // By torch's own functions: its guard, and what has to wait behind the call.
  void* guard_ = nullptr;
  void* stream_ = nullptr;
  void* own_ = nullptr;
  int32_t device_ = 0;
  bool ok_ = true;
};

}  // namespace jaxtorch
