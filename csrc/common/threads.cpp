#include "common/threads.h"

#include <atomic>
#include <exception>
#include <latch>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace fastpose {
namespace {

std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int watched = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
#endif

// Of so many threads, this one among them, those that the system lets live at once. OpenMP then gets as many.
int try_threads(int wanted) {
    std::latch tried(1);
    std::vector<std::thread> others;
    try {
        others.reserve(wanted);
        while (static_cast<int>(others.size()) + 1 < wanted) others.emplace_back([&tried] { tried.wait(); });
    } catch (const std::exception&) {  // no more threads, or no memory for them
    }
    tried.count_down();
    for (std::thread& other : others) other.join();
    return static_cast<int>(others.size()) + 1;
}

}  // namespace

int threads_to_have(int wanted) {
    // OpenMP keeps a set of threads for each thread that calls it. Some end those that a smaller call has no use for:
    // where the system refuses them to the next larger call, the process ends all the same.
    thread_local int asked = 1, had = 1;
    if (forked.load(std::memory_order_relaxed)) return 1;
    if (wanted > asked) {
        asked = wanted;
        had = try_threads(wanted);
    }
    return wanted < had ? wanted : had;
}

}  // namespace fastpose
