"""How close a backend must be to the reference: one table, with the reason beside each number.

Errors are relative to the largest number of the expected tensor. float64 checks the formulae; float32 and the 16-bit
types check the rounding, which grows with the length of the sums.
"""

import torch

RELATIVE = {
    torch.float64: 1e-11,  # sums of a few thousand terms
    torch.float32: 2e-5,  # the same, in single precision
    torch.bfloat16: 2e-2,  # 8 bits of mantissa: inputs, intermediate gradients and results are each rounded
    torch.float16: 3e-3,  # 11 bits
}
SECOND_ORDER = 10.0  # double backward subtracts numbers of equal size
