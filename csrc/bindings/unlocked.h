// The interpreter's lock, given back while a kernel runs.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fastpose::bindings {

// Other Python threads run while it lives. Where the process ends meanwhile, Python ends a thread that asks for the
// lock by unwinding its stack, which would end the process at the first destructor and drop objects without the lock:
// such a thread waits here until the process is gone.
class Unlocked {
   public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    ~Unlocked() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

   private:
    PyThreadState* state_;
};

}  // namespace fastpose::bindings
