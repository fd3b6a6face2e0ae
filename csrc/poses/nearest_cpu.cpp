// Nearest poses on the CPU, compiled once per instruction set: distances live in registers, four rows of them at a time
// against a vector of columns, and nothing of the N x M distances is stored. The square roots are what it costs.

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/parallel.h"
#include "common/simd.h"
#include "poses/nearest.h"

#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace fastpose::poses::FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

namespace {

typedef int32_t Places __attribute__((vector_size(FASTPOSE_SIMD_BYTES)));
using Floats = Vector<float>;

constexpr int lanes = Simd<float>::lanes;
constexpr int group = 4;  // rows measured at a time: as many square roots under way
constexpr int groups_per_item = 8;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int32_t nowhere = std::numeric_limits<int32_t>::max();

FASTPOSE_INLINE Floats root(Floats value) {
#if FASTPOSE_SIMD_BYTES == 64
    return (Floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)value);  // GCC 12 warns of the plain one
#elif FASTPOSE_SIMD_BYTES == 32
    return (Floats)_mm256_sqrt_ps((__m256)value);
#elif defined(__SSE__)
    return (Floats)_mm_sqrt_ps((__m128)value);
#else
    for (int lane = 0; lane < lanes; ++lane) value[lane] = std::sqrt(value[lane]);
    return value;
#endif
}

FASTPOSE_INLINE Places places_from(int64_t first) {
    Places places{};
    for (int lane = 0; lane < lanes; ++lane) places[lane] = static_cast<int32_t>(first) + lane;
    return places;
}

FASTPOSE_INLINE bool nearer(float distance, int32_t place, float held, int32_t held_place) {
    return distance < held || (distance == held && place < held_place);
}

// The nearest found so far for each of some poses; one worker's own.
struct Found {
    float* distance;
    int32_t* place;

    void begin(int64_t count) const {
        std::fill(distance, distance + count, infinity);
        std::fill(place, place + count, nowhere);
    }
    FASTPOSE_INLINE void take(int64_t i, float other, int32_t other_place) const {
        if (!nearer(other, other_place, distance[i], place[i])) return;
        distance[i] = other;
        place[i] = other_place;
    }
    // As many neighbouring poses as a vector has lanes.
    FASTPOSE_INLINE void take(int64_t j, Floats other, Places other_places) const {
        const Floats held = load(distance + j);
        Places held_places;
        std::memcpy(&held_places, place + j, sizeof(held_places));
        const Places better = (other < held) | ((other == held) & (other_places < held_places));
        store(distance + j, better ? other : held);
        held_places = better ? other_places : held_places;
        std::memcpy(place + j, &held_places, sizeof(held_places));
    }
};

int64_t padded(int64_t count) { return (count + lanes - 1) / lanes * lanes; }

// (joints, 2, padded) of (count, joints, 2); what is added is infinitely far away.
void to_planes(const float* poses, int64_t count, int64_t joints, float* planes) {
    const int64_t width = padded(count);
    std::fill(planes, planes + 2 * joints * width, infinity);
    for (int64_t i = 0; i < count; ++i)
        for (int64_t k = 0; k < 2 * joints; ++k) planes[k * width + i] = poses[i * 2 * joints + k];
}

class Measured {
   public:
    Measured(const Sweep& p, const float* planes) : p_(p), planes_(planes), width_(padded(p.column_count)) {}

    // Rows `first` to `first + group`; of the last group the rows that are not there repeat the last one. A worker's
    // `columns` take in what they are to columns, where they are kept; `rows(i, distance, place)` what they are to
    // rows.
    template <class Rows>
    void measure(int64_t first, const Found* columns, const Rows& rows) const {
        Floats best[group];
        Places best_places[group];
        const float* pose[group];
        for (int r = 0; r < group; ++r) {
            best[r] = broadcast(infinity);
            best_places[r] = Places{} + nowhere;
            pose[r] = p_.rows + row(first, r) * 2 * p_.joints;
        }
        for (int64_t j = p_.one_set ? first / lanes * lanes : 0; j < width_; j += lanes) {
            Floats sum[group];
            distances(pose, j, sum);
            const Places places = places_from(j);
            if (p_.leave_out && j < first + group && first < j + lanes)
                for (int r = 0; r < group; ++r)
                    sum[r] = places == static_cast<int32_t>(row(first, r)) ? broadcast(infinity) : sum[r];
            for (int r = 0; r < group; ++r) {
                const Places better = sum[r] < best[r];
                best[r] = better ? sum[r] : best[r];
                best_places[r] = better ? places : best_places[r];
            }
            if (columns) columns->take(j, lowest(sum), lowest_rows(first, sum));
        }
        for (int r = 0; r < group && first + r < p_.row_count; ++r) reduce(best[r], best_places[r], first + r, rows);
    }

