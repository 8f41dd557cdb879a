#include "gil_scope.h"

#include <atomic>
#include <utility>

namespace jaxtorch {

namespace {

// A thread adds itself to `g_within` before it reads `g_shut_out`; who ends Python sets that before
// it reads `g_within`. In one order for all threads, so none is both let in and overlooked.
std::atomic<int> g_within{0};
std::atomic<bool> g_shut_out{false};

// This thread's state, if it is kept. Python takes it down when it ends, whatever threads there are
// then, so it is only looked into by a thread that has added itself to `g_within`.
thread_local PyThreadState* t_kept = nullptr;

bool PythonEnds() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() || !Py_IsInitialized();
#else
  return _Py_IsFinalizing() || !Py_IsInitialized();
#endif
}

bool IsShutOut() { return g_shut_out.load() || PythonEnds(); }

// True if Python code runs on this thread, further out. Python counts the scopes that hold a
// thread's state: the one that keeps it, and those of ours or of JAX's callbacks.
bool PythonCodeRunsHere() { return t_kept != nullptr && t_kept->gilstate_counter > 1; }

// Takes the thread's state down when the thread ends, if Python is there. JAX waits for its threads
// without the GIL (which their callbacks need as well), so the GIL can be waited for here.
struct Keeper {
  ~Keeper() {
    PyThreadState* kept = std::exchange(t_kept, nullptr);
    g_within.fetch_add(1);
    if (!IsShutOut()) {
      PyEval_RestoreThread(kept);
      // Not by PyGILState_Release: before Python 3.12.4 it tells finalizers that come into Python
      // by a scope of their own that this thread has no state, and they make another.
      PyThreadState_Clear(kept);
      PyThreadState_DeleteCurrent();
    }
    g_within.fetch_sub(1);
  }
};

void KeepThreadState() {
  static thread_local Keeper keeper;
  PyGILState_Ensure();  // never released, so all scopes to come find the state
  t_kept = PyEval_SaveThread();
}

}  // namespace

GilScope::GilScope(ThreadState lives) {
  PyThreadState* state = PyGILState_GetThisThreadState();
  xlas_thread_ = state == nullptr || state == t_kept;
  if (xlas_thread_) {
    g_within.fetch_add(1);
    if (!PythonEnds() && PythonCodeRunsHere()) {
      xlas_thread_ = false;
      g_within.fetch_sub(1);
    }
  }
  held_ = !(xlas_thread_ && g_shut_out.load()) && !PythonEnds();
  if (!held_) return;
  if (state == nullptr && lives == ThreadState::kOfTheThread) KeepThreadState();
  state_ = PyGILState_Ensure();
  if (!xlas_thread_) return;
  // Context variables that a call leaves set are not for the next one, of another function maybe.
  context_ = PyContext_New();
  if (context_ == nullptr || PyContext_Enter(context_) != 0) {
    PyErr_Clear();
    Py_CLEAR(context_);
  }
}

GilScope::~GilScope() {
  if (context_ != nullptr) {
    if (PyContext_Exit(context_) != 0) PyErr_Clear();
    Py_DECREF(context_);
  }
  if (held_) PyGILState_Release(state_);
  if (xlas_thread_) g_within.fetch_sub(1);
}

int ShutOutXlasThreads() {
  g_shut_out.store(true);
  return g_within.load();
}

}  // namespace jaxtorch
