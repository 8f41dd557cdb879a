// Freed memory stays with the process, for the next call to use.
#pragma once

namespace jaxtorch {

// Torch and XLA both take their arrays from malloc, and give them back after each call. glibc gives
// the end of its heap back to the system as soon as a quarter of a megabyte is free there, and the
// next call meets page faults in place of memory: a third of the time of a gradient of ResNet-18.
// From now on a 32nd of the machine's memory may stay, between 64 MiB and 1 GiB, and blocks of up
// to 32 MiB come from the heap, as they do anyway once one of that size was freed. Does nothing
// where somebody has set malloc's thresholds in the environment. See mallopt(3).
void KeepFreedMemory();

}  // namespace jaxtorch
