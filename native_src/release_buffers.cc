#include "release_buffers.h"

#include "fault.h"
#include "torch_api.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

namespace {

bool AllReleased(Views& views) {
  for (const BufferView& view : views) {
    if (!view.released()) return false;
  }
  return true;
}

PyRef MemoryRange(const ffi::AnyBuffer& buffer, PyObject* storage) {
  return PyRef::Steal(Py_BuildValue("KKO",
                                    reinterpret_cast<unsigned long long>(buffer.untyped_data()),
                                    static_cast<unsigned long long>(buffer.size_bytes()),
                                    storage == nullptr ? Py_None : storage));
}

// A reference cycle may hold a tensor that nobody can reach: only what survives the collector has
// escaped. Fresh cycles are young, so this seldom goes past generation 0.
template <typename Kept>
void CollectWhile(const Kept& any_kept) {
  for (int generation = 0; generation < 3 && any_kept(); ++generation) {
    PyRef number = PyRef::Steal(PyLong_FromLong(generation));
    PyRef collected = PyRef::Steal(PyObject_CallOneArg(g_torch.gc_collect, number.get()));
    if (!collected) PyErr_Clear();
  }
}

}  // namespace

ffi::Error ReleaseOutputs(const Op& op, ffi::RemainingRets& rets, Views& outputs) {
  for (BufferView& view : outputs) view.DropTensor();
  CollectWhile([&] { return !AllReleased(outputs); });
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].released()) continue;
    PyRef range = MemoryRange(**rets.get<ffi::AnyBuffer>(op.into[i]), nullptr);
    ffi::Error error = Fault(op, "kept", op.into[i], range.get());
    if (!outputs[i].released()) return error;
  }
  return ffi::Error::Success();
}

ffi::Error ReleaseInputs(const Op& op, ffi::RemainingArgs& args, Views& inputs) {
  FewOrMany<PyRef> storages(op.hold_storages ? inputs.size() : 0);
  if (op.hold_storages) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      // None if the call failed before this tensor was made.
      if (inputs[i].tensor() == nullptr) continue;
      PyObject* call[] = {inputs[i].tensor()};
      storages[i] = PyRef::Steal(PyObject_VectorcallMethod(
          g_torch.name_untyped_storage, call, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
      if (!storages[i]) PyErr_Clear();
    }
  }
  // Only after the storages were asked for: from here on nobody has these tensors but who kept
  // them.
  for (BufferView& view : inputs) view.DropTensor();
  auto kept = [&](size_t i) {
    if (!op.hold_storages || !storages[i]) return !inputs[i].released();
    PyRef address = PyRef::Steal(PyObject_GetAttr(storages[i].get(), g_torch.name_cdata));
    if (!address) {
      PyErr_Clear();
      return false;
    }
    PyRef count = PyRef::Steal(PyObject_CallOneArg(g_torch.storage_use_count, address.get()));
    if (!count) {
      PyErr_Clear();
      return false;
    }
    return PyLong_AsLong(count.get()) > 1;  // more than our own handle
  };
  auto any_kept = [&] {
    if (!op.hold_storages) return !AllReleased(inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (kept(i)) return true;
    }
    return false;
  };
  CollectWhile(any_kept);
  ffi::Error first = ffi::Error::Success();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!kept(i)) continue;
    PyRef range =
        MemoryRange(*args.get<ffi::AnyBuffer>(i), op.hold_storages ? storages[i].get() : nullptr);
    ffi::Error error = Fault(op, "escaped", i, range.get());
    if (first.success()) first = std::move(error);
  }
  return first;
}

}  // namespace jaxtorch
