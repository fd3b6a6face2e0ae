// Nearest neighbours among poses. Two poses are as far apart as their joints are together: the sum over the joints of
// the Euclidean distances.
#pragma once

#include <cstdint>

#include "common/cpu_level.h"

namespace fastpose::poses {

// For each pose of a set how far the nearest one found is, and which it is. Of equally near ones it is the first.
struct Nearest {
    float* distance = nullptr;
    int64_t* index = nullptr;
};

// Poses are rows of `joints` points (x, y), contiguous; at least one column is there, two where one is left out.
struct Sweep {
    int64_t joints, row_count, column_count;
    const float *rows, *columns;
    bool one_set;            // rows and columns are the same: each pair is measured once
    bool leave_out;          // pose i of both is one, and no neighbour
    Nearest row_nearest;     // always written
    Nearest column_nearest;  // where it is asked for; never with one set
};

FASTPOSE_EACH_LEVEL(void nearest(const Sweep& p, int threads);)

inline void nearest(CpuLevel level, const Sweep& p, int threads) { FASTPOSE_AT_LEVEL(level, nearest(p, threads)); }

}  // namespace fastpose::poses
