// The few things of Python that the handler touches, looked up once from Python.
// No torch header is included: tensors are made and read through torch's DLPack C table.
#pragma once

#include "dlpack_abi.h"
#include "python_ref.h"

namespace jaxtorch {

// A torch function of no arguments that C code implements, asked without Python's way of calling.
class Flag {
 public:
  Flag() = default;
  // Null with an exception set if it is no such function.
  static bool Of(PyObject* function, Flag* flag) {
    if (!PyCFunction_Check(function) || PyCFunction_GET_FLAGS(function) != METH_NOARGS) {
      PyErr_Format(PyExc_TypeError, "%R is no function in C without arguments", function);
      return false;
    }
    flag->function_ = Py_NewRef(function);
    flag->call_ = PyCFunction_GET_FUNCTION(function);
    return true;
  }
  // The truth of its answer; -1 with an exception set.
  int Ask() const {
    PyRef answer = PyRef::Steal(call_(PyCFunction_GET_SELF(function_), nullptr));
    if (answer.get() == Py_True) return 1;
    if (answer.get() == Py_False) return 0;
    return answer ? PyObject_IsTrue(answer.get()) : -1;
  }

 private:
  PyObject* function_ = nullptr;
  PyCFunction call_ = nullptr;
};

struct TorchApi {
  const DLPackExchangeAPI* dlpack = nullptr;
  PyTypeObject* tensor_type = nullptr;
  const PyGetSetDef* version = nullptr;  // the getter of Tensor._version, without its look-up
  Flag is_grad_enabled;
  Flag is_any_autocast_enabled;
  Flag function_modes;  // how many are active: a default device is one
  PyObject* storage_use_count = nullptr;
  PyObject* gc_collect = nullptr;
  PyObject* has_memory = nullptr;    // (tensor) -> False for fakes and their like
  PyObject* enter_stream = nullptr;  // (stream pointer, device ordinal) -> token; CUDA only
  PyObject* leave_stream = nullptr;  // (token)
  // (key, held, devices) -> text, empty if all is well; null in a run of one process.
  PyObject* agreement = nullptr;
  // Interned attribute and method names.
  PyObject* name_is_neg = nullptr;
  PyObject* name_is_conj = nullptr;
  PyObject* name_clone = nullptr;
  PyObject* name_copy = nullptr;
  PyObject* name_detach = nullptr;
  PyObject* name_untyped_storage = nullptr;
  PyObject* name_cdata = nullptr;
};

// Filled by `configure`; references are kept for the life of the process.
extern TorchApi g_torch;

}  // namespace jaxtorch
