// What is under way: calls in all threads, and what may make more of them. Python asks when it is
// about to end, since it does not wait for XLA's threads, and one that then asks for its lock ends
// the process with an abort.
#pragma once

#include <cstdint>

namespace jaxtorch {

// One call. Made before Python's lock is taken.
class CallScope {
 public:
  explicit CallScope(bool xlas_thread);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

  // False on a thread of XLA's after `ShutOutXlasThreads`.
  bool let_in() const { return let_in_; }

 private:
  bool let_in_;
};

// One op that an executable holds, whether it runs or not. XLA keeps an executable as long as it
// runs.
class HeldOpScope {
 public:
  HeldOpScope();
  ~HeldOpScope();
  HeldOpScope(const HeldOpScope&) = delete;
  HeldOpScope& operator=(const HeldOpScope&) = delete;
};

struct UnderWay {
  int calls;       // that have begun and not ended, in all threads
  uint64_t asked;  // calls that threads of XLA's have asked for since the process began
  int ops;         // that executables hold
};
UnderWay CountUnderWay();

// From now on calls on XLA's threads are not let in. Those that were are still counted.
void ShutOutXlasThreads();

}  // namespace jaxtorch
