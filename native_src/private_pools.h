// Memory for what torch allocates while XLA records a call into a command buffer.
#pragma once

#include <cstdint>

#include "python_ref.h"

namespace jaxtorch {

// Of one call in one executable. The kernels that were recorded go on to use that memory, so it is
// neither shared nor given back before the executable goes. Recorded anew, the call may take the
// same memory again: of one executable's recordings one runs at a time.
class PrivatePools {
 public:
  PrivatePools() = default;
  ~PrivatePools();  // takes the GIL itself
  PrivatePools(const PrivatePools&) = delete;
  PrivatePools& operator=(const PrivatePools&) = delete;

  // The dict that Python keeps them in, by device; null with an exception set. The GIL is held.
  PyObject* dict();

 private:
  PyRef dict_;
};

// Has torch allocate from them for its length, if XLA is recording on torch's current stream.
class PoolScope {
 public:
  // Nothing to do where `pools` is null.
  PoolScope(PyObject* pools, int32_t device);
  ~PoolScope();
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;

  bool ok() const { return ok_; }  // false with an exception set

 private:
  PyRef token_;
  bool ok_ = true;
};

}  // namespace jaxtorch
