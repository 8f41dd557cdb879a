#include "stream_functions.h"

namespace jaxtorch {

bool StreamFunctions::Of(PyObject* addresses, StreamFunctions* functions) {
  *functions = StreamFunctions{};
  if (addresses == Py_None) return true;
  unsigned long long current, make_guard, drop_guard, query, make_event, record, wait;
  if (!PyTuple_Check(addresses) ||
      !PyArg_ParseTuple(addresses, "KKKKKKK", &current, &make_guard, &drop_guard, &query,
                        &make_event, &record, &wait)) {
    if (!PyErr_Occurred()) {
      PyErr_Format(PyExc_TypeError, "expected seven addresses or None, got %R", addresses);
    }
    return false;
  }
  functions->current_stream = reinterpret_cast<int32_t (*)(int32_t, void**)>(current);
  functions->make_guard = reinterpret_cast<int32_t (*)(void*, int32_t, void**)>(make_guard);
  functions->drop_guard = reinterpret_cast<int32_t (*)(void*)>(drop_guard);
  functions->stream_query = reinterpret_cast<int (*)(void*)>(query);
  functions->make_event = reinterpret_cast<int (*)(void**, unsigned int)>(make_event);
  functions->record_event = reinterpret_cast<int (*)(void*, void*)>(record);
  functions->wait_for_event = reinterpret_cast<int (*)(void*, void*, unsigned int)>(wait);
  return true;
}

}  // namespace jaxtorch
