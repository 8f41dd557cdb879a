#include "freed_memory.h"

#include <cstdlib>

namespace jaxtorch {

namespace {

// A little less than 32 MiB: malloc adds its header and rounds up to pages.
constexpr size_t kMostLearnedFrom = (32 << 20) - (64 << 10);

}  // namespace

void KeepFreedMemory() {
#ifdef __GLIBC__
  // Volatile: otherwise the compiler leaves both calls out.
  void* volatile block = std::malloc(kMostLearnedFrom);
  std::free(block);
#endif
}

}  // namespace jaxtorch
