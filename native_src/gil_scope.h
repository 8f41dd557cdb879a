// The GIL, as a scope: how XLA's threads come into Python, and how they are kept out at its end.
//
// A thread that asks for the GIL while Python finalizes ends the process with an abort. Python
// waits for threads of its own, and knows nothing of XLA's.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace jaxtorch {

// How long a thread of XLA's has the Python thread state that a scope makes for it. Making one
// takes many times as long as a scope on a thread that has one.
enum class ThreadState { kOfTheScope, kOfTheThread };

// Holds the GIL for its lifetime, whatever thread XLA calls us on, unless Python ends.
class GilScope {
 public:
  explicit GilScope(ThreadState lives = ThreadState::kOfTheScope);
  ~GilScope();
  GilScope(const GilScope&) = delete;
  GilScope& operator=(const GilScope&) = delete;

  // False where Python finalizes or has ended; on a thread of XLA's, after `ShutOutXlasThreads`.
  bool held() const { return held_; }

  // XLA's threads are told apart by running no Python code until a scope lets them in: they have no
  // Python thread state, or only the one kept for them. False inside of another scope, and inside
  // of a callback of JAX's.
  bool xlas_thread() const { return xlas_thread_; }

 private:
  bool xlas_thread_;
  bool held_;
  PyGILState_STATE state_;
  PyObject* context_ = nullptr;
};

// From now on no scope on a thread of XLA's holds the GIL. Returns how many still do, or are about
// to find that they do not; among them threads that end, and take their thread state down.
int ShutOutXlasThreads();

}  // namespace jaxtorch
