// Scratch memory of the CPU kernels, in pieces. The unnamed namespace is meant, as in parallel.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastpose {
namespace {

constexpr int64_t divide_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }
constexpr int64_t round_up(int64_t count, int64_t unit) { return divide_up(count, unit) * unit; }

// Scratch memory handed out piece by piece, on cache lines; a null start only measures.
class Arena {
   public:
    explicit Arena(void* start) : start_(static_cast<std::byte*>(start)) {}
    template <class T>
    T* take(int64_t count) {
        std::byte* piece = start_ ? start_ + used_ : nullptr;
        used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
        return reinterpret_cast<T*>(piece);
    }
    int64_t used() const { return used_; }

   private:
    std::byte* start_;
    int64_t used_ = 0;
};

// The bytes of what `Pieces(size, arena)` takes.
template <class Pieces, class Size>
int64_t scratch_bytes(const Size& size) {
    Arena measure(nullptr);
    Pieces(size, measure);
    return measure.used();
}

}  // namespace
}  // namespace fastpose
