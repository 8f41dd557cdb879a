#include "stream_scope.h"

#include <unordered_map>

namespace jaxtorch {
namespace {

constexpr unsigned int kDisableTiming = 2;  // cudaEventDisableTiming

// One pair of events for each device and thread: recorded and waited for in one go, so free again.
// They are never destroyed: a thread may end after CUDA has.
struct Events {
  void* before = nullptr;
  void* after = nullptr;
};

Events& EventsOf(int32_t device) {
  thread_local std::unordered_map<int32_t, Events> events;
  return events[device];
}

// What is queued on `second` from now on waits for what `first` has. False with an exception set.
bool Order(void* first, void* second, void** event, const char* what) {
  const StreamFunctions& cuda = g_torch.streams;
  int error = *event == nullptr ? cuda.make_event(event, kDisableTiming) : 0;
  if (error == 0) error = cuda.record_event(*event, first);
  if (error == 0) error = cuda.wait_for_event(second, *event, 0);
  if (error == 0) return true;
  PyErr_Format(PyExc_RuntimeError, "CUDA error %d, in having %s", error, what);
  return false;
}

bool Failed(int32_t error, const char* what) {
  if (error == 0) return false;
  PyErr_Format(PyExc_RuntimeError, "torch error %d, in %s", static_cast<int>(error), what);
  return true;
}

}  // namespace

TorchStreamScope::TorchStreamScope(DLDevice device, void* stream, StreamOrder order) {
  if (device.device_type != kDLCUDA) return;
  if (g_torch.streams.known()) {
    EnterDirectly(device.device_id, stream, order);
    return;
  }
  token_ = PyRef::Steal(PyObject_CallFunction(
      g_torch.enter_stream, "KiO",
      static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(stream)), device.device_id,
      order == StreamOrder::kWithTorch ? Py_True : Py_False));
  ok_ = static_cast<bool>(token_);
}

TorchStreamScope::~TorchStreamScope() {
  if (guard_ != nullptr) LeaveDirectly();
  if (!token_) return;
  PyRef left = PyRef::Steal(PyObject_CallOneArg(g_torch.leave_stream, token_.get()));
  if (!left) PyErr_WriteUnraisable(g_torch.leave_stream);
}

void TorchStreamScope::EnterDirectly(int32_t device, void* stream, StreamOrder order) {
  const StreamFunctions& cuda = g_torch.streams;
  stream_ = stream;
  device_ = device;
  void* own = nullptr;
  ok_ = !Failed(cuda.current_stream(device, &own), "asking for torch's current stream") &&
        // It makes the device the current one as well, which events are made on.
        !Failed(cuda.make_guard(stream, device, &guard_), "going to XLA's stream");
  if (!ok_ || own == stream || order == StreamOrder::kAlone) return;
  own_ = own;
  // An idle stream has nothing to wait for. Whatever else is wrong with it, CUDA says again.
  if (cuda.stream_query(own) == 0) return;
  ok_ = Order(own, stream, &EventsOf(device).before, "XLA's stream wait for torch's");
}

void TorchStreamScope::LeaveDirectly() {
  // What the call itself has raised is not lost.
  PyRef raised = TakeRaisedException();
  if (ok_ && own_ != nullptr &&
      !Order(stream_, own_, &EventsOf(device_).after, "torch's stream wait for XLA's")) {
    PyErr_WriteUnraisable(nullptr);
  }
  if (Failed(g_torch.streams.drop_guard(guard_), "going back to torch's stream")) {
    PyErr_WriteUnraisable(nullptr);
  }
  RestoreException(std::move(raised));
}

}  // namespace jaxtorch
