"""Thinning to lines one pixel wide: hand-made shapes, the paper's rules pixel by pixel, scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.data.thinning import thin

_RING = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]


def _drawn(text):
    return np.array([[cell == "#" for cell in line.strip()] for line in text.strip().splitlines()])


def _pixel_by_pixel(shape):
    """The rules as written down, one pixel after the other."""
    picture = np.pad(shape.astype(int), 1)
    changed = True
    while changed:
        changed = False
        for kept in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            gone = [(y, x) for y, x in np.argwhere(picture) if _removable(picture, y, x, kept)]
            for place in gone:
                picture[place] = 0
            changed = changed or bool(gone)
    return picture[1:-1, 1:-1] > 0


def _removable(picture, y, x, kept):
    ring = [picture[y + down, x + right] for down, right in _RING]
    entries = sum(ring[k] == 0 and ring[(k + 1) % 8] == 1 for k in range(8))
    return 2 <= sum(ring) <= 6 and entries == 1 and all(ring[a] * ring[b] * ring[c] == 0 for a, b, c in kept)


def test_a_bar_becomes_a_line():
    """By hand: the first pass takes the lower row, the right column and the upper left corner; the second the rest."""
    bar = _drawn("""
        ...........
        .#########.
        .#########.
        .#########.
        ...........
    """)
    line = _drawn("""
        ...........
        ...........
        ..######...
        ...........
        ...........
    """)
    assert np.array_equal(thin(bar), line)


def test_a_letter_keeps_its_strokes():
    letter = _drawn("""
        ###....###
        ###....###
        ###....###
        ##########
        ##########
        ##########
        ###....###
        ###....###
        ###....###
    """)
    assert np.array_equal(thin(letter), _pixel_by_pixel(letter))
    assert thin(letter)[4, 3:7].all()
    assert thin(letter)[:, 1].sum() >= 5


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
def test_the_rules_are_kept_to_the_pixel(share):
    rng = np.random.default_rng(3)
    for _ in range(8):
        shape = rng.random((13, 17)) < share
        assert np.array_equal(thin(shape), _pixel_by_pixel(shape))


def test_a_ring_stays_one_ring():
    from scipy import ndimage

    y, x = np.mgrid[:61, :61] - 30
    ring = (np.hypot(x, y) < 25) & (np.hypot(x, y) > 12)
    line = thin(ring)
    assert ndimage.label(line, np.ones((3, 3)))[1] == 1
    assert ndimage.label(~line)[1] == 2  # inside and outside
    assert line.sum() < 0.15 * ring.sum()


def test_lines_and_nothing_stay_as_they_are():
    line = np.eye(9, dtype=bool)
    assert np.array_equal(thin(line), line)
    assert not thin(np.zeros((4, 5))).any()
    assert thin(np.zeros((0, 3))).shape == (0, 3)


def test_the_skeleton_lies_within_the_shape_up_to_the_border():
    shape = np.random.default_rng(0).random((30, 30)) < 0.9
    assert not (thin(shape) & ~shape).any()
    assert thin(np.ones((9, 21))).any()


def test_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"expected \(H, W\), got \(3, 4, 5\)"):
        thin(np.zeros((3, 4, 5)))


def test_scikit_image_draws_nearly_the_same_lines():
    """Its table departs from the paper's rules in some neighbourhoods and leaves more short spurs."""
    morphology = pytest.importorskip("skimage.morphology")
    from scipy import ndimage

    rng = np.random.default_rng(1)
    for _ in range(5):
        shape = ndimage.gaussian_filter(rng.random((80, 80)), 4) > 0.5
        ours, theirs = thin(shape), morphology.skeletonize(shape, method="zhang")
        assert ndimage.label(ours, np.ones((3, 3)))[1] == ndimage.label(theirs, np.ones((3, 3)))[1]
        assert ndimage.distance_transform_edt(~theirs)[ours].max() <= 2
        assert (ndimage.distance_transform_edt(~ours)[theirs] <= 1.5).mean() > 0.9
