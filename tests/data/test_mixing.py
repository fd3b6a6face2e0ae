"""Several domains in a batch: exact numbers, an order by seed and epoch, parts that go on where they stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.data import KeypointDataset, create_loader
from fastpose.data.mixing import MixedDataset


class Numbers:
    """Items that tell their place and visit; sample ``bad`` shows its neighbour, as an unreadable photograph does."""

    def __init__(self, count: int, bad: int = -1) -> None:
        self.count, self.bad, self.source = count, bad, self

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        visit, index = key
        return {"index": torch.tensor(index + 1 if index == self.bad else index), "visit": torch.tensor(visit)}


def batches(dataset, batch_size=5, epoch=0, **options):
    loader = create_loader(dataset, batch_size, shuffle=True, seed=3, epoch=epoch, **options)
    return [(batch["domain"].tolist(), batch["index"].tolist()) for batch in loader]


def test_every_batch_has_its_share_of_each_part():
    found = batches(MixedDataset([Numbers(20), Numbers(7)], (3, 2)))
    assert len(found) == 20 // 3
    assert all(sorted(domains) == [0, 0, 0, 1, 1] for domains, _ in found)


def test_every_process_has_its_share_and_together_they_are_disjoint():
    dataset = MixedDataset([Numbers(24), Numbers(40)], (3, 2))
    ranks = [batches(dataset, rank=rank, world_size=2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [4, 4]
    assert all(sorted(domains) == [0, 0, 0, 1, 1] for rank in ranks for domains, _ in rank)
    indices = [index for rank in ranks for _, indices in rank for index in indices]
    assert len(set(indices)) == len(indices)


def test_the_order_is_a_function_of_seed_and_epoch():
    dataset = MixedDataset([Numbers(20), Numbers(7)], (3, 2))
    assert batches(dataset) == batches(MixedDataset([Numbers(20), Numbers(7)], (3, 2)))
    assert batches(dataset) != batches(dataset, epoch=1)


def test_a_part_goes_on_where_it_stopped():
    dataset = MixedDataset([Numbers(6), Numbers(40)], (3, 2))  # 2 batches an epoch: 4 wild samples of 40
    wild = [i for epoch in range(10) for d, n in batches(dataset, epoch=epoch) for k, i in zip(d, n, strict=True) if k]
    assert sorted(wild) == list(range(6, 46))


def test_a_small_part_begins_again_in_a_new_order():
    dataset = MixedDataset([Numbers(30), Numbers(4)], (1, 4))
    rounds = [[i for k, i in zip(d, n, strict=True) if k] for d, n in batches(dataset)]
    assert all(sorted(row) == [30, 31, 32, 33] for row in rounds)
    assert len({tuple(row) for row in rounds}) > 1


def visits(dataset, batch_size=5, **options):
    """Return (index, visit) of all samples of an epoch."""
    loader = create_loader(dataset, batch_size, shuffle=True, seed=3, **options)
    return [pair for b in loader for pair in zip(b["index"].tolist(), b["visit"].tolist(), strict=True)]


def test_a_sample_that_comes_again_has_another_visit():
    dataset = MixedDataset([Numbers(7), Numbers(4)], (1, 4), batches=7)  # 7 rounds of the second part an epoch
    seen = [pair for epoch in range(3) for pair in visits(dataset, epoch=epoch)]
    assert len(set(seen)) == len(seen) == 3 * 7 * 5
    assert [visit for index, visit in seen if index == 7] == list(range(21))


def test_visits_do_not_depend_on_how_epochs_are_cut():
    cut = [MixedDataset([Numbers(6), Numbers(4)], (2, 3), batches=n) for n in (12, 4)]
    assert visits(cut[0]) == [pair for epoch in range(3) for pair in visits(cut[1], epoch=epoch)]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_visit_of_a_photograph_is_augmented_anew(tiny_source, workers):
    parts = [KeypointDataset(tiny_source, augment="newell", image_size=(32, 32), stream=n) for n in range(2)]
    dataset = MixedDataset(parts, (1, 2), batches=14)  # 28 draws of 7 persons
    views = [b["to_image"][1:] for b in create_loader(dataset, 3, shuffle=True, seed=3, workers=workers)]
    assert len({view.numpy().tobytes() for view in torch.cat(views)}) == 28
    resumed = create_loader(dataset, 3, shuffle=True, seed=3, start_step=9)
    assert all(torch.equal(b["to_image"][1:], view) for b, view in zip(resumed, views[9:], strict=True))


def test_batches_set_the_length_of_an_epoch():
    assert len(batches(MixedDataset([Numbers(3), Numbers(4)], (3, 2), batches=9))) == 9


def test_a_loader_starts_in_the_middle_of_an_epoch():
    dataset = MixedDataset([Numbers(20), Numbers(7)], (3, 2))
    loader = create_loader(dataset, 5, shuffle=True, seed=3, start_step=4)
    assert [batch["index"].tolist() for batch in loader] == [n for _, n in batches(dataset)][4:]


def test_numbers_must_make_the_batch():
    with pytest.raises(ValueError, match=r"batch_size: expected 5 = \(3, 2\)"):
        batches(MixedDataset([Numbers(20), Numbers(7)], (3, 2)), batch_size=6)


def test_a_first_part_below_its_share_is_named():
    with pytest.raises(ValueError, match=r"part 0: a step takes 6 samples of it .* found 2; .*data\.epoch_batches"):
        batches(MixedDataset([Numbers(2), Numbers(100)], (6, 6)), batch_size=12)
    assert len(batches(MixedDataset([Numbers(2), Numbers(100)], (6, 6), batches=3), batch_size=12)) == 3


@pytest.mark.parametrize(("sizes", "per_batch"), [([3, 0], (1, 1)), ([], None), ([3, 3], (1,)), ([3, 3], (2, 0))])
def test_parts_and_numbers_are_checked(sizes, per_batch):
    with pytest.raises(ValueError, match=r"parts: expected|per_batch: expected"):
        MixedDataset([Numbers(size) for size in sizes], per_batch)


def test_an_epoch_has_its_share_of_each_part():
    dataset = MixedDataset([Numbers(30), Numbers(8)], per_epoch=(10, 8))
    epochs = [visits(dataset, batch_size=6, epoch=epoch) for epoch in range(3)]
    assert [sorted(index for index, _ in seen if index >= 30) for seen in epochs] == [list(range(30, 38))] * 3
    drawn = [{index for index, _ in seen if index < 30} for seen in epochs]
    assert [len(each) for each in drawn] == [10, 10, 10]
    assert set.union(*drawn) == set(range(30))  # drawn anew, none twice before each has come
    assert len({pair for seen in epochs for pair in seen}) == 3 * 18
    assert len({tuple(index < 30 for index, _ in seen) for seen in epochs}) == 3  # shuffled together
    assert epochs[1] == visits(dataset, batch_size=6, epoch=1)
    with pytest.raises(ValueError, match="expected one of them at most"):
        MixedDataset([Numbers(3), Numbers(3)], (1, 1), per_epoch=(1, 1))


def test_without_numbers_the_parts_follow_one_another():
    dataset = MixedDataset([Numbers(2), Numbers(3)])
    assert [int(dataset[i]["index"]) for i in range(5)] == [0, 1, 2, 3, 4]
    assert [int(dataset[i]["domain"]) for i in range(5)] == [0, 0, 1, 1, 1]
    assert sorted(i for _, n in batches(dataset) for i in n) == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError, match="expected 0 to 4"):
        dataset[5]


def test_indices_lead_back_to_the_parts():
    dataset = MixedDataset([Numbers(2), Numbers(3), Numbers(4)])
    assert dataset.locate(4) == (1, 2)
    found = list(dataset.split(np.array([8, 0, 7, 1])))
    assert [(part.count, places.tolist(), rows.tolist()) for part, places, rows in found] == [
        (2, [0, 1], [1, 3]),
        (4, [3, 2], [0, 2]),
    ]


def test_the_index_is_of_the_sample_shown():
    assert int(MixedDataset([Numbers(2), Numbers(3, bad=1)])[3]["index"]) == 4
