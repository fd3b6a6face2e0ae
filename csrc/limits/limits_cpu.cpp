#include "common/parallel.h"
#include "common/simd.h"
#include "limits/limits.h"

namespace fastpose::limits::FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

double multiply_add(int64_t steps, int threads) {
    constexpr int chains = 12;  // enough to cover the latency of two units
    constexpr int lanes = Simd<float>::lanes;
    parallel_for(threads, threads, [&](int64_t, int) {
        Vector<float> sums[chains];
        for (int c = 0; c < chains; ++c) sums[c] = broadcast(1e-3f * static_cast<float>(c));
        const Vector<float> factor = broadcast(0.999f), term = broadcast(1e-6f);
        for (int64_t step = 0; step < steps; ++step)
            for (int c = 0; c < chains; ++c) sums[c] = sums[c] * factor + term;
        Vector<float> total{};
        for (int c = 0; c < chains; ++c) total += sums[c];
        volatile float kept = total[0];
        static_cast<void>(kept);
    });
    return 2.0 * chains * lanes * static_cast<double>(steps) * threads;
}

}  // namespace fastpose::limits::FASTPOSE_SIMD
