// The Python module `jaxtorch_bridge._native`: registers ops and hands out the FFI handlers.
#include "container_items.h"
#include "fill_module.h"
#include "freed_memory.h"
#include "gil_scope.h"
#include "handler.h"
#include "op_table.h"
#include "private_pools.h"
#include "stream_scope.h"
#include "thread_entry.h"
#include "torch_api.h"

namespace jaxtorch {

TorchApi g_torch;

namespace {

PyObject* Interned(const char* name) { return PyUnicode_InternFromString(name); }

// configure(exchange_api, tensor_type, version, is_grad_enabled, is_any_autocast_enabled,
//           function_modes, direct_flags, storage_use_count, gc_collect, has_memory, enter_stream,
//           leave_stream, enter_pool, leave_pool)
PyObject* Configure(PyObject*, PyObject* args) {
  PyObject *capsule, *tensor_type, *version, *grad, *autocast, *modes, *direct, *use_count,
      *collect, *has_memory, *enter, *leave, *enter_pool, *leave_pool;
  if (!PyArg_ParseTuple(args, "OO!OOOOOOOOOOOO", &capsule, &PyType_Type, &tensor_type, &version,
                        &grad, &autocast, &modes, &direct, &use_count, &collect, &has_memory,
                        &enter, &leave, &enter_pool, &leave_pool)) {
    return nullptr;
  }
  if (!Py_IS_TYPE(version, &PyGetSetDescr_Type)) {
    PyErr_SetString(PyExc_TypeError, "torch.Tensor._version is no getter");
    return nullptr;
  }
  if (!ThreadFlags::Of(grad, autocast, modes, direct, &g_torch.flags)) return nullptr;
  auto* api = static_cast<DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  if (api == nullptr) return nullptr;
  if (api->header.version.major != 1 || api->dltensor_from_py_object_no_sync == nullptr) {
    return PyErr_Format(PyExc_ImportError, "torch's DLPack table has version %u.%u; 1.x is needed",
                        api->header.version.major, api->header.version.minor);
  }
  g_torch.tensor_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(tensor_type));
  g_torch.version = reinterpret_cast<PyGetSetDescrObject*>(Py_NewRef(version))->d_getset;
  g_torch.storage_use_count = Py_NewRef(use_count);
  g_torch.gc_collect = Py_NewRef(collect);
  g_torch.has_memory = Py_NewRef(has_memory);
  g_torch.enter_stream = Py_NewRef(enter);
  g_torch.leave_stream = Py_NewRef(leave);
  g_torch.enter_pool = Py_NewRef(enter_pool);
  g_torch.leave_pool = Py_NewRef(leave_pool);
  g_torch.name_is_neg = Interned("is_neg");
  g_torch.name_is_conj = Interned("is_conj");
  g_torch.name_clone = Interned("clone");
  g_torch.name_copy = Interned("copy_");
  g_torch.name_detach = Interned("detach");
  g_torch.name_untyped_storage = Interned("untyped_storage");
  g_torch.name_cdata = Interned("_cdata");
  g_torch.dlpack = api;
  Py_RETURN_NONE;
}

// set_agreement(function or None): who is asked when an executable is made; see
// process_agreement.py.
PyObject* SetAgreement(PyObject*, PyObject* function) {
  PyObject* old =
      std::exchange(g_torch.agreement, function == Py_None ? nullptr : Py_NewRef(function));
  Py_XDECREF(old);
  Py_RETURN_NONE;
}

// set_resolver(function): who is asked for the ops of exported programs; see calling/exporting.py.
PyObject* SetResolver(PyObject*, PyObject* function) {
  PyObject* old = std::exchange(g_torch.resolver, Py_NewRef(function));
  Py_XDECREF(old);
  Py_RETURN_NONE;
}

void DropOpCapsule(PyObject* capsule) {
  delete static_cast<std::shared_ptr<Op>*>(PyCapsule_GetPointer(capsule, kOpCapsule));
}

// register_op(key, closure, run, run_in_context, fault, output_dtypes, into, aliases, grad_enabled,
//             hold_storages, may_be_lazy, ordered) -> (capsule that owns the op, None), or (None,
//             closure of the live op that has that key already)
PyObject* RegisterOp(PyObject*, PyObject* args) {
  const char* key;
  PyObject *closure, *run, *run_in_context, *fault, *dtypes, *into, *aliases;
  int grad_enabled, hold_storages, may_be_lazy, ordered;
  if (!PyArg_ParseTuple(args, "sOOOOO!O!O!pppp", &key, &closure, &run, &run_in_context, &fault,
                        &PyTuple_Type, &dtypes, &PyTuple_Type, &into, &PyTuple_Type, &aliases,
                        &grad_enabled, &hold_storages, &may_be_lazy, &ordered)) {
    return nullptr;
  }
  if (g_torch.dlpack == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "configure() has not been called");
    return nullptr;
  }
  std::vector<DLDataType> output_dtypes;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(dtypes); ++i) {
    int code, bits;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(dtypes, i), "ii", &code, &bits)) return nullptr;
    output_dtypes.push_back({static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1});
  }
  std::vector<size_t> into_results;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(into); ++i) {
    const size_t index = PyLong_AsSize_t(PyTuple_GET_ITEM(into, i));
    if (PyErr_Occurred()) return nullptr;
    if (index >= output_dtypes.size()) {
      return PyErr_Format(PyExc_ValueError, "result %zu of %zu", index, output_dtypes.size());
    }
    into_results.push_back(index);
  }
  std::vector<std::pair<size_t, size_t>> alias_pairs;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(aliases); ++i) {
    Py_ssize_t input, result;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(aliases, i), "nn", &input, &result)) return nullptr;
    alias_pairs.emplace_back(static_cast<size_t>(input), static_cast<size_t>(result));
  }
  std::shared_ptr<Op> op = OpTable::Insert(key);
  if (op == nullptr) {
    // Null if it went just now: it had a number to itself then, which does no harm.
    std::shared_ptr<Op> there = OpTable::Find(key);
    return Py_BuildValue("OO", Py_None, there == nullptr ? Py_None : there->closure.get());
  }
  // It is in the table already. Who finds it now reads nothing but its key without the GIL, which
  // is held here until it is whole.
  op->closure = PyRef::Borrow(closure);
  op->run = PyRef::Borrow(run);
  op->run_in_context = PyRef::Borrow(run_in_context);
  op->fault = PyRef::Borrow(fault);
  op->output_dtypes = std::move(output_dtypes);
  op->into = std::move(into_results);
  op->aliases = std::move(alias_pairs);
  op->grad_enabled = grad_enabled;
  op->hold_storages = hold_storages;
  op->may_be_lazy = may_be_lazy;
  op->order = ordered ? StreamOrder::kWithTorch : StreamOrder::kAlone;
  auto* owner = new std::shared_ptr<Op>(std::move(op));
  PyObject* capsule = PyCapsule_New(owner, kOpCapsule, &DropOpCapsule);
  if (capsule == nullptr) {
    delete owner;
    return nullptr;
  }
  return Py_BuildValue("NO", capsule, Py_None);
}

