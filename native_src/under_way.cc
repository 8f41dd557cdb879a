#include "under_way.h"

#include <atomic>

namespace jaxtorch {

namespace {

// A call adds itself to `g_calls` before it reads `g_shut_out`; who ends Python sets that before it
// reads `g_calls`. In one order for all threads, so no call is both let in and overlooked.
std::atomic<int> g_calls{0};
std::atomic<bool> g_shut_out{false};

std::atomic<uint64_t> g_asked{0};
std::atomic<int> g_ops{0};

}  // namespace

CallScope::CallScope(bool xlas_thread) : let_in_(true) {
  g_calls.fetch_add(1);
  if (!xlas_thread) return;
  g_asked.fetch_add(1, std::memory_order_relaxed);
  let_in_ = !g_shut_out.load();
}

CallScope::~CallScope() { g_calls.fetch_sub(1); }

HeldOpScope::HeldOpScope() { g_ops.fetch_add(1); }

HeldOpScope::~HeldOpScope() { g_ops.fetch_sub(1); }

UnderWay CountUnderWay() {
  return {g_calls.load(), g_asked.load(std::memory_order_relaxed), g_ops.load()};
}

void ShutOutXlasThreads() { g_shut_out.store(true); }

}  // namespace jaxtorch
