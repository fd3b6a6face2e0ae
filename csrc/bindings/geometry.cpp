// The pairwise descriptor: each function unpacks tensors, checks them and calls the kernel.

#include "geometry/geometry.h"

#include "bindings/direct.h"

namespace fastpose::bindings {
namespace {

template <class T>
auto kernels(const Cpu&) {
    return geometry::kernels<T>(cpu_level());
}
#ifdef FASTPOSE_WITH_CUDA
template <class T>
auto kernels(const Cuda&) {
    return geometry::cuda::kernels<T>();
}
#endif

// Sizes and the one element type of a call; each check names the argument.
template <class Target>
struct DescriptorCall {
    Target target;
    geometry::Sizes size;
    DType arithmetic, element;

    explicit DescriptorCall(const TensorView& joints)
        : target(joints), arithmetic(arithmetic_of("joints", joints)), element(joints.dtype) {
        check_shape("joints", joints, {-1, -1, -1});
        target.check("joints", joints);
        size = {joints.size[0], joints.size[1], joints.size[2]};
    }
    void check_pairs(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check_tensor(target, name, tensor, element, {size.batch, 2 * size.dimensions, size.points, size.points});
    }
    void check_joints(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check_tensor(target, name, tensor, element, {size.batch, size.points, size.dimensions});
    }
};

geometry::Points points(const TensorView& view) {
    return {view.data, view.dtype, view.stride[0], view.stride[1], view.stride[2]};
}
geometry::Pairs pairs(const TensorView& view) {
    return {view.data, view.dtype, view.stride[0], view.stride[1], view.stride[2], view.stride[3]};
}

template <class Target>
void descriptor_fwd(const TensorView& joints, const TensorView& out, typename Target::Where where) {
    const DescriptorCall<Target> call(joints);
    call.check_pairs("out", out);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target).forward({call.size, points(joints), pairs(out)}, call.target.place(where));
    });
}

template <class Target>
void descriptor_bwd(const TensorView& joints, const TensorView& grad_out, const TensorView& grad_joints,
                    typename Target::Where where) {
    const DescriptorCall<Target> call(joints);
    call.check_pairs("grad_out", grad_out);
    call.check_joints("grad_joints", grad_joints);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .backward({call.size, points(joints), pairs(grad_out), points(grad_joints)}, call.target.place(where));
    });
}

template <class Target>
void descriptor_bwd2(const TensorView& joints, const TensorView& grad_out, const TensorView& cot_joints,
                     const TensorView& grad_joints, const TensorView& grad_grad_out, typename Target::Where where) {
    const DescriptorCall<Target> call(joints);
    call.check_pairs("grad_out", grad_out);
    call.check_joints("cot_joints", cot_joints);
    call.check_joints("grad_joints", grad_joints);
    call.check_pairs("grad_grad_out", grad_grad_out);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .double_backward({call.size, points(joints), pairs(grad_out), points(cot_joints), points(grad_joints),
                              pairs(grad_grad_out)},
                             call.target.place(where));
    });
}

py::object direct_descriptor(py::handle joints) {
    Direct call;
    const TensorView view = call.tensor(joints);
    call.expect(view.rank == 3 && (view.size[2] == 2 || view.size[2] == 3) && is_element(view.dtype));
    if (!call) return py::none();
    const Fresh out = empty(joints, view, view.dtype, {view.size[0], 2 * view.size[2], view.size[1], view.size[1]});
    descriptor_fwd<Cpu>(view, out.view, direct_threads());
    return out.tensor;
}

}  // namespace

void bind_direct_geometry(py::module_& module) { module.def("pairwise_descriptor", direct(&direct_descriptor)); }

template <class Target>
void bind_geometry(py::module_& module) {
    module.def("descriptor_fwd", &descriptor_fwd<Target>);
    module.def("descriptor_bwd", &descriptor_bwd<Target>);
    module.def("descriptor_bwd2", &descriptor_bwd2<Target>);
}
template void bind_geometry<Cpu>(py::module_&);
#ifdef FASTPOSE_WITH_CUDA
template void bind_geometry<Cuda>(py::module_&);
#endif

}  // namespace fastpose::bindings