// set_stream_functions(addresses): those of `StreamFunctions`, or None: by Python.
PyObject* SetStreamFunctions(PyObject*, PyObject* addresses) {
  StreamFunctions functions;
  if (!StreamFunctions::Of(addresses, &functions)) return nullptr;
  g_torch.streams = functions;
  Py_RETURN_NONE;
}

// on_stream(device, stream, ordered, function, pools=None) -> function(), as the handler would call
// it: with a dict of pools the one whose calls may be recorded.
PyObject* OnStream(PyObject*, PyObject* args) {
  int device, ordered;
  unsigned long long stream;
  PyObject *function, *pools = Py_None;
  if (!PyArg_ParseTuple(args, "iKpO|O", &device, &stream, &ordered, &function, &pools)) {
    return nullptr;
  }
  TorchStreamScope scope(DLDevice{kDLCUDA, device}, reinterpret_cast<void*>(stream),
                         ordered ? StreamOrder::kWithTorch : StreamOrder::kAlone);
  if (!scope.ok()) return nullptr;
  PoolScope memory(pools == Py_None ? nullptr : pools, device);
  return memory.ok() ? PyObject_CallNoArgs(function) : nullptr;
}

PyObject* SetThreadEntryFunction(PyObject*, PyObject* function) {
  SetThreadEntry(function);
  Py_RETURN_NONE;
}