   private:
    int64_t row(int64_t first, int r) const { return std::min(first + r, p_.row_count - 1); }

    FASTPOSE_INLINE void distances(const float* const* pose, int64_t j, Floats* sum) const {
        for (int r = 0; r < group; ++r) sum[r] = Floats{};
        const float* at = planes_ + j;
        for (int64_t k = 0; k < 2 * p_.joints; k += 2, at += 2 * width_) {
            const Floats x = load(at), y = load(at + width_);
            for (int r = 0; r < group; ++r) {
                const Floats across = pose[r][k] - x, down = pose[r][k + 1] - y;
                sum[r] += root(across * across + down * down);
            }
        }
    }
    FASTPOSE_INLINE static Floats lowest(const Floats* sum) {
        Floats low = sum[0];
        for (int r = 1; r < group; ++r) low = sum[r] < low ? sum[r] : low;
        return low;
    }
    FASTPOSE_INLINE Places lowest_rows(int64_t first, const Floats* sum) const {
        Floats low = sum[0];
        Places rows = Places{} + static_cast<int32_t>(first);
        for (int r = 1; r < group; ++r) {
            const Places better = sum[r] < low;
            low = better ? sum[r] : low;
            rows = better ? Places{} + static_cast<int32_t>(row(first, r)) : rows;
        }
        return rows;
    }
    template <class Rows>
    static void reduce(Floats best, Places places, int64_t i, const Rows& rows) {
        float distance = best[0];
        int32_t place = places[0];
        for (int lane = 1; lane < lanes; ++lane)
            if (nearer(best[lane], places[lane], distance, place)) {
                distance = best[lane];
                place = places[lane];
            }
        rows(i, distance, place);
    }

    const Sweep& p_;
    const float* planes_;
    int64_t width_;
};

void write(const Sweep& p, const Nearest& to, int64_t i, float distance, int32_t place) {
    to.distance[i] = distance;
    // Where all are infinitely far away, as numbers near the largest one are, it is the first all the same.
    to.index[i] = distance < infinity ? place : p.leave_out && i == 0;
}

}  // namespace

void nearest(const Sweep& p, int threads) {
    const int64_t width = padded(p.column_count), rows_per_item = group * groups_per_item;
    const int64_t items = (p.row_count + rows_per_item - 1) / rows_per_item;
    threads = static_cast<int>(std::clamp<int64_t>(items, 1, threads));
    const bool keeps_columns = p.one_set || p.column_nearest.distance;
    Scratch<float> planes(2, p.joints, width), held(keeps_columns ? threads : 0, width);
    Scratch<int32_t> places(keeps_columns ? threads : 0, width);
    to_planes(p.columns, p.column_count, p.joints, planes.data());
    const auto found_by = [&](int worker) {
        return Found{held.data() + worker * width, places.data() + worker * width};
    };
    for (int worker = 0; keeps_columns && worker < threads; ++worker) found_by(worker).begin(width);

    const Measured measured(p, planes.data());
    parallel_for(threads, items, [&](int64_t item, int worker) {
        const Found own = found_by(worker);
        const int64_t end = std::min(p.row_count, (item + 1) * rows_per_item);
        for (int64_t first = item * rows_per_item; first < end; first += group)
            measured.measure(first, keeps_columns ? &own : nullptr, [&](int64_t i, float distance, int32_t place) {
                if (p.one_set)
                    own.take(i, distance, place);
                else
                    write(p, p.row_nearest, i, distance, place);
            });
    });
    if (!keeps_columns) return;
    const Found all = found_by(0);
    const Nearest& to = p.one_set ? p.row_nearest : p.column_nearest;
    for (int64_t j = 0; j < p.column_count; ++j) {
        for (int worker = 1; worker < threads; ++worker)
            all.take(j, found_by(worker).distance[j], found_by(worker).place[j]);
        write(p, to, j, all.distance[j], all.place[j]);
    }
}

}  // namespace fastpose::poses::FASTPOSE_SIMD
