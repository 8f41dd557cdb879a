// What torch has set for the current thread, asked before each of its calls.
#pragma once

#include <cstdint>

#include "python_ref.h"

namespace jaxtorch {

// A torch function of no arguments that C code implements, asked without Python's way of calling.
class Flag {
 public:
  Flag() = default;
  // False with an exception set if it is no such function.
  static bool Of(PyObject* function, Flag* flag);
  // The truth of its answer; -1 with an exception set.
  int Ask() const;

 private:
  PyObject* function_ = nullptr;
  PyCFunction call_ = nullptr;
};

// Torch's C++ functions behind those flags, by their addresses. All or none are known.
struct DirectFlags {
  bool (*grad_enabled)() = nullptr;
  bool (*autocast_enabled)(int8_t device_type) = nullptr;
  int64_t (*function_modes)() = nullptr;
};

class ThreadFlags {
 public:
  // False with an exception set. `direct` are the addresses of `DirectFlags`, or None.
  static bool Of(PyObject* grad_enabled, PyObject* autocast_enabled, PyObject* function_modes,
                 PyObject* direct, ThreadFlags* flags);

  // 1 if gradients are on and no autocast and no torch function mode is (a default device is one of
  // those), 0 if not; -1 with an exception set. Needs the GIL. Of autocast only that of the CPU and
  // of CUDA is asked for: XLA's buffers lie on no other device here.
  int ArePlain() const {
    if (direct_.grad_enabled == nullptr) return ArePlainByPython();
    return direct_.grad_enabled() && !direct_.autocast_enabled(kCpu) &&
           !direct_.autocast_enabled(kCuda) && direct_.function_modes() == 0;
  }

 private:
  // c10::DeviceType
  static constexpr int8_t kCpu = 0;
  static constexpr int8_t kCuda = 1;

  int ArePlainByPython() const;

  Flag grad_enabled_;
  Flag autocast_enabled_;
  Flag function_modes_;
  DirectFlags direct_;
};

}  // namespace jaxtorch
