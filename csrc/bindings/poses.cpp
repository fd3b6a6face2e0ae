// Nearest neighbours among poses: unpacks tensors, checks them and calls the kernel.

#include "bindings/calls.h"
#include "poses/nearest.h"

namespace fastpose::bindings {
namespace {

const float* read_poses(const char* name, const TensorView& poses, int64_t joints) {
    require(name, poses);
    check_tensor(Cpu(poses), name, poses, DType::float32, {-1, joints, 2});
    check_contiguous(name, poses);
    if (poses.size[0] >= int64_t{1} << 31)
        throw std::invalid_argument(std::string(name) + ": expected fewer than 2**31 poses");
    return static_cast<const float*>(poses.data);
}

poses::Nearest results(const TensorView& distance, const TensorView& index, int64_t count) {
    if (!distance) return {};
    require("index", index);
    check_tensor(Cpu(distance), "distance", distance, DType::float32, {count});
    check_tensor(Cpu(index), "index", index, DType::int64, {count});
    check_contiguous("distance", distance);
    check_contiguous("index", index);
    return {static_cast<float*>(distance.data), static_cast<int64_t*>(index.data)};
}

// One set where `columns` is None; the last two tensors are None where nobody asks for the columns' nearest rows.
void nearest_poses(const TensorView& rows, const TensorView& columns, bool leave_out, const TensorView& distance,
                   const TensorView& index, const TensorView& column_distance, const TensorView& column_index,
                   int threads) {
    const TensorView& others = columns ? columns : rows;
    const float* first = read_poses("rows", rows, -1);
    const float* second = read_poses("columns", others, rows.size[1]);
    require("distance", distance);
    if (others.size[0] < 1 + leave_out) throw std::invalid_argument("columns: expected another pose to be near");
    const poses::Sweep sweep{rows.size[1],
                             rows.size[0],
                             others.size[0],
                             first,
                             second,
                             !columns,
                             leave_out,
                             results(distance, index, rows.size[0]),
                             columns ? results(column_distance, column_index, columns.size[0]) : poses::Nearest{}};
    const Unlocked unlocked;
    poses::nearest(cpu_level(), sweep, Cpu(rows).place(threads));
}

}  // namespace

void bind_poses(py::module_& module) { module.def("nearest_poses", &nearest_poses); }

}  // namespace fastpose::bindings
