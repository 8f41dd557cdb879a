// Freed memory stays with the process, for the next call to use.

#pragma once

namespace jaxtorch {

// Torch and XLA both take their arrays from malloc, and give them back after each call. glibc gives
// the end of its heap back to the system as soon as a quarter of a megabyte is free there, and the
// next call meets page faults in place of memory: half of the time of a gradient of small models.
// It learns better by itself, from blocks that it has mapped: once one of 32 MiB, the most that it
// learns from, has been freed, up to 64 MiB stay. So that is done here, once. Nothing of the block
// is ever touched, and who has set malloc's thresholds (`MALLOC_TRIM_THRESHOLD_`) has them kept.
// See mallopt(3) on M_MMAP_THRESHOLD.
void KeepFreedMemory();

}  // namespace jaxtorch
