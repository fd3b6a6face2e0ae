"""Neighbours among poses, tile by tile, against plain float64 distances; what the 1-NN test says in the known cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose import _native
from fastpose.metrics import two_sample


def cells(count: int, seed: int, side: int = 64, joints: int = 17) -> torch.Tensor:
    """Poses whose joints lie on cells, as decoded ones do: distances are often equal where ``side`` is small."""
    return torch.randint(0, side, (count, joints, 2), generator=torch.Generator().manual_seed(seed)).float()


def plain(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """All distances (N, M) at once, in float64."""
    return torch.linalg.vector_norm(first[:, None].double() - second[None].double(), dim=-1).sum(-1)


def values(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


def wanted(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """The protocol as it is written: strictly nearer to the own set, leaving the pose itself out."""
    own, across = [plain(each, each).fill_diagonal_(torch.inf) for each in (real, fake)], plain(real, fake)
    right = [(own[0].amin(1) < across.amin(1)), (own[1].amin(1) < across.amin(0))]
    shares = [100 * each.double().mean().item() for each in right]
    mean = sum(shares) / 2
    return {
        "1-NN accuracy": mean,
        "1-NN real": shares[0],
        "1-NN generated": shares[1],
        "1-NN off 50 %": abs(mean - 50),
    }


# ----------------------------------------------------------------------------------------------------------- positions


def test_absent_joints_are_in_the_middle_whatever_they_hold():
    points = torch.tensor([[[1.0, 2.0], [torch.nan, 9.0]]])
    assert two_sample.positions(points, [[1, 0]]).tolist() == [[[1, 2], [32, 32]]]
    assert two_sample.positions(np.zeros((3, 4, 2))).dtype == torch.float32
    assert points[0, 1, 1] == 9  # the caller's stay as they are


@pytest.mark.parametrize(
    ("points", "present", "error", "message"),
    [
        (torch.zeros(3, 2), None, ValueError, r"points: expected poses \(N, K, 2\), got \(3, 2\)"),
        (torch.zeros(3, 17, 3), None, ValueError, r"points: expected poses \(N, K, 2\)"),
        (torch.zeros(3, 17, 2), torch.ones(3, 16), ValueError, r"present: expected \(3, 17\) as points has"),
        (torch.full((1, 2, 2), torch.nan), None, ValueError, "points: expected finite positions"),
        (torch.full((1, 2, 2), torch.inf), torch.ones(1, 2), ValueError, "points: expected finite positions"),
        ([["a"]], None, TypeError, "points: expected numbers"),
        (torch.zeros(1, 2, 2, dtype=torch.cfloat), None, TypeError, "points: expected numbers"),
    ],
)
def test_positions_refuse_what_is_no_pose(points, present, error, message):
    with pytest.raises(error, match=message):
        two_sample.positions(points, present)


# ------------------------------------------------------------------------------------------------------------- nearest


@pytest.mark.parametrize("block", [(7, 5), (4, 64), (16, 16), None])
@pytest.mark.parametrize("queries", [1, 16, 41])
def test_nearest_against_all_distances(queries, block):
    first, second = cells(queries, 1), cells(45, 2)
    distance, index = two_sample.nearest(first, second, block=block)
    expected = plain(first, second).min(1)
    assert torch.allclose(distance.double(), expected.values, rtol=1e-6)
    assert torch.equal(index, expected.indices)


@pytest.mark.parametrize("block", [(7, 5), (5, 7), (4, 64), (33, 9), None])
def test_leaving_out_oneself(block):
    poses = cells(45, 3)
    expected = plain(poses, poses).fill_diagonal_(torch.inf).min(1)
    for references in (poses, poses.clone()):  # one set, of which each pair is measured once; and two
        distance, index = two_sample.nearest(poses, references, exclude_self=True, block=block)
        assert torch.allclose(distance.double(), expected.values, rtol=1e-6)
        assert torch.equal(index, expected.indices)


def test_of_equally_near_poses_the_first_counts():
    poses = torch.zeros(10, 17, 2)
    for block in [(3, 4), (1, 1), (10, 10)]:
        assert two_sample.nearest(poses, poses, block=block)[1].tolist() == [0] * 10
        assert two_sample.nearest(poses, poses, exclude_self=True, block=block)[1].tolist() == [1, *[0] * 9]


def test_positions_that_are_no_cells():
    first, second = torch.rand(30, 17, 2) * 64, torch.rand(40, 17, 2) * 64
    expected = plain(first, second).amin(1)
    assert torch.allclose(two_sample.nearest(first, second)[0].double(), expected, rtol=1e-5)
    assert two_sample.nearest(first, first)[0].eq(0).all()  # no rounding tells equal poses apart


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def level(request):
    """Each instruction set that this machine has."""
    before = _native.build_info()["simd"]
    try:
        _native.module().set_simd(request.param)
    except ValueError as reason:
        pytest.skip(str(reason))
    yield request.param
    _native.module().set_simd(before)


@pytest.mark.parametrize("count", [2, 15, 16, 17, 35, 130])
def test_the_kernel_finds_what_tiles_find(level, count):
    first, second = cells(41, 1, side=6), cells(count, 2, side=6)  # many are equally near
    first[7], second[-1] = first[3], first[5]
    for poses, others, out in ((first, second, False), (second, first, False), (second, second, True)):
        found = two_sample.nearest(poses, others, exclude_self=out)
        tiled = two_sample.nearest(poses, others, exclude_self=out, block=(8, 16))
        assert torch.equal(found[0], tiled[0])
        assert torch.equal(found[1], tiled[1])


def test_promise_16_poses_are_told_apart_as_far_away_as_they_are_measured():
    """Where their squares are infinite all poses would be equally near, and every one a tie."""
    near = [poses[:40] for poses in (cells(40, 1), cells(40, 2))]
    expected = two_sample.two_sample_accuracy(*near)
    assert expected[0].value > 0
    scale = 2.0 ** (49 - max(int(poses.abs().max()) for poses in near).bit_length())
    assert two_sample.two_sample_accuracy(*(poses * scale for poses in near)) == expected
    for far in (1e16, 1e20, 3e38):
        with pytest.raises(ValueError, match=r"real: expected positions of up to 1e\+15 pixels, found \d"):
            two_sample.two_sample_accuracy(*(poses.sign() * far for poses in near))


def test_several_threads_find_what_one_finds():
    before, first, second = torch.get_num_threads(), cells(100, 1, side=8), cells(100, 2, side=8)
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(two_sample.neighbours(first, second))
    finally:
        torch.set_num_threads(before)
    for name in ("real", "fake", "real_to_fake", "fake_to_real"):
        one, other = (getattr(each, name) for each in found)
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (torch.zeros(2, 17, 2), torch.zeros(0, 17, 2), {}, "references: expected 1 or more poses, got 0"),
        (torch.zeros(1, 17, 2), torch.zeros(1, 17, 2), {"exclude_self": True}, "references: expected 2 or more"),
        (torch.zeros(2, 17, 2), torch.zeros(3, 17, 2), {"exclude_self": True}, "references: expected the 2 queries"),
        (torch.zeros(2, 17, 2), torch.zeros(3, 16, 2), {}, "references: expected 17 joints"),
        (torch.zeros(2, 17), torch.zeros(3, 17, 2), {}, r"queries: expected poses \(N, K, 2\)"),
        (torch.zeros(2, 17, 2), torch.full((3, 17, 2), torch.nan), {}, "references: expected finite positions"),
        (torch.zeros(2, 17, 2), torch.zeros(3, 17, 2), {"block": (0, 4)}, "block: expected positive numbers"),
    ],
)
def test_nearest_refuses_what_does_not_fit(first, second, options, message):
    with pytest.raises(ValueError, match=message):
        two_sample.nearest(first, second, **options)


def test_no_query_has_no_neighbour():
    distance, index = two_sample.nearest(torch.zeros(0, 17, 2), cells(3, 0))
    assert distance.shape == index.shape == (0,)


# ------------------------------------------------------------------------------------------------------------ accuracy


@pytest.mark.parametrize("side", [64, 3])  # many ties among few cells
@pytest.mark.parametrize("block", [(7, 5), None])
def test_accuracy_against_the_protocol(side, block):
    real, fake = cells(60, 1, side, joints=3), cells(60, 2, side, joints=3)
    found = two_sample.two_sample_accuracy(real, fake, block=block)
    assert values(found) == pytest.approx(wanted(real, fake))
    assert found[0].count == 120
    assert found[1].count == 60


def test_by_heart_no_relation_and_one_distribution():
    real = cells(300, 1)
    assert values(two_sample.two_sample_accuracy(real, real))["1-NN accuracy"] == 0
    assert values(two_sample.two_sample_accuracy(real, real.flip(0)))["1-NN off 50 %"] == 50
    far = values(two_sample.two_sample_accuracy(real, real + 1000))
    assert (far["1-NN accuracy"], far["1-NN real"], far["1-NN generated"]) == (100, 100, 100)
    assert values(two_sample.two_sample_accuracy(real, cells(300, 2)))["1-NN accuracy"] == pytest.approx(50, abs=6)


def test_opposite_errors_cancel_and_the_sentence_says_so():
    real = torch.tensor([0.0, 10, 20, 21]).view(4, 1, 1).expand(4, 17, 2)  # the last alone is nearer to a real one
    fake = torch.tensor([0.2, 0.3, 0.4, 19.5]).view(4, 1, 1).expand(4, 17, 2)  # close together, but for the last
    found = two_sample.two_sample_accuracy(real, fake)
    assert values(found) == {"1-NN accuracy": 50, "1-NN real": 25, "1-NN generated": 75, "1-NN off 50 %": 0}
    assert all("of 4 real and as many generated poses" in result.protocol for result in found)
    assert "opposite errors cancel" in found[-1].protocol


def test_duplicates_are_ties_and_so_mistakes():
    twice = cells(20, 1).repeat(2, 1, 1)
    assert values(two_sample.two_sample_accuracy(twice, twice))["1-NN accuracy"] == 0
    collapsed = cells(1, 5).expand(40, 17, 2)  # the generated poses are one: all of them nearest to each other
    found = values(two_sample.two_sample_accuracy(cells(40, 1), collapsed))
    assert found["1-NN generated"] == 100


def test_what_is_known_of_the_real_poses_is_used():
    real, fake = cells(30, 1), cells(30, 2)
    known = two_sample.nearest(real, real, exclude_self=True)
    found = two_sample.neighbours(real, fake, known=known)
    assert found.real is known
    assert values(two_sample.accuracy(found)) == values(two_sample.two_sample_accuracy(real, fake))


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(3, 17, 2), torch.zeros(4, 17, 2), "fake: expected 3 poses, as many as real ones, got 4"),
        (torch.zeros(1, 17, 2), torch.zeros(1, 17, 2), "real, fake: expected 2 or more poses of each, got 1"),
        (torch.zeros(3, 17, 2), torch.zeros(3, 16, 2), "fake: expected 17 joints as the other set has, got 16"),
        (torch.zeros(3, 17, 2), torch.full((3, 17, 2), torch.nan), "fake: expected finite positions"),
    ],
)
def test_sets_that_do_not_pair_up_are_refused(real, fake, message):
    with pytest.raises(ValueError, match=message):
        two_sample.two_sample_accuracy(real, fake)
