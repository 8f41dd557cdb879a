// The table of torch ops that XLA executables may call, keyed by stable strings.
//
// The table itself owns nothing. An op is owned by the Python callable whose plan made it
// (through the capsule that `register_op` returns) and by every executable that calls it
// (through the state made in the FFI instantiate stage), and goes when the last of them goes.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dlpack_abi.h"
#include "python_ref.h"
#include "stream_scope.h"

namespace jaxtorch {

struct Op {
  Op() = default;
  ~Op();  // takes the GIL itself
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  std::string key;
  // `run(*tensors)` -> a tensor, tuple or list. Called where the thread's torch context is the
  // plan's; `run_in_context` first sets that context and is called everywhere else. Behind the
  // inputs come tensors over the result buffers named in `into`.
  PyRef run;
  PyRef run_in_context;
  // `fault(kind, index, payload)` -> str: words for a failure, see
  // torchside/handler/failure_messages.py.
  PyRef fault;
  // What the function closes over; tells ops of one callable from those of others.
  PyRef closure;
  // What torch returns, by plan, before any conversion to XLA's dtype.
  std::vector<DLDataType> output_dtypes;
  // Results that `run` writes into XLA's buffers itself, ascending. A hope, not a promise: what it
  // returns from memory of its own is copied.
  std::vector<size_t> into;
  // Inputs that `run` writes to, each with the result that is its new value: one buffer of XLA's.
  std::vector<std::pair<size_t, size_t>> aliases;
  bool grad_enabled = true;
  // Autograd may keep an input alive in C++ alone, where no Python search finds it: keep a
  // handle to each input's storage so that it can still be cut off from XLA's memory.
  bool hold_storages = false;
  // How it is ordered with torch's own stream. The plan knows what touches XLA's buffers alone.
  StreamOrder order = StreamOrder::kWithTorch;
  // A result may carry a pending conjugation or negation. The plan knows where none can.
  bool may_be_lazy = true;
};

// The name of capsules that own an op: they hold a `std::shared_ptr<Op>*`.
inline constexpr char kOpCapsule[] = "jaxtorch_bridge.op";

class OpTable {
 public:
  // Null when a live op already has this key.
  static std::shared_ptr<Op> Insert(const std::string& key);
  static std::shared_ptr<Op> Find(const std::string& key);
  static std::vector<std::string> Keys();
  // The op with this key, or one that has it but for the numbers after `~`.
  static std::shared_ptr<Op> FindAlike(const std::string& key);
  // Whether live ops of several functions share the key of the function that `key` comes from.
  static bool HasDouble(const std::string& key);

 private:
  friend struct Op;
  static void Forget(const std::string& key);
};

}  // namespace jaxtorch
