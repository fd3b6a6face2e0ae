"""How the extension reads tensors: plain ones through DLPack's table, others through their Python attributes."""

import pytest
import torch

from fastpose import _native, ops

if _native.missing():
    pytest.skip(_native.missing(), allow_module_level=True)
cpu = _native.module().cpu


class Special(torch.Tensor):
    """Read through its attributes, as every tensor is where torch has no table that we know."""


LAYOUTS = {
    "contiguous": lambda x: x,
    "turned": lambda x: x.mT.contiguous().mT,
    "offset": lambda x: torch.cat((x, x), dim=1)[:, x.shape[1] :],
    "expanded": lambda x: x[:, :1].expand_as(x),
    "reversed batch": lambda x: x.flip(0),
    "parameter": torch.nn.Parameter,
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_ways_of_reading_find_the_same_tensor(layout, dtype):
    joints = LAYOUTS[layout](torch.randn(3, 4, 2).to(dtype)).detach()
    plain, special = (torch.empty(joints.shape[0], 4, 4, 4, dtype=dtype) for _ in range(2))
    cpu.descriptor_fwd(joints, plain, 1)
    cpu.descriptor_fwd(joints.as_subclass(Special), special.as_subclass(Special), 1)
    assert torch.equal(plain, special)
    assert torch.equal(plain[:, :2], joints.mT[..., None] - joints.mT[..., None, :])


@pytest.mark.parametrize(
    ("joints", "sentence"),
    [
        (torch.zeros(1, 4, 3, device="meta"), "joints: expected a CPU tensor"),
        (torch.zeros(1, 4, 3, dtype=torch.int64), "joints: expected float32 or 16 bits, got int64"),
        (torch.zeros(1, 4, 3, dtype=torch.cfloat), "joints: expected float32 or 16 bits, got another dtype"),
        (torch.zeros(1, 1, 1, 1, 1, 4, 3), "tensor: expected at most 6 dimensions, got 7"),
        (torch.zeros(4, 3), r"joints: expected \(-1, -1, -1\), got \(4, 3\)"),
    ],
    ids=["meta", "int64", "complex", "rank 7", "rank 2"],
)
def test_promise_28_what_a_kernel_does_not_take_has_one_sentence_either_way(joints, sentence):
    for tensor in (joints, joints.as_subclass(Special)):
        with pytest.raises(ValueError, match=sentence):
            cpu.descriptor_fwd(tensor, torch.empty(1, 6, 4, 4), 1)


def freed() -> torch.Tensor:
    joints = torch.zeros(1, 4, 3)
    joints.untyped_storage().resize_(0)
    return joints


MEMORYLESS = {
    "freed": freed,
    "zeros": lambda: torch._efficientzerotensor((1, 4, 3)),
    "functional": lambda: torch._to_functional_tensor(torch.zeros(1, 4, 3)),
}


@pytest.mark.parametrize("kind", MEMORYLESS)
def test_promise_28_a_tensor_without_memory_is_refused(kind):
    joints = MEMORYLESS[kind]()
    with pytest.raises(ValueError, match="tensor: expected one with memory"):
        cpu.descriptor_fwd(joints, torch.empty(1, 6, 4, 4), 1)
    with pytest.raises(ValueError, match="tensor: expected one with memory"):
        ops.pairwise_descriptor(joints)


NOT_DENSE = {
    "torch.sparse_coo": lambda: torch.ones(1, 3, 2).to_sparse(),
    "torch.sparse_csr": lambda: torch.ones(1, 3, 2).to_sparse_csr(),
    "torch._mkldnn": lambda: torch.ones(1, 3, 2).to_mkldnn(),
    "a nested one": lambda: torch.nested.nested_tensor([torch.ones(3, 2)]),
}


@pytest.mark.filterwarnings("ignore")  # of torch: both kinds are young
@pytest.mark.parametrize("kind", NOT_DENSE)
def test_promise_28_an_operation_asks_for_dense_tensors(kind):
    with pytest.raises(TypeError, match=f"joints: expected a dense tensor .* got {kind}"):
        ops.pairwise_descriptor(NOT_DENSE[kind]())


def test_promise_28_a_sparse_tensor_is_refused():
    with pytest.raises((RuntimeError, NotImplementedError), match=r"stride|storage"):
        cpu.descriptor_fwd(torch.eye(3).to_sparse()[None], torch.empty(1, 6, 3, 3), 1)
