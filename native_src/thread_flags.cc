#include "thread_flags.h"

namespace jaxtorch {

bool Flag::Of(PyObject* function, Flag* flag) {
  if (!PyCFunction_Check(function) || PyCFunction_GET_FLAGS(function) != METH_NOARGS) {
    PyErr_Format(PyExc_TypeError, "%R is no function in C without arguments", function);
    return false;
  }
  // Kept for the life of the process, as is all that `configure` hands over.
  flag->function_ = Py_NewRef(function);
  flag->call_ = PyCFunction_GET_FUNCTION(function);
  return true;
}

int Flag::Ask() const {
  PyRef answer = PyRef::Steal(call_(PyCFunction_GET_SELF(function_), nullptr));
  if (answer.get() == Py_True) return 1;
  if (answer.get() == Py_False) return 0;
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

bool ThreadFlags::Of(PyObject* grad_enabled, PyObject* autocast_enabled, PyObject* function_modes,
                     PyObject* direct, ThreadFlags* flags) {
  if (!Flag::Of(grad_enabled, &flags->grad_enabled_) ||
      !Flag::Of(autocast_enabled, &flags->autocast_enabled_) ||
      !Flag::Of(function_modes, &flags->function_modes_)) {
    return false;
  }
  // In the order of `direct_flags` in _compat/torch/thread_flags.py.
  flags->direct_ = DirectFlags{};
  if (direct == Py_None) return true;
  unsigned long long grad, autocast, modes;
  if (!PyArg_ParseTuple(direct, "KKK", &grad, &autocast, &modes)) return false;
  flags->direct_.grad_enabled = reinterpret_cast<bool (*)()>(grad);
  flags->direct_.autocast_enabled = reinterpret_cast<bool (*)(int8_t)>(autocast);
  flags->direct_.function_modes = reinterpret_cast<int64_t (*)()>(modes);
  return true;
}

int ThreadFlags::ArePlainByPython() const {
  const int grad = grad_enabled_.Ask();
  if (grad <= 0) return grad;
  const int autocast = autocast_enabled_.Ask();
  if (autocast) return autocast < 0 ? -1 : 0;
  const int modes = function_modes_.Ask();
  return modes < 0 ? -1 : !modes;
}

}  // namespace jaxtorch
