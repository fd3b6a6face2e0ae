"""Every wrong argument gives one sentence that names it; the C++ entry points check for themselves too."""

import pytest
import torch

from fastpose import _native, ops

Q, K, V = torch.zeros(2, 4, 6), torch.zeros(2, 4, 5), torch.zeros(2, 3, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (([1.0], K, V), TypeError, "query: expected a torch.Tensor"),
        ((Q[0], K, V), ValueError, r"query: expected \(B, Ck, \*Sq\), got \(4, 6\)"),
        ((Q.long(), K, V), TypeError, "query: expected float32"),
        ((Q, K[:, :3], V), ValueError, "key: expected"),
        ((Q, K[:1], V[:1]), ValueError, "key: expected"),
        ((Q, K, V[..., :4]), ValueError, "value: expected"),
        ((Q, K, V.double()), TypeError, "value: expected torch.float32"),
        ((Q, K.double(), V.double()), TypeError, "key: expected torch.float32"),
        ((Q, K, V.to("meta")), ValueError, "value: expected device cpu"),
    ],
)
def test_wrong_tensors(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.nonlocal_attention(*arguments)


def test_unknown_backend_offers_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'reference'"):
        ops.nonlocal_attention(Q, K, V, backend="refrence")


def test_backend_that_cannot_serve_says_why():
    with pytest.raises(ValueError, match="backend 'cpu' cannot serve this call: it serves CPU tensors, got meta"):
        ops.nonlocal_attention(*(tensor.to("meta") for tensor in (Q, K, V)), backend="cpu")


def test_residual_arguments():
    with pytest.raises(ValueError, match="residual: expected"):
        ops.nonlocal_attention_residual(Q, K, V, torch.zeros(2, 3, 5), torch.zeros(1))
    with pytest.raises(ValueError, match="gamma: expected a tensor with one element"):
        ops.nonlocal_attention_residual(Q, K, V, torch.zeros(2, 3, 6), torch.zeros(3))


@pytest.mark.parametrize("positions", [[(5, 0)], [(-1, 0)], [(0, 2)], [0, 1], [(0.5, 0.5)]])
def test_positions_outside_or_malformed(positions):
    with pytest.raises(ValueError, match="positions: expected"):
        ops.attention_rows(torch.zeros(1, 2, 2, 5), torch.zeros(1, 2, 2, 5), positions)


def test_promise_28_extension_checks_before_it_touches_memory():
    native = _native.module().cpu
    out, lse = torch.zeros(2, 3, 6), torch.zeros(2, 6)
    for arguments in (
        (Q, K, V, out, lse[:1], 1),
        (Q, K, V, out, lse.t().contiguous().t(), 1),
        (Q, K, V, out.double(), lse, 1),
        (Q.half(), K.half(), V.half(), out.half(), lse.half(), 1),
        (Q, K, V, out[..., :5], lse, 1),
        (Q.to("meta"), K, V, out, lse, 1),
        (None, K, V, out, lse, 1),
        (torch.zeros(1, 1, 1, 1, 1, 1, 1), K, V, out, lse, 1),
    ):
        with pytest.raises(ValueError, match="expected"):
            native.attention_fwd(*arguments)
    with pytest.raises(TypeError):
        native.attention_fwd("query", K, V, out, lse, 1)


def test_explain_names_the_backend_and_the_reasons():
    assert ops.explain("nonlocal_attention", Q, K, V).chosen == "cpu"
    explanation = ops.explain("nonlocal_attention", *(tensor.to("meta") for tensor in (Q, K, V)))
    assert explanation.chosen == "reference"
    assert "not cpu: it serves CPU tensors" in str(explanation)
    with pytest.raises(ValueError, match="unknown operation 'nonlocal'"):
        ops.explain("nonlocal", Q, K, V)
