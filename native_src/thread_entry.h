// Prepares the threads of XLA's own that run torch: each once, before its first call.
//
// A plain jitted call runs on the caller's own thread, whose settings are the caller's.
#pragma once

#include <cstdint>

#include "python_ref.h"

namespace jaxtorch {

// Calls what `SetThreadEntry` was given, unless this thread has done so. Needs the GIL.
void EnterThread();

// The calls of torch that this thread has made for XLA, and whether the one that ended last failed.
// Of nested calls that is the outermost.
struct CallsOfThread {
  uint64_t count = 0;
  bool failed = false;
  bool xlas = false;  // the thread is one of XLA's own
  int32_t depth = 0;  // calls that it is in, one inside of another
};
CallsOfThread& CallsHere();

// Needs the GIL. Threads that have entered already will enter again.
void SetThreadEntry(PyObject* function);

}  // namespace jaxtorch
