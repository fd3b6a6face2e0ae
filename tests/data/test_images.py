"""Reading photographs: every kind of good file gives RGB, every kind of bad file one sentence with its path."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from fastpose.data.images import image_size, read_image, verify_image


def _write(path, array, *options):
    import cv2

    assert cv2.imwrite(str(path), array, *options)
    return path


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Insert an EXIF segment with an orientation after the JPEG's start marker."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\x00*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    payload = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


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


def test_grey_becomes_three_equal_channels(tmp_path):
    image = read_image(_write(tmp_path / "a.jpg", np.full((20, 30), 77, np.uint8)))
    assert image.shape == (20, 30, 3)
    assert (image == 77).all()


def test_sixteen_bits_become_eight(tmp_path):
    image = read_image(_write(tmp_path / "a.png", np.full((5, 6, 3), 0x8000, np.uint16)))
    assert image.dtype == np.uint8
    assert (image == 0x80).all()


def test_alpha_is_dropped(tmp_path):
    assert read_image(_write(tmp_path / "a.png", np.full((5, 6, 4), 9, np.uint8))).shape == (5, 6, 3)


def test_cmyk_becomes_rgb(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("CMYK", (30, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # red
    red, green, blue = read_image(tmp_path / "a.jpg")[10, 15].astype(int)
    assert red - green > 100
    assert red - blue > 100


def test_one_pixel_is_an_image(tmp_path):
    assert read_image(_write(tmp_path / "a.png", np.full((1, 1, 3), 9, np.uint8))).shape == (1, 1, 3)


def test_exif_orientation_is_ignored_for_annotated_photographs_and_applied_when_asked(tmp_path):
    path = _write(tmp_path / "a.jpg", np.zeros((20, 30, 3), np.uint8))
    path.write_bytes(_with_orientation(path.read_bytes(), 6))
    assert read_image(path).shape == (20, 30, 3)
    assert read_image(path, exif="apply").shape == (30, 20, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = _write(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: max(16, int(share * len(data)))])
    with pytest.raises(ValueError, match=rf"a\.{suffix}: truncated"):
        read_image(path)


def test_a_thumbnail_does_not_hide_a_truncated_photograph(tmp_path):
    path = _write(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    jpeg = path.read_bytes()
    thumbnail = b"\xff\xed" + struct.pack(">H", 6) + b"\xff\xd9xx"
    path.write_bytes(jpeg[:2] + thumbnail + jpeg[2 : len(jpeg) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_image(path)


def test_a_damaged_body_is_an_error(tmp_path):
    path = _write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(len(data) // 2)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"a\.png"):
        read_image(path)


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"a\.jpg: the file is empty"):
        read_image(tmp_path / "a.jpg")


def test_a_text_file_is_an_error_that_lists_the_types(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(ValueError, match="not a JPEG, PNG, BMP or WebP file"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["none.jpg", "."])
def test_no_file_is_an_error(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_image(tmp_path / name)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match="60000 x 60000 pixels exceed the limit"):
        read_image(tmp_path / "a.png")


def test_the_pixel_limit_can_be_set(photo):
    with pytest.raises(ValueError, match="limit of 100 pixels"):
        read_image(photo("a.jpg"), pixel_limit=100)


def test_a_zero_size_is_an_error(tmp_path):
    path = _write(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[16:20] = bytes(4)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="size of 0 x 4"):
        image_size(path)


def test_long_metadata_before_the_size_is_read_over(tmp_path):
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
