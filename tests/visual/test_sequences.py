"""Films of generated images."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.visual import sequences

RED, BLUE = (np.zeros((64, 32, 3), np.uint8) for _ in range(2))
RED[..., 0], BLUE[..., 2] = 255, 255


def test_a_contact_sheet_is_about_as_wide_as_high_and_spreads_long_sequences():
    rows = [[RED, BLUE, np.full_like(RED, 2 * index)] for index in range(100)]
    sheet = sequences.contact_sheet(rows, ("a", "b", "c"), [str(index) for index in range(100)], most=24)
    assert 0.5 < sheet.shape[0] / sheet.shape[1] < 2
    values, counts = np.unique(sheet.min(2)[sheet.min(2) == sheet.max(2)], return_counts=True)
    greys = values[counts > 10000]
    assert {0, 198} <= set(greys.tolist())  # the first and the last are there
    assert len(greys) == 24 + 1  # and white
    with pytest.raises(ValueError, match="captions: expected one per row"):
        sequences.contact_sheet(rows, ("a", "b", "c"), ["one"])


def test_frames_stand_side_by_side_in_one_even_size():
    narrow = np.full((64, 21, 3), 90, np.uint8)
    film = sequences.frames([[RED, narrow], [BLUE, narrow]], height=65, gap=2)
    assert {frame.shape for frame in film} == {(66, 58, 3)}  # 33 + 2 + 22 is odd
    assert film[0][30, 10].tolist() == [255, 0, 0]
    assert film[1][30, 10].tolist() == [0, 0, 255]
    assert film[0][30, 50].tolist() == [90, 90, 90]


@pytest.mark.parametrize("rows", [[], [[]], [[RED], [RED, BLUE]]])
def test_frames_want_equal_rows(rows):
    with pytest.raises(ValueError, match="rows: expected equally many images"):
        sequences.frames(rows)


def test_a_video_plays_the_frames_in_order(tmp_path):
    import cv2

    path = sequences.save_video(tmp_path / "größe" / "film.mp4", [RED, BLUE, RED], fps=4)
    film = cv2.VideoCapture(str(path))
    seen = []
    while True:
        there, frame = film.read()
        if not there:
            break
        seen.append(int(frame[32, 16].argmax()))  # BGR
    assert seen == [2, 0, 2]


def test_a_gif_plays_the_frames_in_order(tmp_path):
    from PIL import Image

    path = sequences.save_gif(tmp_path / "film.gif", [RED, BLUE], fps=5)
    with Image.open(path) as film:
        assert film.n_frames == 2
        assert film.info["duration"] == 200
        film.seek(1)
        assert film.convert("RGB").getpixel((16, 32)) == (0, 0, 255)


def test_a_film_keeps_the_colours_of_the_limbs(tmp_path):
    """Beside photographs a few thin lines are rare: a palette by frequency would give neighbours one hue."""
    from PIL import Image

    from fastpose.skeletons import OPENPOSE
    from fastpose.visual.skeletons import limb_colours

    colours = limb_colours(OPENPOSE)
    film = [np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8) for seed in range(3)]
    for frame in film:
        for index, colour in enumerate(colours):
            frame[4 * index : 4 * index + 4, :4] = colour
    with Image.open(sequences.save_gif(tmp_path / "film.gif", film, keep=colours)) as read:
        for number in range(3):
            read.seek(number)
            shown = np.array(read.convert("RGB"))
            assert all((shown[4 * k : 4 * k + 4, :4] == colour).all(2).any() for k, colour in enumerate(colours))


def test_what_is_white_stays_white(tmp_path):
    """The near white of a photograph would be taken for it."""
    from PIL import Image

    rng, frames = np.random.default_rng(0), []
    photo = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    photo[:48] = 250
    for place in range(6):
        panel = np.full((64, 64, 3), 255, np.uint8)
        panel[20:40, 6 * place : 6 * place + 20] = rng.integers(0, 256, (20, 20, 3))
        frames.append(np.concatenate([photo, panel], 1))
    path = sequences.save_gif(tmp_path / "film.gif", frames, keep=((255, 255, 255), (250, 30, 30)))
    with Image.open(path) as film:
        shown = []
        for number in range(film.n_frames):
            film.seek(number)
            shown.append(np.array(film.convert("RGB")))
    for frame, source in zip(shown, frames, strict=True):
        assert (frame[:, 64:][(source[:, 64:] == 255).all(2)] == 255).mean() > 0.95
        assert (frame[50:, 70:] == 255).all()


@pytest.mark.parametrize(
    ("save", "name", "images", "fps", "sentence"),
    [
        (sequences.save_video, "film.avi", [RED], 8, "ends in .mp4"),
        (sequences.save_gif, "film.png", [RED], 8, "ends in .gif"),
        (sequences.save_video, "film.mp4", [], 8, "expected at least one"),
        (sequences.save_gif, "film.gif", [RED, RED[:10]], 8, "2 of 2 sizes"),
        (sequences.save_video, "film.mp4", [RED[:63]], 8, "even height and width"),
        (sequences.save_gif, "film.gif", [RED], 0, "fps: expected a number above 0"),
    ],
)
def test_mistakes_are_named_and_leave_no_file(tmp_path, save, name, images, fps, sentence):
    with pytest.raises(ValueError, match=sentence):
        save(tmp_path / name, images, fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_an_opencv_without_the_codec_is_one_sentence(tmp_path, monkeypatch):
    import cv2

    class Mute:
        def __init__(self, *args: object) -> None: ...

        def write(self, frame: object) -> None: ...

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoWriter", Mute)
    monkeypatch.setattr(Mute, "fourcc", staticmethod(lambda *letters: 0), raising=False)
    with pytest.raises(ValueError, match="this OpenCV cannot write MP4"):
        sequences.save_video(tmp_path / "film.mp4", [RED])
    assert list(tmp_path.iterdir()) == []
