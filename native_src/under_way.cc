#include "under_way.h"

#include <atomic>

namespace jaxtorch {

namespace {

// A call counts itself before it asks whether it may, Python forbids before it counts: in one
// order for all threads, so that no call is both let in and overlooked.
std::atomic<int> g_calls{0};
std::atomic<bool> g_shut_out{false};

std::atomic<uint64_t> g_calls_xlas_threads{0};
std::atomic<int> g_ops{0};

}  // namespace

CallScope::CallScope(bool xlas_thread) : let_in_(true) {
  g_calls.fetch_add(1);
  if (!xlas_thread) return;
  g_calls_xlas_threads.fetch_add(1, std::memory_order_relaxed);
  let_in_ = !g_shut_out.load();
}

CallScope::~CallScope() { g_calls.fetch_sub(1); }

ExecutableScope::ExecutableScope() { g_ops.fetch_add(1); }

ExecutableScope::~ExecutableScope() { g_ops.fetch_sub(1); }

UnderWay CountUnderWay() {
  return {g_calls.load(), g_calls_xlas_threads.load(std::memory_order_relaxed), g_ops.load()};
}

void ShutOutXlasThreads() { g_shut_out.store(true); }

}  // namespace jaxtorch
