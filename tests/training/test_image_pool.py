"""What the pool returns, keeps and remembers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastpose.training import state_tree
from fastpose.training.image_pool import ImagePool


def batch(*values: float) -> Tensor:
    """Images (B, 2, 3, 3), each of one value."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 2, 3, 3).clone()


def values(images: Tensor) -> list[float]:
    assert images.shape[1:] == (2, 3, 3)
    return images[:, 0, 0, 0].tolist()


def test_without_a_pool_images_pass() -> None:
    pool = ImagePool(0)
    images = batch(1, 2).requires_grad_()
    assert values(pool.query(images)) == [1, 2]
    assert not pool.query(images).requires_grad
    assert len(pool) == 0


def test_the_first_images_are_kept_and_returned() -> None:
    pool = ImagePool(4)
    assert values(pool.query(batch(1, 2, 3))) == [1, 2, 3]
    assert len(pool) == 3


def test_a_full_pool_exchanges_every_second_image_on_average() -> None:
    pool = ImagePool(50, seed=(3,))
    pool.query(batch(*range(50)))
    exchanged = 0
    for start in range(50, 2050, 20):
        came = list(map(float, range(start, start + 20)))
        kept = {float(image[0, 0, 0]) for image in pool.state()["images"]}
        found = values(pool.query(batch(*came)))
        for new, returned in zip(came, found, strict=True):
            if returned == new:
                continue
            exchanged += 1
            assert returned in kept  # an earlier one comes out ...
            kept = (kept - {returned}) | {new}  # ... and the new one takes its place
        assert kept == {float(image[0, 0, 0]) for image in pool.state()["images"]}
    assert len(pool) == 50
    assert 900 < exchanged < 1100  # of 2000; seven deviations


def test_any_place_of_the_pool_is_exchanged() -> None:
    pool = ImagePool(3, seed=(1,))
    pool.query(batch(0, 1, 2))
    out = {value for start in range(3, 60) for value in values(pool.query(batch(start))) if value < 3}
    assert out == {0, 1, 2}


def test_one_seed_gives_one_course_and_another_another() -> None:
    courses = []
    for seed in ((5, 0), (5, 0), (5, 1)):
        pool = ImagePool(2, seed)
        courses.append([values(pool.query(batch(n, n + 1))) for n in range(0, 80, 2)])
    assert courses[0] == courses[1] != courses[2]


def test_global_randomness_is_left_alone() -> None:
    before = torch.get_rng_state()
    ImagePool(1).query(batch(1, 2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_continues_the_course_through_a_file() -> None:
    pool = ImagePool(3, seed=(7,))
    for start in range(0, 12, 2):
        pool.query(batch(start, start + 1))
    tensors: dict[str, Tensor] = {}
    tree = state_tree.encode(pool.state(), tensors)
    again = ImagePool(3, seed=(7,))
    again.load_state(state_tree.decode(tree, tensors))
    for start in range(12, 60, 2):
        assert values(pool.query(batch(start, start + 1))) == values(again.query(batch(start, start + 1)))


def test_what_comes_later_does_not_change_a_state() -> None:
    pool = ImagePool(2)
    pool.query(batch(1, 2))
    state = pool.state()
    course = [values(pool.query(batch(n, n + 1))) for n in range(3, 40, 2)]
    assert [float(image[0, 0, 0]) for image in state["images"]] == [1, 2]
    pool.load_state(state)
    assert [values(pool.query(batch(n, n + 1))) for n in range(3, 40, 2)] == course


def test_a_kept_image_holds_no_batch_and_is_not_the_callers() -> None:
    pool = ImagePool(1)
    images = batch(1, 2, 3)
    pool.query(images)
    (kept,) = pool.state()["images"]
    assert kept.untyped_storage().nbytes() == kept.nbytes
    images.zero_()
    assert float(kept[0, 0, 0]) == 1


def test_a_smaller_pool_takes_what_fits() -> None:
    large, small = ImagePool(4), ImagePool(2)
    large.query(batch(1, 2, 3, 4))
    small.load_state(large.state())
    assert len(small) == 2


def test_images_come_back_in_the_dtype_of_those_given() -> None:
    pool = ImagePool(1)
    pool.query(batch(1))
    found = [pool.query(batch(n).double()) for n in range(2, 12)]
    assert {images.dtype for images in found} == {torch.float64}
    assert any(values(images) == [1] for images in found)


def test_what_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="image pool: expected a size of 0 or more, got -1"):
        ImagePool(-1)
    pool = ImagePool(2)
    pool.query(batch(1))
    with pytest.raises(ValueError, match=r"expected images \(2, 3, 3\) as those kept, got \(2, 3, 4\)"):
        pool.query(torch.zeros(1, 2, 3, 4))
