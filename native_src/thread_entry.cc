#include "thread_entry.h"

namespace jaxtorch {

namespace {

// Both are read and written with the GIL held. The reference is kept for the life of the process.
PyObject* g_entry = nullptr;
uint64_t g_version = 0;

thread_local uint64_t t_entered = 0;
thread_local CallsOfThread t_calls;

}  // namespace

void EnterThread() {
  if (t_entered == g_version) return;
  t_entered = g_version;
  PyRef entry = PyRef::Borrow(g_entry);  // another may take its place while it runs
  PyRef done = PyRef::Steal(PyObject_CallNoArgs(entry.get()));
  // The torch call to come is right with any number of threads.
  if (!done) PyErr_WriteUnraisable(entry.get());
}

CallsOfThread& CallsHere() { return t_calls; }

void SetThreadEntry(PyObject* function) {
  PyObject* before = g_entry;
  g_entry = Py_NewRef(function);
  ++g_version;
  Py_XDECREF(before);
}

}  // namespace jaxtorch
