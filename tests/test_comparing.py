"""The comparer must see what it is there to see."""

import pytest
import torch
from comparing import assert_close, assert_no_missing_gradient


def test_equal_tensors_pass():
    values = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(3, 4)
    assert_close(values.clone(), values)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_one_wrong_number_fails_and_is_named(dtype, error):
    expected = torch.ones(3, 4, dtype=dtype)
    found = expected.clone()
    found[1, 2] += error
    with pytest.raises(AssertionError, match=r"off by .* at \(1, 2\)"):
        assert_close(found, expected)


def test_other_shape_fails():
    with pytest.raises(AssertionError, match="shape"):
        assert_close(torch.ones(3), torch.ones(3, 1))


def test_nan_fails():
    with pytest.raises(AssertionError, match="non-finite"):
        assert_close(torch.tensor([1.0, float("nan")]), torch.ones(2))


def test_forgotten_gradient_fails():
    with pytest.raises(AssertionError, match="all zero"):
        assert_no_missing_gradient(torch.zeros(3), torch.full((3,), 1e-8))
