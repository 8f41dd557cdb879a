// The GIL, as a scope: how XLA's threads come into Python, and how they are kept out at its end.
//
// A thread that asks for the GIL while Python finalizes ends the process with an abort. Python
// waits for threads of its own, and knows nothing of XLA's.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace jaxtorch {

// Holds the GIL for its lifetime, whatever thread XLA calls us on, unless Python ends.
class GilScope {
 public:
  GilScope();
  ~GilScope();
  GilScope(const GilScope&) = delete;
  GilScope& operator=(const GilScope&) = delete;

  // False where Python finalizes or has ended; on a thread of XLA's, after `ShutOutXlasThreads`.
  bool held() const { return held_; }

  // XLA's threads are told apart by having no Python thread state until a scope makes one.
  bool xlas_thread() const { return xlas_thread_; }

 private:
  const bool xlas_thread_;
  bool held_;
  PyGILState_STATE state_;
};

// From now on no scope on a thread of XLA's holds the GIL. Returns how many still do, or are about
// to find that they do not.
int ShutOutXlasThreads();

}  // namespace jaxtorch
