"""Reading photographs: every kind of good file gives RGB, every kind of bad file one sentence with its path."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from fastpose.data.images import image_size, read_image, verify_image


def _write(path, array, *options):
    import cv2

    assert cv2.imwrite(str(path), array, *options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_each_type_is_read_as_rgb_with_its_size(tmp_path, suffix):
    blue = np.zeros((20, 30, 3), np.uint8)
    blue[:, :, 0] = 200  # OpenCV writes BGR
    image = read_image(_write(tmp_path / f"a.{suffix}", blue))
    assert image.shape == (20, 30, 3)
    assert image[10, 15, 2] > 180
    assert image[10, 15, 0] < 20


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_size_is_known_from_the_header(tmp_path, suffix):
    assert image_size(_write(tmp_path / f"a.{suffix}", np.zeros((21, 34, 3), np.uint8))) == (21, 34)


def test_progressive_jpeg_has_a_size(tmp_path):
    import cv2

    path = _write(tmp_path / "a.jpg", np.zeros((21, 34, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert image_size(path) == (21, 34)


@pytest.mark.parametrize("lossless", [101, 50])
def test_webp_variants_have_a_size(tmp_path, lossless):
    import cv2

    rgba = np.full((21, 34, 4), 128, np.uint8)
    path = _write(tmp_path / "a.webp", rgba, [cv2.IMWRITE_WEBP_QUALITY, lossless])
    assert image_size(path) == (21, 34)
    assert read_image(path).shape == (21, 34, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_promise_17_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = _write(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: max(16, int(share * len(data)))])
    with pytest.raises(ValueError, match=rf"a\.{suffix}: truncated"):
        read_image(path)


def test_promise_17_a_thumbnail_does_not_hide_a_truncated_photograph(tmp_path):
    path = _write(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    jpeg = path.read_bytes()
    thumbnail = b"\xff\xed" + struct.pack(">H", 6) + b"\xff\xd9xx"
    path.write_bytes(jpeg[:2] + thumbnail + jpeg[2 : len(jpeg) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_image(path)


def test_promise_17_a_damaged_body_is_an_error(tmp_path):
    path = _write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(len(data) // 2)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"a\.png"):
        read_image(path)


def test_the_pixel_limit_can_be_set(photo):
    with pytest.raises(ValueError, match="limit of 100 pixels"):
        read_image(photo("a.jpg"), pixel_limit=100)


def test_promise_17_a_zero_size_is_an_error(tmp_path):
    path = _write(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[16:20] = bytes(4)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="size of 0 x 4"):
        image_size(path)


def test_promise_17_long_metadata_before_the_size_is_read_over(tmp_path):
    path = _write(tmp_path / "a.jpg", np.zeros((21, 34, 3), np.uint8))
    jpeg = path.read_bytes()
    segment = b"\xff\xed" + struct.pack(">H", 60002) + bytes(60000)
    path.write_bytes(jpeg[:2] + segment * 3 + jpeg[2:])
    assert image_size(path) == (21, 34)


def test_verifying_finds_a_missing_end_without_decoding(photo):
    path = photo("a.jpg")
    assert verify_image(path) == (60, 80)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="truncated"):
        verify_image(path)
