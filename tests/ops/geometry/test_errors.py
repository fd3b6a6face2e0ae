"""Every wrong argument gives one sentence that names it; the C++ entry points check for themselves too."""

import pytest
import torch

from fastpose import _native, ops

JOINTS = torch.zeros(2, 4, 3)


@pytest.mark.parametrize(
    ("joints", "error", "sentence"),
    [
        ([[0.0]], TypeError, "joints: expected a torch.Tensor"),
        (JOINTS[0], ValueError, r"joints: expected \(B, P, D\), got \(4, 3\)"),
        (torch.zeros(2, 4, 4), ValueError, "joints: expected .* D = 2 or 3"),
        (JOINTS.long(), TypeError, "joints: expected float32"),
    ],
)
def test_wrong_joints(joints, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.pairwise_descriptor(joints)


def test_backend_that_cannot_serve_says_why():
    with pytest.raises(ValueError, match="backend 'cpu' cannot serve this call: it serves CPU tensors, got meta"):
        ops.pairwise_descriptor(JOINTS.to("meta"), backend="cpu")
    assert ops.explain("pairwise_descriptor", JOINTS).chosen == "cpu"


def test_promise_28_extension_checks_before_it_touches_memory():
    native = _native.module().cpu
    out = torch.zeros(2, 6, 4, 4)
    native.descriptor_fwd(JOINTS, out, 1)
    for joints, result in (
        (JOINTS[:1], out),
        (JOINTS, out[:, :5]),
        (JOINTS.half(), out),
        (JOINTS, out.double()),
        (JOINTS.to("meta"), out),
        (None, out),
        (JOINTS, None),
    ):
        with pytest.raises(ValueError, match="expected"):
            native.descriptor_fwd(joints, result, 1)
    with pytest.raises(ValueError, match="cot_joints: expected a tensor"):
        native.descriptor_bwd2(JOINTS, out, None, JOINTS.clone(), out.clone(), 1)
