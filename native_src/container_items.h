// What containers hold, before and after a call: what every attribute of a module costs in a call
// that may change it.
#pragma once

#include "python_ref.h"

namespace jaxtorch {

// items_of_each(containers): for each of a list of containers a tuple of what it holds; of a dict
// each key with its value behind it.
PyObject* ItemsOfEach(PyObject* self, PyObject* containers);

// changed_since(containers, items): the indices of those that hold other objects than
// `items_of_each` has found, or the same in another order.
PyObject* ChangedSince(PyObject* self, PyObject* const* args, Py_ssize_t count);

}  // namespace jaxtorch
