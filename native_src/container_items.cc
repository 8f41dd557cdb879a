#include "container_items.h"

namespace jaxtorch {

namespace {

PyObject* ItemsOf(PyObject* container) {
  if (!PyDict_Check(container)) return PySequence_Tuple(container);
  PyRef items = PyRef::Steal(PyTuple_New(2 * PyDict_GET_SIZE(container)));
  if (!items) return nullptr;
  // The allocation may have run the collector, and with it finalizers that change the dict.
  if (PyTuple_GET_SIZE(items.get()) != 2 * PyDict_GET_SIZE(container)) return ItemsOf(container);
  Py_ssize_t place = 0, next = 0;
  PyObject *key, *value;
  while (PyDict_Next(container, &place, &key, &value)) {
    PyTuple_SET_ITEM(items.get(), next++, Py_NewRef(key));
    PyTuple_SET_ITEM(items.get(), next++, Py_NewRef(value));
  }
  return items.release();
}

bool SameObjects(PyObject* one, PyObject* other) {
  if (PyTuple_GET_SIZE(one) != PyTuple_GET_SIZE(other)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(one); ++i) {
    if (PyTuple_GET_ITEM(one, i) != PyTuple_GET_ITEM(other, i)) return false;
  }
  return true;
}

// 1, 0, or -1 with an exception set.
int HoldsStill(PyObject* container, PyObject* items) {
  if (PyDict_Check(container)) {
    if (2 * PyDict_GET_SIZE(container) != PyTuple_GET_SIZE(items)) return 0;
    Py_ssize_t place = 0, next = 0;
    PyObject *key, *value;
    while (PyDict_Next(container, &place, &key, &value)) {
      if (key != PyTuple_GET_ITEM(items, next++)) return 0;
      if (value != PyTuple_GET_ITEM(items, next++)) return 0;
    }
    return 1;
  }
  PyRef now = PyRef::Steal(PySequence_Tuple(container));
  return now ? SameObjects(now.get(), items) : -1;
}

}  // namespace

PyObject* ItemsOfEach(PyObject*, PyObject* containers) {
  if (!PyList_CheckExact(containers)) {
    PyErr_SetString(PyExc_TypeError, "items_of_each: expected a list");
    return nullptr;
  }
  PyRef found = PyRef::Steal(PyList_New(0));
  for (Py_ssize_t i = 0; found && i < PyList_GET_SIZE(containers); ++i) {
    PyRef container = PyRef::Borrow(PyList_GET_ITEM(containers, i));
    PyRef items = PyRef::Steal(ItemsOf(container.get()));
    if (!items || PyList_Append(found.get(), items.get()) != 0) return nullptr;
  }
  return found.release();
}

PyObject* ChangedSince(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyList_CheckExact(args[0]) || !PyList_CheckExact(args[1]) ||
      PyList_GET_SIZE(args[0]) != PyList_GET_SIZE(args[1])) {
    PyErr_SetString(PyExc_TypeError, "changed_since: expected two lists of one length");
    return nullptr;
  }
  PyRef found = PyRef::Steal(PyList_New(0));
  for (Py_ssize_t i = 0; found && i < PyList_GET_SIZE(args[0]); ++i) {
    PyRef container = PyRef::Borrow(PyList_GET_ITEM(args[0], i));
    PyRef items = PyRef::Borrow(PyList_GET_ITEM(args[1], i));
    if (!PyTuple_CheckExact(items.get())) {
      PyErr_SetString(PyExc_TypeError, "changed_since: expected what items_of_each gave");
      return nullptr;
    }
    const int still = HoldsStill(container.get(), items.get());
    if (still < 0) return nullptr;
    if (still) continue;
    PyRef index = PyRef::Steal(PyLong_FromSsize_t(i));
    if (!index || PyList_Append(found.get(), index.get()) != 0) return nullptr;
  }
  return found.release();
}

}  // namespace jaxtorch
