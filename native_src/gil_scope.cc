#include "gil_scope.h"

#include <atomic>

namespace jaxtorch {

namespace {

// A thread adds itself to `g_within` before it reads `g_shut_out`; who ends Python sets that before
// it reads `g_within`. In one order for all threads, so none is both let in and overlooked.
std::atomic<int> g_within{0};
std::atomic<bool> g_shut_out{false};

bool PythonEnds() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() || !Py_IsInitialized();
#else
  return _Py_IsFinalizing() || !Py_IsInitialized();
#endif
}

}  // namespace

GilScope::GilScope() : xlas_thread_(PyGILState_GetThisThreadState() == nullptr) {
  if (xlas_thread_) g_within.fetch_add(1);
  held_ = !(xlas_thread_ && g_shut_out.load()) && !PythonEnds();
  if (held_) state_ = PyGILState_Ensure();
}

GilScope::~GilScope() {
  if (held_) PyGILState_Release(state_);
  if (xlas_thread_) g_within.fetch_sub(1);
}

int ShutOutXlasThreads() {
  g_shut_out.store(true);
  return g_within.load();
}

}  // namespace jaxtorch
