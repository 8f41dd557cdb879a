#include "fill_module.h"

namespace jaxtorch {

PyObject* FillModule(PyObject*, PyObject* const* args, Py_ssize_t count) {
  bool lists = count == 4;
  for (Py_ssize_t i = 0; lists && i < 4; ++i) lists = PyList_CheckExact(args[i]);
  if (!lists) {
    PyErr_SetString(PyExc_TypeError, "fill_module: expected four lists");
    return nullptr;
  }
  PyObject *containers = args[0], *keys = args[1], *values = args[2], *indices = args[3];
  const Py_ssize_t places = PyList_GET_SIZE(containers);
  if (PyList_GET_SIZE(keys) != places || PyList_GET_SIZE(indices) != places) {
    PyErr_SetString(PyExc_ValueError,
                    "fill_module: expected a key and an index for each container");
    return nullptr;
  }
  for (Py_ssize_t i = 0; i < places; ++i) {
    const Py_ssize_t index = PyLong_AsSsize_t(PyList_GET_ITEM(indices, i));
    if (index < 0 || index >= PyList_GET_SIZE(values)) {
      if (!PyErr_Occurred())
        PyErr_SetString(PyExc_IndexError, "fill_module: no value of that index");
      return nullptr;
    }
    // Held: what is replaced may end here, and its end may run code that changes these lists.
    PyRef container = PyRef::Borrow(PyList_GET_ITEM(containers, i));
    PyRef key = PyRef::Borrow(PyList_GET_ITEM(keys, i));
    PyRef value = PyRef::Borrow(PyList_GET_ITEM(values, index));
    // An OrderedDict keeps its order in a list of its own, which PyDict_SetItem passes by.
    const int failed = PyDict_CheckExact(container.get())
                           ? PyDict_SetItem(container.get(), key.get(), value.get())
                           : PyObject_SetItem(container.get(), key.get(), value.get());
    if (failed) return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace jaxtorch
