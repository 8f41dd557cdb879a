#include "fault.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

ffi::Error Fault(const Op& op, const char* kind, size_t index, PyObject* payload) {
  PyRef text = PyRef::Steal(PyObject_CallFunction(op.fault.get(), "snO", kind,
                                                  static_cast<Py_ssize_t>(index),
                                                  payload == nullptr ? Py_None : payload));
  if (!text) {
    PyRef error = TakeRaisedException();
    PyRef words = PyRef::Steal(PyObject_Str(error.get()));
    PyErr_Clear();
    return ffi::Error::Internal(op.key + ": " + kind +
                                "; describing it failed as well: " + TextOf(words.get()));
  }
  return ffi::Error::Internal(TextOf(text.get()));
}

ffi::Error RaisedFault(const Op& op) {
  PyRef error = TakeRaisedException();
  return Fault(op, "exception", 0, error.get());
}

}  // namespace jaxtorch
