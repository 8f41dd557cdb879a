// Puts tensors where a module has its parameters: what every parameter costs in every call.
#pragma once

#include "python_ref.h"

namespace jaxtorch {

// fill_module(containers, keys, values, indices): containers[i][keys[i]] = values[indices[i]], for
// lists.
PyObject* FillModule(PyObject* self, PyObject* const* args, Py_ssize_t count);

}  // namespace jaxtorch
