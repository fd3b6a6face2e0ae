"""Pair lists, generation, held-out identities, and what two splits share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from pair_files import sentence

from fastpose.data import pairs
from fastpose.data.person import Person, person


@dataclass
class Some:
    name: str
    split: str
    persons: list[Person]


def _some(split, *identities):
    nothing = np.zeros((18, 2)), np.zeros(18)
    return Some("market", split, [person("a.jpg", *nothing, np.zeros(2), 1, identity=each) for each in identities])


@pytest.mark.parametrize("header", ["from,to", "imgA,imgB", "From, To"])
def test_both_lists_are_read(tmp_path, header):
    path = tmp_path / "pairs.csv"
    path.write_bytes(f"\ufeff{header}\r\na.jpg,b.jpg\r\n\r\nb.jpg, a.jpg\r\n".encode())
    assert pairs.read_list(path) == [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("a.jpg,b.jpg\n", "starts with 'a.jpg,b.jpg'; expected 'from,to'"),
        ("from,to\n", "no pair below the header"),
        ("from,to\na.jpg\n", "line 2 is 'a.jpg'"),
        ("from,to\na.jpg,b.jpg\na.jpg,b.jpg,c.jpg\n", "line 3"),
        ("from,to\na.jpg,\n", "line 2"),
    ],
)
def test_damaged_lists_are_one_sentence(tmp_path, content, words):
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        pairs.read_list(path)
    assert str(path) in str(caught.value)


def test_every_truncated_list_is_read_or_refused(tmp_path):
    whole, path = b"from,to\na.jpg,b.jpg\nc.jpg,d.jpg\n", tmp_path / "pairs.csv"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        refused = sentence(lambda: pairs.read_list(path))
        assert str(path) in refused if refused else pairs.read_list(path)


def test_names_become_numbers():
    numbers, unknown = pairs.link([("a", "b"), ("b", "x"), ("b", "a")], {"a": 0, "b": 1})
    assert numbers.tolist() == [[0, 1], [1, 0]]
    assert unknown == ["x"]


def test_every_ordered_pair_of_a_group_is_made():
    numbers = pairs.generate(["p", "q", "p", "", "", "p"], [True, True, True, True, True, False])
    assert numbers.tolist() == [[0, 2], [2, 0]]
    assert pairs.generate([], []).shape == (0, 2)


def test_hips_and_shoulders_make_a_torso():
    visible = np.ones((3, 18))
    visible[1, 11], visible[2, 0] = 0, 0
    assert pairs.with_torso(visible).tolist() == [True, False, True]


def test_held_out_identities_are_a_share_and_always_the_same():
    names = [f"{number:04d}" for number in range(50)] * 3
    held = pairs.held_out(names, 0.2)
    assert len(held) == 10
    assert held == pairs.held_out(names[::-1], 0.2)
    assert len(pairs.held_out(names, 0.001)) == 1
    assert len(pairs.held_out(names, 0.999)) == 49


def test_another_identity_moves_at_most_one():
    names = [f"font {number}" for number in range(100)]
    held = pairs.held_out(names, 0.2)
    for gone in names:
        others = pairs.held_out([name for name in names if name != gone], 0.2)
        assert len(held - others) <= 1
        assert len(others - held) <= 1
    assert pairs.held_out(names, 0.1) < held  # a larger share holds out the same and more
    assert pairs.held_out(["a", "b\udcff"], 0.5) < {"a", "b\udcff"}  # a name that is not UTF-8 on the disk


def test_what_is_held_out_is_no_beginning_of_the_alphabet():
    held = sorted(int(name) for name in pairs.held_out([f"{number:04d}" for number in range(1000)], 0.2))
    assert 400 < np.mean(held) < 600


def test_a_share_out_of_range_is_refused():
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match="holdout: expected a fraction between 0 and 1"):
            pairs.held_out(["a", "b"], share)
    with pytest.raises(ValueError, match="at least 2 identities to divide, found 1"):
        pairs.held_out(["a", "a"], 0.5)


def test_shared_identities_are_named():
    train, test = _some("train", "1", "2", "3", "4", ""), _some("test", "", "4", "3", "2", "1", "9")
    with pytest.raises(ValueError, match=r"4 identities are in both split 'train' and split 'test': 1, 2, 3, \.\.\.;"):
        pairs.check_disjoint(train, test)
    pairs.check_disjoint(train, _some("test", "9", ""))


def test_pairs_of_two_identities_are_found():
    numbers = np.array([[0, 1], [0, 2], [3, 3]])
    assert pairs.different_identities(numbers, ["a", "a", "b", ""]).tolist() == [1, 2]


def test_repeated_pairs_are_found():
    assert pairs.repeated(np.array([[0, 1], [1, 0], [0, 1], [2, 3], [0, 1]])).tolist() == [2, 4]


def test_only_what_is_used_is_kept():
    kept, numbers = pairs.only_used(np.array([[4, 2], [2, 4]]), 6)
    assert kept.tolist() == [2, 4]
    assert numbers.tolist() == [[1, 0], [0, 1]]