PyObject* CallsHereAsTuple(PyObject*, PyObject*) {
  const CallsOfThread& calls = CallsHere();
  return Py_BuildValue("KOO", static_cast<unsigned long long>(calls.count),
                       calls.failed ? Py_True : Py_False, calls.xlas ? Py_True : Py_False);
}

PyObject* DepthHere(PyObject*, PyObject*) { return PyLong_FromLong(CallsHere().depth); }

PyObject* ShutOut(PyObject*, PyObject*) { return PyLong_FromLong(ShutOutXlasThreads()); }

PyObject* OpKeys(PyObject*, PyObject*) {
  std::vector<std::string> keys = OpTable::Keys();
  PyRef list = PyRef::Steal(PyList_New(0));
  if (!list) return nullptr;
  for (const std::string& key : keys) {
    PyRef text = PyRef::Steal(PyUnicode_FromStringAndSize(key.data(), key.size()));
    if (!text || PyList_Append(list.get(), text.get()) != 0) return nullptr;
  }
  return list.release();
}

// jaxlib takes XLA_FFI_Handler* and type-information pointers in unnamed capsules.
PyObject* Capsule(const void* pointer) {
  return PyCapsule_New(const_cast<void*>(pointer), nullptr, nullptr);
}

// The handlers of a platform that Python names; false with an exception set if there is none.
bool PlatformOf(PyObject* args, PlatformHandlers* found) {
  const char* platform;
  int recorded = 0;
  if (!PyArg_ParseTuple(args, "s|p", &platform, &recorded)) return false;
  if (std::string(platform) == "cpu" && !recorded) {
    *found = HandlersOnCpu();
  } else if (std::string(platform) == "CUDA") {
    *found = recorded ? HandlersOnCudaRecorded() : HandlersOnCuda();
  } else {
    PyErr_Format(PyExc_ValueError, "expected the platform 'cpu' or 'CUDA', got '%s'", platform);
    return false;
  }
  return true;
}

PyObject* Handlers(PyObject*, PyObject* args) {
  PlatformHandlers found;
  if (!PlatformOf(args, &found)) return nullptr;
  return Py_BuildValue("{s:N,s:N}", "instantiate",
                       Capsule(reinterpret_cast<void*>(found.instantiate)), "execute",
                       Capsule(reinterpret_cast<void*>(found.execute)));
}

// What XLA asks of a handler when it is registered: the traits in its metadata, as a number.
PyObject* HandlerTraits(PyObject*, PyObject* args) {
  PlatformHandlers found;
  if (!PlatformOf(args, &found)) return nullptr;
  XLA_FFI_Metadata metadata = {};
  metadata.struct_size = XLA_FFI_Metadata_STRUCT_SIZE;
  XLA_FFI_Metadata_Extension extension = {};
  extension.extension_base.struct_size = XLA_FFI_Metadata_Extension_STRUCT_SIZE;
  extension.extension_base.type = XLA_FFI_Extension_Metadata;
  extension.metadata = &metadata;
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.extension_start = &extension.extension_base;
  // The frame is whole, so there is no error, which would need XLA to be made.
  found.execute(&frame);
  return PyLong_FromUnsignedLong(metadata.traits);
}

PyObject* StateType(PyObject*, PyObject* args) {
  PlatformHandlers found;
  if (!PlatformOf(args, &found)) return nullptr;
  return Py_BuildValue("{s:N,s:N}", "type_id", Capsule(found.state_id), "type_info",
                       Capsule(found.state_info));
}

// A handler that does nothing, to measure what an FFI call costs by itself (make bench).
xla::ffi::Error NoopImpl(xla::ffi::RemainingArgs, xla::ffi::RemainingRets) {
  return xla::ffi::Error::Success();
}

