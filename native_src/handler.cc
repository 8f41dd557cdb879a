#include "handler.h"

#include <cstring>
#include <memory>
#include <string_view>

#include "buffer_view.h"
#include "stream_scope.h"
#include "thread_entry.h"
#include "torch_api.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

ffi::TypeId OpState::id = {};

namespace {

// A vector of fixed size whose first elements need no allocation: most calls have few operands.
template <typename T, size_t kInline = 8>
class FewOrMany {
 public:
  explicit FewOrMany(size_t size) : size_(size) {
    if (size > kInline) many_ = std::make_unique<T[]>(size);
  }
  size_t size() const { return size_; }
  T* data() { return many_ ? many_.get() : few_; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  T& operator[](size_t index) { return data()[index]; }

 private:
  size_t size_;
  T few_[kInline] = {};
  std::unique_ptr<T[]> many_;
};

using Views = FewOrMany<BufferView>;

// Up to here one memcpy is cheaper than a call into torch; above it the copy runs without the
// GIL, and from kParallelCopyBytes on torch's own copy, which uses several threads.
constexpr int64_t kReleaseGilBytes = 64 << 10;
constexpr int64_t kParallelCopyBytes = 1 << 20;

// Asks Python for the words of a failure. `payload` is what they are about, None if null.
ffi::Error Fault(const Op& op, const char* kind, size_t index, PyObject* payload) {
  PyRef text = PyRef::Steal(PyObject_CallFunction(op.fault.get(), "snO", kind,
                                                  static_cast<Py_ssize_t>(index),
                                                  payload == nullptr ? Py_None : payload));
  if (!text) {
    PyRef error = TakeRaisedException();
    PyRef words = PyRef::Steal(PyObject_Str(error.get()));
    PyErr_Clear();
    return ffi::Error::Internal(op.key + ": " + kind +
                                "; describing it failed as well: " + TextOf(words.get()));
  }
  return ffi::Error::Internal(TextOf(text.get()));
}

ffi::Error RaisedFault(const Op& op) {
  PyRef error = TakeRaisedException();
  return Fault(op, "exception", 0, error.get());
}

// A predicate method of a tensor: 1, 0, or -1 with an exception set.
int AskTensor(PyObject* tensor, PyObject* method) {
  PyObject* args[] = {tensor};
  PyRef answer = PyRef::Steal(
      PyObject_VectorcallMethod(method, args, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

// Truth of a C-implemented torch flag such as torch.is_grad_enabled().
int AskTorch(PyObject* function) {
  PyRef answer = PyRef::Steal(PyObject_CallNoArgs(function));
  if (answer.get() == Py_True) return 1;
  if (answer.get() == Py_False) return 0;
  return answer ? PyObject_IsTrue(answer.get()) : -1;
}

// True if this thread's torch context is the plain one that `op.run` was planned for. Anything
// else (also the inference mode, which implies no grad) goes through `run_in_context`.
int ThreadHasPlainContext(const Op& op) {
  if (!op.grad_enabled) return 0;
  int grad = AskTorch(g_torch.is_grad_enabled);
  if (grad <= 0) return grad;
  int autocast = AskTorch(g_torch.is_any_autocast_enabled);
  if (autocast) return autocast < 0 ? -1 : 0;
  int modes = AskTorch(g_torch.function_modes);
  return modes < 0 ? -1 : !modes;
}

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
  if (!SameShape(tensor, buffer.dimensions())) return Fault(op, "output_shape", index, output);
  if (tensor.dtype != op.output_dtypes[index]) return Fault(op, "output_dtype", index, output);
  if (tensor.device.device_type != device.device_type ||
      (device.device_type != kDLCPU && tensor.device.device_id != device.device_id)) {
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

// A function that takes another way than planned may return from one result's buffer what is
// another result. It is copied out before that buffer is written to. False with an exception set.
bool SetApart(const Op& op, PyRef& items, ffi::RemainingRets& rets) {
  const size_t count = rets.size();
  FewOrMany<const char*> addresses(count);
  for (size_t i = 0; i < count; ++i) {
    addresses[i] = AddressOf(PyTuple_GET_ITEM(items.get(), i));
  }
  for (size_t written : op.into) {
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
  if (op.into.size() > 0 && count > 1 && !SetApart(op, items, rets)) return RaisedFault(op);
  for (size_t i = 0; i < count; ++i) {
    ffi::Error error =
        StoreOutput(op, i, PyTuple_GET_ITEM(items.get(), i), **rets.get<ffi::AnyBuffer>(i), device);
    if (error.failure()) return error;
  }
  return ffi::Error::Success();
}

// After the call: was an input written to? (A fresh tensor's version is 0.)
ffi::Error CheckNotMutated(const Op& op, Views& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    PyRef version =
        PyRef::Steal(g_torch.version->get(inputs[i].tensor(), g_torch.version->closure));
    if (!version) {
      PyErr_Clear();  // inference tensors keep no version
      continue;
    }
    if (PyLong_AsLong(version.get()) != 0) return Fault(op, "mutated", i, nullptr);
  }
  return ffi::Error::Success();
}

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

// The same for the tensors over result buffers. Keeping a result is no fault: had it been copied
// to XLA's buffer, the tensor kept would have been torch's own. So it is given memory quietly.
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

// Drops the input tensors and makes sure that torch let go of XLA's memory. A tensor that
// somebody kept is given memory of its own (by Python, through `fault`) and reported.
ffi::Error ReleaseInputs(const Op& op, ffi::RemainingArgs& args, Views& inputs) {
  FewOrMany<PyRef> storages(op.hold_storages ? inputs.size() : 0);
  if (op.hold_storages) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      PyObject* call[] = {inputs[i].tensor()};
      storages[i] = PyRef::Steal(PyObject_VectorcallMethod(
          g_torch.name_untyped_storage, call, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
      if (!storages[i]) PyErr_Clear();
    }
  }
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

ffi::Error CallTorch(const Op& op, ffi::RemainingArgs& args, ffi::RemainingRets& rets,
                     DLDevice device, Views& inputs, Views& outputs) {
  const size_t count = inputs.size() + outputs.size();
  FewOrMany<PyObject*> call(count + 1);  // one slot before, for vectorcall
  for (size_t i = 0; i < inputs.size(); ++i) {
    ffi::AnyBuffer buffer = *args.get<ffi::AnyBuffer>(i);
    std::optional<DLDataType> dtype = DlpackDtypeOf(buffer.element_type());
    if (!dtype) return Fault(op, "input_dtype", i, nullptr);
    if (!inputs[i].Open(buffer, device, *dtype)) return RaisedFault(op);
    call[i + 1] = inputs[i].tensor();
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const size_t index = op.into[i];
    if (index >= rets.size()) return Fault(op, "output_count", 0, nullptr);
    if (!outputs[i].Open(**rets.get<ffi::AnyBuffer>(index), device, op.output_dtypes[index])) {
      return RaisedFault(op);
    }
    call[inputs.size() + i + 1] = outputs[i].tensor();
  }
  int plain = ThreadHasPlainContext(op);
  if (plain < 0) return RaisedFault(op);
  PyRef result = PyRef::Steal(PyObject_Vectorcall(plain ? op.run.get() : op.run_in_context.get(),
                                                  call.data() + 1,
                                                  count | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
  if (!result) return RaisedFault(op);
  ffi::Error stored = StoreOutputs(op, result.get(), rets, device);
  if (stored.failure()) return stored;
  return CheckNotMutated(op, inputs);
}

ffi::Error Execute(OpState* state, ffi::RemainingArgs args, ffi::RemainingRets rets,
                   DLDevice device, void* stream) {
  const std::shared_ptr<Op> op = state->op;  // outlives this call whatever torch does
  if (PythonIsFinalizing()) {
    return ffi::Error::Internal(op->key + ": the Python interpreter is shutting down");
  }
  const bool xlas_thread = ThreadIsXlas();
  GilScope gil;
  if (xlas_thread) EnterThread();
  TorchStreamScope scope(device, stream);
  if (!scope.ok()) return RaisedFault(*op);
  Views inputs(args.size());
  Views outputs(op->into.size());
  ffi::Error called = CallTorch(*op, args, rets, device, inputs, outputs);
  ffi::Error released = ReleaseInputs(*op, args, inputs);
  ffi::Error given_back = ReleaseOutputs(*op, rets, outputs);
  if (called.failure()) return called;
  return released.failure() ? released : given_back;
}

// In a run of many processes: what is wrong with this op in any of them; empty if nothing is.
std::string AskProcesses(const std::string& key, bool held, int64_t devices) {
  if (g_torch.agreement == nullptr) return std::string();
  GilScope gil;
  PyRef text = PyRef::Steal(PyObject_CallFunction(g_torch.agreement, "sOL", key.c_str(),
                                                  held ? Py_True : Py_False,
                                                  static_cast<long long>(devices)));
  if (text) return TextOf(text.get());
  PyRef error = TakeRaisedException();
  PyRef words = PyRef::Steal(PyObject_Str(error.get()));
  PyErr_Clear();
  return "asking the other processes failed: " + TextOf(words.get());
}

// Name and version of the function that an op comes from: `name@version/digest...`.
std::string LabelOf(const std::string& key) { return key.substr(0, key.find('/', key.find('@'))); }

ffi::ErrorOr<std::unique_ptr<OpState>> InstantiateImpl(ffi::Dictionary attributes) {
  ffi::ErrorOr<std::string_view> key = attributes.get<std::string_view>("op");
  if (!key.has_value()) return ffi::Unexpected(key.error());
  const std::string text(*key);
  const ffi::ErrorOr<int64_t> devices = attributes.get<int64_t>("devices");
  const bool exported = attributes.get<int64_t>("exported").has_value();
  if (exported && OpTable::HasDouble(text)) {
    return ffi::Unexpected(ffi::Error(
        ffi::ErrorCode::kFailedPrecondition,
        "ExportError: this program was exported and calls the torch function `" + LabelOf(text) +
            "`, but this process holds several that look alike (op key " + text +
            "). Give each a name of its own, jax_callable(..., name=...), and export again."));
  }
  std::shared_ptr<Op> op = exported ? OpTable::FindAlike(text) : OpTable::Find(text);
  const std::string disagreement =
      AskProcesses(text, op != nullptr, devices.has_value() ? *devices : 1);
  if (op == nullptr) {
    const std::string name = LabelOf(text);
    return ffi::Unexpected(ffi::Error(
        ffi::ErrorCode::kNotFound,
        "OpNotRegisteredError: this program calls the torch function `" + name +
            "`, which this process does not hold (op key " + text +
            "). Import the module that defines it, in the version that the program was made with, "
            "and call it once with arguments of these shapes (for a gradient or a batch: take "
            "that once), or keep the decorated function alive as long as the program."));
  }
  if (!disagreement.empty()) {
    return ffi::Unexpected(ffi::Error(ffi::ErrorCode::kFailedPrecondition, disagreement));
  }
  auto state = std::make_unique<OpState>();
  state->op = std::move(op);
  return state;
}

ffi::Error CpuImpl(OpState* state, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return Execute(state, args, rets, DLDevice{kDLCPU, 0}, nullptr);
}

ffi::Error CudaImpl(OpState* state, void* stream, int32_t ordinal, ffi::RemainingArgs args,
                    ffi::RemainingRets rets) {
  return Execute(state, args, rets, DLDevice{kDLCUDA, ordinal}, stream);
}

}  // namespace

XLA_FFI_Error* Instantiate(XLA_FFI_CallFrame* frame) {
  static auto* kernel = ffi::Ffi::BindInstantiate().Attrs().To(InstantiateImpl).release();
  return kernel->Call(frame);
}

// The attributes stay there at execution; naming them here keeps the binding's count right.
XLA_FFI_Error* ExecuteCpu(XLA_FFI_CallFrame* frame) {
  static auto* kernel = ffi::Ffi::Bind()
                            .Ctx<ffi::State<OpState>>()
                            .RemainingArgs()
                            .RemainingRets()
                            .Attrs()
                            .To([](OpState* state, ffi::RemainingArgs args, ffi::RemainingRets rets,
                                   ffi::Dictionary) { return CpuImpl(state, args, rets); })
                            .release();
  return kernel->Call(frame);
}

XLA_FFI_Error* ExecuteCuda(XLA_FFI_CallFrame* frame) {
  static auto* kernel =
      ffi::Ffi::Bind()
          .Ctx<ffi::State<OpState>>()
          .Ctx<ffi::PlatformStream<void*>>()
          .Ctx<ffi::DeviceOrdinal>()
          .RemainingArgs()
          .RemainingRets()
          .Attrs()
          .To([](OpState* state, void* stream, int32_t ordinal, ffi::RemainingArgs args,
                 ffi::RemainingRets rets,
                 ffi::Dictionary) { return CudaImpl(state, stream, ordinal, args, rets); })
          .release();
  return kernel->Call(frame);
}

const XLA_FFI_TypeInfo* OpStateTypeInfo() {
  static const XLA_FFI_TypeInfo info = ffi::MakeTypeInfo<OpState>();
  return &info;
}

}  // namespace jaxtorch
