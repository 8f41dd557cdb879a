// The few things of Python that the handler touches, looked up once from Python.
// No torch header is included: tensors are made and read through torch's DLPack C table.
#pragma once

#include "dlpack_abi.h"
#include "python_ref.h"
#include "stream_functions.h"
#include "thread_flags.h"

namespace jaxtorch {

struct TorchApi {
  const DLPackExchangeAPI* dlpack = nullptr;
  PyTypeObject* tensor_type = nullptr;
  const PyGetSetDef* version = nullptr;  // the getter of Tensor._version, without its look-up
  ThreadFlags flags;
  PyObject* storage_use_count = nullptr;
  PyObject* gc_collect = nullptr;
  PyObject* has_memory = nullptr;  // (tensor) -> False for fakes and their like
  // Where the C functions for the same are not known; CUDA only.
  PyObject* enter_stream = nullptr;  // (stream pointer, device ordinal, ordered) -> token
  PyObject* leave_stream = nullptr;  // (token)
  PyObject* enter_pool = nullptr;    // (dict of pools, device ordinal) -> token
  PyObject* leave_pool = nullptr;    // (token)
  StreamFunctions streams;
  // (key, held, devices) -> text, empty if all is well; null in a run of one process.
  PyObject* agreement = nullptr;
  // (key, recipe, steps, held) -> a capsule that owns the op, a text that says why there is none,
  // or None: what the table has.
  PyObject* resolver = nullptr;
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