XLA_FFI_Error* Noop(XLA_FFI_CallFrame* frame) {
  static auto* kernel =
      xla::ffi::Ffi::Bind().RemainingArgs().RemainingRets().To(NoopImpl).release();
  return kernel->Call(frame);
}

PyObject* NoopHandler(PyObject*, PyObject*) { return Capsule(reinterpret_cast<void*>(&Noop)); }

PyMethodDef kMethods[] = {
    {"configure", Configure, METH_VARARGS, "Hand over the torch functions that the handler calls."},
    {"set_agreement", SetAgreement, METH_O, "What the processes of a run agree on an op by."},
    {"set_resolver", SetResolver, METH_O, "What plans the calls of exported programs."},
    {"register_op", RegisterOp, METH_VARARGS,
     "Add an op under a key: (capsule that owns it, None), or (None, closure of who has the key)."},
    {"set_stream_functions", SetStreamFunctions, METH_O,
     "Addresses of the C functions that put torch on a CUDA stream; None: ask Python."},
    {"on_stream", OnStream, METH_VARARGS,
     "on_stream(device, stream, ordered, function, pools=None): call it as the handler does on "
     "CUDA."},
    {"set_thread_entry", SetThreadEntryFunction, METH_O,
     "Call this once in each of XLA's own threads, before it first runs torch."},
    {"calls_here", CallsHereAsTuple, METH_NOARGS,
     "(how many calls of torch this thread has made for XLA, whether the last to end failed, "
     "whether "
     "the thread is XLA's own)."},
    {"depth_here", DepthHere, METH_NOARGS,
     "In how many calls of torch, one inside of another, this thread is now."},
    {"shut_out_xlas_threads", ShutOut, METH_NOARGS,
     "From now on let none of XLA's own threads run Python code; returns how many still do."},
    {"op_keys", OpKeys, METH_NOARGS, "Keys of the ops that are alive, sorted."},
    {"handlers", Handlers, METH_VARARGS,
     "handlers(platform, recorded=False): capsules of the FFI handler's stages."},
    {"handler_traits", HandlerTraits, METH_VARARGS,
     "handler_traits(platform, recorded=False): what a handler says of itself to XLA."},
    {"state_type", StateType, METH_VARARGS,
     "Capsules that describe the per-executable state on a platform."},
    {"fill_module", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&FillModule)),
     METH_FASTCALL,
     "put(containers, keys, values, indices): containers[i][keys[i]] = values[indices[i]]."},
    {"items_of_each", ItemsOfEach, METH_O,
     "items_of_each(containers): tuples of what they hold; see container_items.h."},
    {"changed_since", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&ChangedSince)),
     METH_FASTCALL,
     "changed_since(containers, items): indices of those that hold other objects now."},
    {"noop_handler", NoopHandler, METH_NOARGS, "Capsule of a handler that does nothing."},
    {nullptr, nullptr, 0, nullptr},
};

// What the handler knows is of the process, and XLA's threads come into the main interpreter.
int RefuseSubInterpreters(PyObject*) {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return 0;
  PyErr_SetString(PyExc_RuntimeError,
                  "jaxtorch_bridge runs torch in Python's main interpreter alone, and this is a "
                  "sub-interpreter. Call it from the main one, or start a process.");
  return -1;
}

int PrepareProcess(PyObject*) {
  KeepFreedMemory();
  return 0;
}

PyModuleDef_Slot kSlots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&RefuseSubInterpreters)},
    {Py_mod_exec, reinterpret_cast<void*>(&PrepareProcess)},
#if PY_VERSION_HEX >= 0x030C0000
    // Not so, but Python would refuse with fewer words where an interpreter has a GIL of its own.
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, nullptr},
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT,
                       "jaxtorch_bridge._native",
                       "XLA FFI handler and op table of jaxtorch_bridge.",
                       0,
                       kMethods,
                       kSlots,
                       nullptr,
                       nullptr,
                       nullptr};

}  // namespace
}  // namespace jaxtorch

PyMODINIT_FUNC PyInit__native() { return PyModuleDef_Init(&jaxtorch::kModule); }
