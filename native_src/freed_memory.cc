#include "freed_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace jaxtorch {

namespace {

constexpr long kShare = 32;
constexpr long kLeastBytes = 64L << 20;
constexpr long kMostBytes = 1L << 30;
constexpr int kFromHeapBytes = 32 << 20;  // glibc takes no more

bool SetByTheUser() {
  for (const char* name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_",
                           "MALLOC_MMAP_MAX_"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  const char* tunables = std::getenv("GLIBC_TUNABLES");
  return tunables != nullptr && std::strstr(tunables, "glibc.malloc.") != nullptr;
}

}  // namespace

void KeepFreedMemory() {
#ifdef __GLIBC__
  if (SetByTheUser()) return;
  const long bytes = sysconf(_SC_PHYS_PAGES) / kShare * sysconf(_SC_PAGE_SIZE);
  mallopt(M_TRIM_THRESHOLD, static_cast<int>(std::clamp(bytes, kLeastBytes, kMostBytes)));
  // The first call keeps glibc from finding this one by itself.
  mallopt(M_MMAP_THRESHOLD, kFromHeapBytes);
#endif
}

}  // namespace jaxtorch
