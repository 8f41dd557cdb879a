#include "handler.h"

#include <string_view>

#include "buffer_view.h"
#include "fault.h"
#include "few_or_many.h"
#include "gil_scope.h"
#include "private_pools.h"
#include "release_buffers.h"
#include "results.h"
#include "stream_scope.h"
#include "thread_entry.h"
#include "torch_api.h"

namespace jaxtorch {

namespace ffi = xla::ffi;

template <DLDeviceType kPlatform>
ffi::TypeId OpState<kPlatform>::id = {};

namespace {

// True if this thread's torch context is the plain one that `op.run` was planned for. Anything
// else (also the inference mode, which implies no grad) goes through `run_in_context`.
int ThreadHasPlainContext(const Op& op) { return op.grad_enabled ? g_torch.flags.ArePlain() : 0; }

bool MayBeWritten(const Op& op, size_t input) {
  for (const auto& [declared, result] : op.aliases) {
    if (declared == input) return true;
  }
  return false;
}

// After the call: was an input written to that is not declared? (A fresh tensor's version is 0.)
ffi::Error CheckNotMutated(const Op& op, Views& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (MayBeWritten(op, i)) continue;
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
    const ffi::AnyBuffer buffer = **rets.get<ffi::AnyBuffer>(index);
    AdviseHugePages(buffer, device);
    if (!outputs[i].Open(buffer, device, op.output_dtypes[index])) return RaisedFault(op);
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

ffi::Error CallTorchOnStream(const Op& op, ffi::RemainingArgs& args, ffi::RemainingRets& rets,
                             DLDevice device, void* stream, PrivatePools* pools) {
  TorchStreamScope scope(device, stream, op.order);
  if (!scope.ok()) return RaisedFault(op);
  PyObject* dict = pools == nullptr ? nullptr : pools->dict();
  if (pools != nullptr && dict == nullptr) return RaisedFault(op);
  PoolScope memory(dict, device.device_id);
  if (!memory.ok()) return RaisedFault(op);
  Views inputs(args.size());
  Views outputs(op.into.size());
  ffi::Error called = CallTorch(op, args, rets, device, inputs, outputs);
  // Both, also after a failure: XLA takes its memory back either way.
  ffi::Error released = ReleaseInputs(op, args, inputs);
  ffi::Error given_back = ReleaseOutputs(op, rets, outputs);
  if (called.failure()) return called;
  return released.failure() ? released : given_back;
}

// Name and version of the function that an op comes from: `name@version/digest...`.
std::string LabelOf(const std::string& key) { return key.substr(0, key.find('/', key.find('@'))); }

ffi::Error Execute(std::shared_ptr<Op> op, ffi::RemainingArgs args, ffi::RemainingRets rets,
                   DLDevice device, void* stream, PrivatePools* pools = nullptr) {
  GilScope gil(ThreadState::kOfTheThread);
  if (!gil.held()) {
    return ffi::Error(ffi::ErrorCode::kUnavailable,
                      LabelOf(op->key) + ": not called, the Python interpreter is shutting down");
  }
  CallsHere().xlas = gil.xlas_thread();
  if (gil.xlas_thread()) EnterThread();
  ++CallsHere().depth;
  ffi::Error error = CallTorchOnStream(*op, args, rets, device, stream, pools);
  --CallsHere().depth;
  // Only now: a failure on the way was noted under the number from before (failure_messages.py).
  CallsOfThread& calls = CallsHere();
  ++calls.count;
  calls.failed = error.failure();
  return error;
}

// In a run of many processes: what is wrong with this op in any of them; empty if nothing is.
std::string AskProcesses(const std::string& key, bool held, int64_t devices) {
  if (g_torch.agreement == nullptr) return std::string();
  GilScope gil;
  if (!gil.held()) return "the Python interpreter is shutting down";
  // It may set another one in its place.
  PyRef agreement = PyRef::Borrow(g_torch.agreement);
  PyRef text = PyRef::Steal(PyObject_CallFunction(agreement.get(), "sOL", key.c_str(),
                                                  held ? Py_True : Py_False,
                                                  static_cast<long long>(devices)));
  if (text) return TextOf(text.get());
  PyRef error = TakeRaisedException();
  PyRef words = PyRef::Steal(PyObject_Str(error.get()));
  PyErr_Clear();
  return "asking the other processes failed: " + TextOf(words.get());
}

// The op that Python plans from what an exported program says of it; null, and why in `refusal`, if
// it cannot. `op` is what the table has.
std::shared_ptr<Op> PlannedOp(const std::string& key, std::string_view recipe,
                              std::string_view steps, std::shared_ptr<Op> op,
                              std::string* refusal) {
  if (g_torch.resolver == nullptr) return op;
  GilScope gil;
  if (!gil.held()) {
    *refusal = "the Python interpreter is shutting down";
    return nullptr;
  }
  PyRef found = PyRef::Steal(PyObject_CallFunction(
      g_torch.resolver, "ss#s#O", key.c_str(), recipe.data(),
      static_cast<Py_ssize_t>(recipe.size()), steps.data(), static_cast<Py_ssize_t>(steps.size()),
      op == nullptr ? Py_False : Py_True));
  if (found && found.get() == Py_None) return op;
  if (found && PyCapsule_IsValid(found.get(), kOpCapsule)) {
    return *static_cast<std::shared_ptr<Op>*>(PyCapsule_GetPointer(found.get(), kOpCapsule));
  }
  if (found && PyUnicode_Check(found.get())) {
    *refusal = TextOf(found.get());
    return nullptr;
  }
  // Among others a program whose texts are no UTF-8.
  PyRef error = TakeRaisedException();
  PyRef words = PyRef::Steal(PyObject_Str(error ? error.get() : Py_None));
  PyErr_Clear();
  *refusal = "ExportError: planning the call of an exported program failed: " +
             (words ? TextOf(words.get()) : std::string("no words"));
  return nullptr;
}

// The op that an exported program calls, or why there is none.
std::shared_ptr<Op> ExportedOp(const std::string& key, ffi::Dictionary attributes,
                               std::string* refusal) {
  std::shared_ptr<Op> op = OpTable::FindAlike(key);
  const ffi::ErrorOr<std::string_view> recipe = attributes.get<std::string_view>("recipe");
  const ffi::ErrorOr<std::string_view> steps = attributes.get<std::string_view>("steps");
  // Programs of older versions have none.
  if (recipe.has_value() && steps.has_value()) {
    op = PlannedOp(key, *recipe, *steps, std::move(op), refusal);
  }
  // Only now: planning may have found a second one. Programs that were not exported hold the very
  // key of their op, number included.
  if (OpTable::HasDouble(key)) {
    *refusal = "ExportError: this program was exported and calls the torch function `" +
               LabelOf(key) + "`, but this process holds several that look alike (op key " + key +
               "). Give each a name of its own, jax_callable(..., name=...), and export again.";
  }
  return refusal->empty() ? op : nullptr;
}

ffi::ErrorOr<std::shared_ptr<Op>> OpOf(ffi::Dictionary attributes) {
  ffi::ErrorOr<std::string_view> key = attributes.get<std::string_view>("op");
  if (!key.has_value()) return ffi::Unexpected(key.error());
  const std::string text(*key);
  const ffi::ErrorOr<int64_t> devices = attributes.get<int64_t>("devices");
  const bool exported = attributes.get<int64_t>("exported").has_value();
  std::string refusal;
  std::shared_ptr<Op> op = exported ? ExportedOp(text, attributes, &refusal) : OpTable::Find(text);
  // Also where the op is missing: the other processes wait for the word of this one.
  const std::string disagreement =
      AskProcesses(text, op != nullptr, devices.has_value() ? *devices : 1);
  if (!refusal.empty()) {
    return ffi::Unexpected(ffi::Error(ffi::ErrorCode::kFailedPrecondition, refusal));
  }
  if (op == nullptr) {
    const std::string name = LabelOf(text);
    return ffi::Unexpected(ffi::Error(
        ffi::ErrorCode::kNotFound,
        "OpNotRegisteredError: this program calls the torch function `" + name +
            "`, which this process does not hold (op key " + text +
            "). Import the module that defines it, in the version that the program was made with" +
            (attributes.get<std::string_view>("recipe").has_value()
                 ? ", before the program runs, and keep the decorated function alive."
                 : ", and call it once with arguments of these shapes (for a gradient or a batch: "
                   "take that once), or keep the decorated function alive as long as the "
                   "program.")));
  }
  if (!disagreement.empty()) {
    return ffi::Unexpected(ffi::Error(ffi::ErrorCode::kFailedPrecondition, disagreement));
  }
  return op;
}

template <DLDeviceType kPlatform>
ffi::ErrorOr<std::unique_ptr<OpState<kPlatform>>> InstantiateImpl(ffi::Dictionary attributes) {
  ffi::ErrorOr<std::shared_ptr<Op>> op = OpOf(attributes);
  if (!op.has_value()) return ffi::Unexpected(op.error());
  auto state = std::make_unique<OpState<kPlatform>>();
  state->op = std::move(*op);
  return state;
}

template <DLDeviceType kPlatform>
XLA_FFI_Error* Instantiate(XLA_FFI_CallFrame* frame) {
  static auto* kernel =
      ffi::Ffi::BindInstantiate().Attrs().To(InstantiateImpl<kPlatform>).release();
  return kernel->Call(frame);
}

// The op is held by value: it outlives the call whatever torch does. The attributes stay there at
// execution; naming them here keeps the binding's count right.
XLA_FFI_Error* ExecuteCpu(XLA_FFI_CallFrame* frame) {
  static auto* kernel = ffi::Ffi::Bind()
                            .Ctx<ffi::State<OpState<kDLCPU>>>()
                            .RemainingArgs()
                            .RemainingRets()
                            .Attrs()
                            .To([](OpState<kDLCPU>* state, ffi::RemainingArgs args,
                                   ffi::RemainingRets rets, ffi::Dictionary) {
                              return Execute(state->op, args, rets, DLDevice{kDLCPU, 0}, nullptr);
                            })
                            .release();
  return kernel->Call(frame);
}

template <bool kRecorded>
XLA_FFI_Error* ExecuteCuda(XLA_FFI_CallFrame* frame) {
  static auto* kernel = [] {
    auto binding = ffi::Ffi::Bind()
                       .Ctx<ffi::State<OpState<kDLCUDA>>>()
                       .Ctx<ffi::PlatformStream<void*>>()
                       .Ctx<ffi::DeviceOrdinal>()
                       .RemainingArgs()
                       .RemainingRets()
                       .Attrs();
    auto run = [](OpState<kDLCUDA>* state, void* stream, int32_t ordinal, ffi::RemainingArgs args,
                  ffi::RemainingRets rets, ffi::Dictionary) {
      return Execute(state->op, args, rets, DLDevice{kDLCUDA, ordinal}, stream,
                     kRecorded ? &state->pools : nullptr);
    };
    if constexpr (kRecorded) {
      return std::move(binding).To(run, {ffi::Traits::kCmdBufferCompatible}).release();
    } else {
      return std::move(binding).To(run).release();
    }
  }();
  return kernel->Call(frame);
}

template <DLDeviceType kPlatform>
PlatformHandlers HandlersOn(XLA_FFI_Handler* execute) {
  static const XLA_FFI_TypeInfo info = ffi::MakeTypeInfo<OpState<kPlatform>>();
  return {&Instantiate<kPlatform>, execute, &OpState<kPlatform>::id, &info};
}

}  // namespace

PlatformHandlers HandlersOnCpu() { return HandlersOn<kDLCPU>(&ExecuteCpu); }

PlatformHandlers HandlersOnCuda() { return HandlersOn<kDLCUDA>(&ExecuteCuda<false>); }

PlatformHandlers HandlersOnCudaRecorded() { return HandlersOn<kDLCUDA>(&ExecuteCuda<true>); }

}  // namespace jaxtorch
