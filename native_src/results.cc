#include "results.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "buffer_view.h"
#include "fault.h"
#include "few_or_many.h"
#include "torch_api.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

namespace {

// Up to here one memcpy is cheaper than a call into torch; above it the copy runs without the
// GIL, and from kParallelCopyBytes on torch's own copy, which uses several threads.
constexpr int64_t kReleaseGilBytes = 64 << 10;
constexpr int64_t kParallelCopyBytes = 1 << 20;

// A predicate method of a tensor: 1, 0, or -1 with an exception set.
int AskTensor(PyObject* tensor, PyObject* method) {
  PyObject* args[] = {tensor};
  PyRef answer = PyRef::Steal(
      PyObject_VectorcallMethod(method, args, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

// From here on glibc maps fresh memory for each buffer: writing to it is mostly page faults.
constexpr size_t kFreshlyMappedBytes = 32 << 20;
constexpr uintptr_t kHugePageBytes = 2 << 20;

bool SameShape(const DLTensor& tensor, ffi::AnyBuffer::Dimensions dims) {
  if (static_cast<size_t>(tensor.ndim) != dims.size()) return false;
  for (int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] != dims[i]) return false;
  }
  return true;
}

// Writes one torch result into XLA's result buffer.
ffi::Error StoreOutput(const Op& op, size_t index, PyObject* output, ffi::AnyBuffer buffer,
                       DLDevice device) {
  if (!PyObject_TypeCheck(output, g_torch.tensor_type)) {
    return Fault(op, "output_type", index, output);
  }
  std::optional<DLDataType> dtype = DlpackDtypeOf(buffer.element_type());
  if (!dtype) return Fault(op, "result_dtype", index, nullptr);
  // A subclass may have a data pointer that means nothing, such as a fake left over in a cache.
  if (Py_TYPE(output) != g_torch.tensor_type) {
    PyRef plain = PyRef::Steal(PyObject_CallOneArg(g_torch.has_memory, output));
    if (!plain) return RaisedFault(op);
    if (plain.get() != Py_True) return Fault(op, "output_layout", index, output);
  }
  // Conjugation and negation may be pending in a flag, which DLPack's C table does not carry:
  // such a tensor must go through torch's copy, or the values would have the wrong sign.
  int lazy = op.may_be_lazy ? AskTensor(output, g_torch.name_is_neg) : 0;
  if (op.may_be_lazy && lazy == 0) lazy = AskTensor(output, g_torch.name_is_conj);
  if (lazy < 0) return RaisedFault(op);
  DLTensor tensor;
  if (g_torch.dlpack->dltensor_from_py_object_no_sync(output, &tensor) != 0) {
    PyErr_Clear();  // sparse, quantised, meta and the like
    return Fault(op, "output_layout", index, output);
  }
  // Torch would broadcast and cast when it copies: what was planned is compared first.
  if (!SameShape(tensor, buffer.dimensions())) return Fault(op, "output_shape", index, output);
  if (tensor.dtype != op.output_dtypes[index]) return Fault(op, "output_dtype", index, output);
  const bool same_device =
      tensor.device.device_type == device.device_type &&
      (device.device_type == kDLCPU || tensor.device.device_id == device.device_id);
  // What torch made on the host, where it makes tensors unless told otherwise, is copied from
  // there.
  if (!same_device && tensor.device.device_type != kDLCPU) {
    return Fault(op, "output_device", index, output);
  }
  const int64_t size_bytes = static_cast<int64_t>(buffer.element_count()) * dtype->size_bytes();
  if (size_bytes == 0) return ffi::Error::Success();
  const char* source = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  const char* target = static_cast<const char*>(buffer.untyped_data());
  if (source == target && lazy == 0 && tensor.dtype == *dtype && IsRowMajor(tensor)) {
    return ffi::Error::Success();  // torch has written it there
  }
  PyRef apart;
  if (source >= target && source < target + size_bytes) {
    // Another view of this very buffer: torch cannot copy a piece of memory onto itself.
    PyObject* clone_args[] = {output};
    apart = PyRef::Steal(PyObject_VectorcallMethod(g_torch.name_clone, clone_args,
                                                   1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
    if (!apart) return RaisedFault(op);
    output = apart.get();
  } else if (device.device_type == kDLCPU && lazy == 0 && tensor.dtype == *dtype &&
             tensor.data != nullptr && size_bytes < kParallelCopyBytes && IsRowMajor(tensor)) {
    if (size_bytes < kReleaseGilBytes) {
      std::memcpy(buffer.untyped_data(), source, size_bytes);
    } else {
      Py_BEGIN_ALLOW_THREADS;
      std::memcpy(buffer.untyped_data(), source, size_bytes);
      Py_END_ALLOW_THREADS;
    }
    return ffi::Error::Success();
  }
  AdviseHugePages(buffer, device);
  BufferView view;
  if (!view.Open(buffer, device, *dtype)) return RaisedFault(op);
  // Without detach, copying from a tensor with a grad_fn would record the copy and keep the
  // view of XLA's memory alive in the graph.
  PyObject* detach_args[] = {output};
  PyRef detached = PyRef::Steal(PyObject_VectorcallMethod(
      g_torch.name_detach, detach_args, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  if (!detached) return RaisedFault(op);
  PyObject* copy_args[] = {view.tensor(), detached.get()};
  PyRef copied = PyRef::Steal(PyObject_VectorcallMethod(
      g_torch.name_copy, copy_args, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  if (!copied) return RaisedFault(op);
  return ffi::Error::Success();
}

// Where a result lies, or null where that cannot be told.
const char* AddressOf(PyObject* tensor) {
  DLTensor found;
  if (!PyObject_TypeCheck(tensor, g_torch.tensor_type)) return nullptr;
  if (g_torch.dlpack->dltensor_from_py_object_no_sync(tensor, &found) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  return static_cast<const char*>(found.data) + found.byte_offset;
}

// A function that takes another way than planned, or that exchanges arguments that it writes to,
// may return from one result's buffer what is another result. It is copied out before that buffer
// is written to. False with an exception set.
bool SetApart(const Op& op, PyRef& items, ffi::RemainingRets& rets) {
  const size_t count = rets.size();
  FewOrMany<const char*> addresses(count);
  for (size_t i = 0; i < count; ++i) {
    addresses[i] = AddressOf(PyTuple_GET_ITEM(items.get(), i));
  }
  std::vector<size_t> buffers = op.into;
  for (const auto& alias : op.aliases) buffers.push_back(alias.second);
  for (size_t written : buffers) {
    const ffi::AnyBuffer buffer = **rets.get<ffi::AnyBuffer>(written);
    const char* start = static_cast<const char*>(buffer.untyped_data());
    if (addresses[written] == start) continue;
    for (size_t i = 0; i < count; ++i) {
      const bool inside = addresses[i] >= start && addresses[i] < start + buffer.size_bytes();
      if (i == written || addresses[i] == nullptr || !inside) continue;
      PyObject* args[] = {PyTuple_GET_ITEM(items.get(), i)};
      PyRef clone = PyRef::Steal(PyObject_VectorcallMethod(
          g_torch.name_clone, args, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
      if (!clone) return false;
      addresses[i] = nullptr;
      // The tuple may be the function's own, which nobody may change.
      PyRef list = PyRef::Steal(PySequence_List(items.get()));
      if (!list || PyList_SetItem(list.get(), i, clone.release()) != 0) return false;
      items = PyRef::Steal(PyList_AsTuple(list.get()));
      if (!items) return false;
    }
  }
  return true;
}

}  // namespace

void AdviseHugePages(const ffi::AnyBuffer& buffer, DLDevice device) {
#ifdef MADV_HUGEPAGE
  if (device.device_type != kDLCPU || buffer.size_bytes() < kFreshlyMappedBytes) return;
  // Whole pages inside of the buffer.
  const uintptr_t start = reinterpret_cast<uintptr_t>(buffer.untyped_data());
  const uintptr_t first = (start + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t end = (start + buffer.size_bytes()) / kHugePageBytes * kHugePageBytes;
  madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

ffi::Error StoreOutputs(const Op& op, PyObject* result, ffi::RemainingRets& rets, DLDevice device) {
  const size_t count = rets.size();
  if (count == 1 && !PyTuple_Check(result) && !PyList_Check(result)) {
    return StoreOutput(op, 0, result, **rets.get<ffi::AnyBuffer>(0), device);
  }
  if (!PyTuple_Check(result) && !PyList_Check(result)) {
    return Fault(op, "output_count", 0, result);
  }
  // A list could be changed by another thread while the GIL is released during a copy.
  PyRef items = PyRef::Steal(PySequence_Tuple(result));
  if (!items) return RaisedFault(op);
  if (static_cast<size_t>(PyTuple_GET_SIZE(items.get())) != count) {
    return Fault(op, "output_count", 0, result);
  }
  if (!(op.into.empty() && op.aliases.empty()) && count > 1 && !SetApart(op, items, rets))
    return RaisedFault(op);
  for (size_t i = 0; i < count; ++i) {
    ffi::Error error =
        StoreOutput(op, i, PyTuple_GET_ITEM(items.get(), i), **rets.get<ffi::AnyBuffer>(i), device);
    if (error.failure()) return error;
  }
  return ffi::Error::Success();
}

}  // namespace jaxtorch
