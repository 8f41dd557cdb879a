// The C functions of torch and of CUDA that put torch on another stream, without Python.
#pragma once

#include <cstdint>

#include "python_ref.h"

namespace jaxtorch {

// By their addresses; all or none are known. Each gives 0 if all is well.
struct StreamFunctions {
  // Torch's stable C interface.
  int32_t (*current_stream)(int32_t device, void** stream) = nullptr;
  int32_t (*make_guard)(void* stream, int32_t device, void** guard) = nullptr;
  int32_t (*drop_guard)(void* guard) = nullptr;
  // The CUDA runtime that torch uses. A stream that has work left gives `kNotReady`.
  int (*stream_query)(void* stream) = nullptr;
  int (*make_event)(void** event, unsigned int flags) = nullptr;
  int (*record_event)(void* event, void* stream) = nullptr;
  int (*wait_for_event)(void* stream, void* event, unsigned int flags) = nullptr;

  bool known() const { return current_stream != nullptr; }
  // From a tuple of addresses in this order, or None; false with an exception set.
  static bool Of(PyObject* addresses, StreamFunctions* functions);
};

}  // namespace jaxtorch
