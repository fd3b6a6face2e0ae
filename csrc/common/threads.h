// How many threads the CPU kernels may run on.
#pragma once

namespace fastpose {

constexpr int most_threads = 1024;  // whatever a caller asks for: each has scratch memory of its own

// As many as wanted, or fewer: one in a process that was forked, where OpenMP would wait for threads that stayed with
// the parent, and otherwise as many as the system lets start, for OpenMP ends the process where one is refused.
int threads_to_have(int wanted);

}  // namespace fastpose
