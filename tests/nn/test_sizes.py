"""What image-to-image networks refuse, in one sentence each."""

import pytest
import torch

from fastpose.nn.sizes import check_counts, check_maps, check_normed, check_pair


@pytest.mark.parametrize(
    ("image", "poses", "sentence"),
    [
        (
            (2, 3, 17, 8),
            (2, 5, 17, 8),
            "image: .* divisible by 8, got 17 x 8; pad or resize image and poses to 24 x 8$",
        ),
        ((2, 3, 8, 0), (2, 5, 8, 0), "image: .* divisible by 8, got 8 x 0; pad or resize image and poses to 8 x 8$"),
        ((2, 4, 8, 8), (2, 5, 8, 8), r"image: expected \(B, 3, H, W\) = \(any, 3, any, any\), got \(2, 4, 8, 8\)$"),
        ((3, 8, 8), (5, 8, 8), r"image: expected \(B, 3, H, W\) = \(any, 3, any, any\), got \(3, 8, 8\)$"),
        ((2, 3, 8, 8), (2, 4, 8, 8), r"poses: expected \(B, 5, H, W\) = \(2, 5, 8, 8\), got \(2, 4, 8, 8\)$"),
        ((2, 3, 8, 8), (1, 5, 8, 8), r"poses: expected \(B, 5, H, W\) = \(2, 5, 8, 8\), got \(1, 5, 8, 8\)$"),
        ((2, 3, 8, 8), (2, 5, 8, 16), r"poses: expected \(B, 5, H, W\) = \(2, 5, 8, 8\), got \(2, 5, 8, 16\)$"),
    ],
)
def test_a_pair_that_does_not_fit(image, poses, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        check_pair(torch.zeros(image), torch.zeros(poses), (3, 5), 8)


@pytest.mark.parametrize(("image", "poses"), [((1, 3, 8, 16), (1, 5, 8, 16)), ((0, 3, 8, 8), (0, 5, 8, 8))])
def test_a_pair_that_fits(image, poses):
    check_pair(torch.zeros(image), torch.zeros(poses), (3, 5), 8)


def test_what_is_no_tensor_of_numbers():
    good = torch.zeros(1, 3, 8, 8)
    with pytest.raises(TypeError, match=r"poses: expected a torch.Tensor .*, got list"):
        check_pair(good, [1.0], (3, 5), 8)
    with pytest.raises(TypeError, match=r"maps: expected float32, .* got torch.uint8"):
        check_maps("maps", good.to(torch.uint8), 3, 5)


def test_maps_below_the_smallest_size():
    check_maps("maps", torch.zeros(1, 3, 5, 9), 3, 5)
    with pytest.raises(ValueError, match=r"^maps: expected height and width of at least 5, got 9 x 4$"):
        check_maps("maps", torch.zeros(1, 3, 9, 4), 3, 5)
    with pytest.raises(ValueError, match=r"^maps: expected \(B, 3, H, W\) = "):
        check_maps("maps", torch.zeros(1, 2, 9, 9), 3, 5)


@pytest.mark.parametrize(
    ("size", "norm", "training", "sentence"),
    [
        ((2, 3, 8, 8), "instance", True, "for the instance norm, got 8 x 8"),
        ((1, 3, 8, 8), "instance", False, "for the instance norm, got 8 x 8"),
        ((1, 3, 8, 8), "batch", True, "or two in a batch, to train batch norms, got one of 8 x 8"),
    ],
)
def test_maps_with_one_value_to_normalise_over(size, norm, training, sentence):
    with pytest.raises(ValueError, match=f"^image: expected height or width above 8,? {sentence}$"):
        check_normed("image", torch.zeros(size), 8, norm, training)


@pytest.mark.parametrize(
    ("size", "norm", "training"),
    [
        ((1, 3, 8, 16), "instance", True),
        ((1, 3, 16, 8), "batch", True),
        ((2, 3, 8, 8), "batch", True),
        ((1, 3, 8, 8), "batch", False),
    ],
)
def test_maps_with_enough_values_to_normalise_over(size, norm, training):
    check_normed("image", torch.zeros(size), 8, norm, training)


def test_counts_start_at_one():
    check_counts(blocks=1, width=2)
    with pytest.raises(ValueError, match=r"^width: expected at least 1, got 0$"):
        check_counts(blocks=1, width=0)
