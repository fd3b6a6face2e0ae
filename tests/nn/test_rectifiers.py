"""Rectifiers against their formulas; both write over their input."""

import pytest
import torch

from fastpose.nn.rectifiers import leaky_relu, relu


@pytest.mark.parametrize(("rectifier", "slope"), [(relu, 0.0), (leaky_relu, 0.2)])
def test_rectifiers_in_place(rectifier, slope):
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0])
    expected = torch.where(x > 0, x, slope * x)
    out = rectifier()(x)
    torch.testing.assert_close(out, expected)
    assert out.data_ptr() == x.data_ptr()
