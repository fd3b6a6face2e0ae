"""Image protocols: published values, scikit-image, perfect and worst pictures, streaming, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastpose.metrics import image
from fastpose.metrics.image import ImageAccumulator, ImageProtocol, protocols, values
from fastpose.metrics.pose_transfer import keypoint_mask

RNG = torch.Generator()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.manual_seed(4)


def pictures(count=3, size=(48, 24), error=40):
    """Return (generated, target): smooth targets, and the same with noise."""
    target = torch.rand(count, 3, 6, 6, generator=RNG) * 255
    target = torch.nn.functional.interpolate(target, size=size, mode="bicubic").clamp(0, 255).to(torch.uint8)
    noise = torch.randint(-error, error + 1, target.shape, generator=RNG)
    return (target.long() + noise).clamp(0, 255).to(torch.uint8), target


def person(count=3, size=(48, 24)):
    """Return key points (B, 18, 2) and visibility (B, 18) with a few joints missing."""
    points = torch.rand(count, 18, 2, generator=RNG) * torch.tensor([size[1], size[0]])
    return points.round(), (torch.rand(count, 18, generator=RNG) > 0.2).float()


def number(name, generated, target, *rest):
    return values(protocols(name)[0], generated, target, *rest)


@pytest.fixture(scope="module")
def oracle(shared):
    """Inputs and outputs of the published evaluation."""
    path = shared / "oracles" / "eval_pose_transfer.safetensors"
    if not path.is_file():
        pytest.skip("the oracle of the published evaluation is absent")
    return load_file(path)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("SSIM (PATN)", "ssim_patn"),
        ("SSIM (7x7)", "ssim_roy_default_win7"),
        ("mask-SSIM", "mask_ssim_patn"),
        ("L1", "l1_patn"),
    ],
)
def test_published_values(oracle, name, key):
    generated, target = (
        oracle[f"input.img_{which}"].permute(2, 0, 1)[None].to(torch.uint8) for which in ("gen", "ref")
    )
    joints = oracle["input.kp_yx"][None]
    found = number(name, generated, target, joints.flip(-1), (joints != -1).all(-1))
    assert found.item() == pytest.approx(oracle[f"output.{key}"].item(), abs=5e-8)


@pytest.mark.parametrize("size", [(48, 24), (11, 11), (31, 64)])
def test_similarity_equals_scikit_image(size):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    generated, target = pictures(size=size)
    similar, default = number("SSIM (PATN)", generated, target), number("SSIM (7x7)", generated, target)
    for index in range(len(target)):
        ours, truth = (images[index].permute(1, 2, 0).numpy() for images in (generated, target))
        options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        spread = float(ours.max()) - float(ours.min())
        expected = metrics.structural_similarity(truth, ours, data_range=spread, **options)
        assert similar[index].item() == pytest.approx(expected, abs=1e-10)
        expected = metrics.structural_similarity(truth, ours, channel_axis=2)
        assert default[index].item() == pytest.approx(expected, abs=1e-10)


def test_noise_ratio_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    generated, target = pictures()
    found = number("PSNR", generated, target)
    for index in range(len(target)):
        expected = metrics.peak_signal_noise_ratio(target[index].numpy(), generated[index].numpy(), data_range=255)
        assert found[index].item() == pytest.approx(expected, abs=1e-10)


def test_padding_pastes_on_a_white_square():
    generated, target = pictures(size=(32, 22))
    wide = [torch.full((3, 3, 32, 32), 255, dtype=torch.uint8) for _ in range(2)]
    wide[0][..., 5:27], wide[1][..., 5:27] = generated, target
    padded = number("SSIM (PATN, padded)", generated, target)
    assert torch.equal(padded, number("SSIM (PATN)", *wide))
    assert (padded > number("SSIM (PATN)", generated, target)).all()  # white agrees with white


def test_the_masked_similarity_is_that_of_masked_images():
    generated, target = pictures()
    points, seen = person()
    shown = keypoint_mask(points, seen, (48, 24))[:, None]
    expected = number("SSIM (PATN)", generated * shown, target * shown)
    assert torch.equal(number("mask-SSIM", generated, target, points, seen), expected)


def test_wrapped_squares_are_those_of_eight_bits():
    generated, target = pictures(error=90)
    difference = generated.numpy() - target.numpy()  # wraps, being uint8
    squares = difference * difference
    expected = 10 * np.log10(255.0**2 / squares.reshape(len(squares), -1).mean(1, dtype=float))
    np.testing.assert_allclose(number("PSNR (8-bit wrap)", generated, target).numpy(), expected, rtol=1e-12)
    assert 27 < expected.mean() < 30  # whatever the error is
    assert number("PSNR", generated, target).mean() < 20


@pytest.mark.parametrize("name", image.NAMES)
def test_a_perfect_picture(name):
    _, target = pictures()
    found = number(name, target, target.clone(), *person())
    if name.startswith("PSNR"):
        floor = 10 * math.log10(255**2 * 3 * 48 * 24)  # one value off by one
        assert found.tolist() == pytest.approx([floor] * 3)
    else:
        assert found.tolist() == pytest.approx([0.0 if name == "L1" else 1.0] * 3, abs=1e-12)


def test_the_worst_picture():
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    white = torch.full_like(black, 255)
    assert number("L1", black, white).item() == pytest.approx(2.0)
    assert number("PSNR", black, white).item() == pytest.approx(0.0)
    assert number("SSIM (7x7)", black, white).item() == pytest.approx(1e-4, rel=1e-3)  # C1 / (255^2 + C1)
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 255
    checks = checks.to(torch.uint8).expand(1, 3, 16, 16)
    for name in ("SSIM (7x7)", "SSIM (PATN)"):
        assert number(name, checks, 255 - checks).item() < -0.98


def test_one_level_off_is_the_least_error_that_exists():
    _, target = pictures(1)
    off = target.clone()
    off[0, 0, 0, 0] ^= 1
    assert number("PSNR", off, target).item() == number("PSNR", target, target).item()


def test_flat_images_have_a_value():
    flat = torch.full((1, 3, 16, 16), 77, dtype=torch.uint8)
    assert number("SSIM (PATN)", flat, flat).item() == pytest.approx(1.0)
    assert 0 <= number("SSIM (PATN)", flat, pictures(1, (16, 16))[1]).item() < 0.01


def test_images_without_a_limb_are_left_out():
    generated, target = pictures()
    points, seen = person()
    seen[1] = 0
    found = number("mask-SSIM", generated, target, points, seen)
    assert found.isnan().tolist() == [False, True, False]
    accumulator = ImageAccumulator(protocols(["mask-SSIM", "L1"]))
    accumulator.update(generated, target, points, seen)
    masked, plain = accumulator.results()
    assert masked.value == pytest.approx(found[[0, 2]].mean().item(), abs=1e-9)
    assert (masked.count, masked.details["left_out"], plain.count, plain.details["left_out"]) == (2, 1, 3, 0)


# --------------------------------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("sizes", [(1,) * 7, (3, 4), (7,)])
def test_batches_and_merges_equal_one_pass_digit_by_digit(sizes):
    generated, target = pictures(7)
    points, seen = person(7)
    whole = ImageAccumulator(protocols(image.NAMES))
    whole.update(generated, target, points, seen)
    parts = [ImageAccumulator(protocols(image.NAMES)) for _ in range(2)]
    batches = zip(*(tensor.split(sizes) for tensor in (generated, target, points, seen)), strict=True)
    for index, batch in enumerate(batches):
        parts[index % 2].update(*batch)
    parts[1].merge(parts[0])
    assert parts[1].results() == whole.results()


def test_sums_do_not_depend_on_order():
    measured = torch.rand(500, generator=RNG, dtype=torch.float64) * 100
    protocol = ImageProtocol("given", "as given", lambda generated, target: measured[generated[:, 0, 0, 0].long()])
    single = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(200, 3, 1, 1)
    forward, backward = ImageAccumulator([protocol]), ImageAccumulator([protocol])
    forward.update(single, single)
    backward.update(single.flip(0), single.flip(0))
    assert forward.results() == backward.results()
    assert forward.results()[0].value == pytest.approx(measured[:200].mean().item(), abs=1e-9)


def test_results_carry_their_protocol():
    generated, target = pictures(2)
    accumulator = ImageAccumulator(protocols(["L1", "SSIM (7x7)"]))
    accumulator.update(generated, target)
    accumulator.update(target, target)
    first, second = accumulator.results()
    assert (first.name, second.name, first.count) == ("L1", "SSIM (7x7)", 4)
    assert "sample covariance" in second.protocol
    assert first.details == {"images": 4, "left_out": 0, "equal_to_target": 2}
    assert first.value == pytest.approx(number("L1", generated, target).sum().item() / 4, abs=1e-9)


def test_memory_does_not_grow_with_the_batch(monkeypatch):
    monkeypatch.setitem(image._ssim._BLOCK, "cpu", 3 * 48 * 24 * 2)
    sizes = []
    protocol = protocols("SSIM (PATN)")[0]

    def watched(generated, target):
        sizes.append(len(generated))
        return protocol.measure(generated, target)

    generated, target = pictures(5)
    found = values(ImageProtocol("watched", "", watched), generated, target)
    assert sizes == [2, 2, 1]
    assert torch.equal(found, number("SSIM (PATN)", generated, target))


def test_inputs_are_never_changed():
    given = (*pictures(), *person())
    before = [tensor.clone() for tensor in given]
    accumulator = ImageAccumulator(protocols(image.NAMES))
    accumulator.update(*given)
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))


def test_strided_images_are_images_too():
    generated, target = pictures()
    turned = [tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for tensor in (generated, target)]
    for name in image.NAMES:
        assert torch.equal(number(name, *turned, *(joints := person())), number(name, generated, target, *joints))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that torch can use")
def test_gpu_numbers_are_those_of_the_cpu():
    pair, joints = pictures(), person()
    for name in image.NAMES:
        found = number(name, *(picture.cuda() for picture in pair), *(joint.cuda() for joint in joints))
        torch.testing.assert_close(found, number(name, *pair, *joints), rtol=1e-12, atol=1e-12)


def test_devices_must_agree():
    _, target = pictures()
    with pytest.raises(ValueError, match=r"generated: expected device cpu \(that of target\), got meta"):
        number("L1", target.to("meta"), target)


# ------------------------------------------------------------------------------------------------------------ errors


def test_unknown_names_offer_the_nearest():
    with pytest.raises(ValueError, match=r"unknown image protocol 'SSIM \(PATM\)'; did you mean 'SSIM \(PATN\)'"):
        protocols(["L1", "SSIM (PATM)"])
    with pytest.raises(ValueError, match=r"'LPIPS \(vgg\)' needs weights; make it by metrics.lpips.protocol"):
        protocols("LPIPS (vgg)")
    assert protocols([]) == []
    with pytest.raises(ValueError, match="expected at least one image protocol"):
        ImageAccumulator([])


@pytest.mark.parametrize(
    ("generated", "error", "words"),
    [
        (np.zeros((1, 3, 16, 16), np.uint8), TypeError, "generated: expected a uint8 tensor .* got ndarray"),
        (torch.zeros(1, 3, 16, 16), TypeError, r"generated: expected uint8 images of 0\.\.255, got torch.float32"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), ValueError, r"expected \(B, 3, H, W\), got \(3, 16, 16\)"),
        (torch.zeros(1, 16, 16, 3, dtype=torch.uint8), ValueError, r"expected \(B, 3, H, W\), got \(1, 16, 16, 3\)"),
        (torch.zeros(1, 3, 0, 16, dtype=torch.uint8), ValueError, r"expected \(B, 3, H, W\), got \(1, 3, 0, 16\)"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ValueError, r"expected \(1, 3, 16, 16\) as the target has"),
    ],
)
def test_images_that_do_not_fit(generated, error, words):
    accumulator = ImageAccumulator(protocols("L1"))
    with pytest.raises(error, match=words):
        accumulator.update(generated, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_images_smaller_than_the_window_are_refused():
    small = torch.zeros(1, 3, 40, 10, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"SSIM \(PATN\): expected images of at least 11 x 11 pixels, got 40 x 10"):
        number("SSIM (PATN)", small, small)
    assert number("SSIM (7x7)", small, small).item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="expected upright images, as 256 x 176, got 12 x 40"):
        number("SSIM (PATN, padded)", *(torch.zeros(1, 3, 12, 40, dtype=torch.uint8),) * 2)


def test_a_mask_needs_key_points_that_fit():
    generated, target = pictures()
    with pytest.raises(ValueError, match=r"mask-SSIM: expected the target's key points \(B, 18, 2\), got none"):
        number("mask-SSIM", generated, target)
    with pytest.raises(ValueError, match="keypoints: expected 3 persons, one per image, got 2"):
        number("mask-SSIM", generated, target, *person(2))
    with pytest.raises(ValueError, match=r"keypoints: expected \(N, 18, 2\), got \(3, 17, 2\)"):
        number("mask-SSIM", generated, target, torch.zeros(3, 17, 2))


def test_a_refused_batch_adds_nothing():
    generated, target = pictures()
    accumulator = ImageAccumulator(protocols(["L1", "mask-SSIM"]))
    accumulator.update(generated, target, *person())
    before = accumulator.results()
    with pytest.raises(ValueError, match="got none"):
        accumulator.update(generated, target)
    broken = ImageProtocol("broken", "broken", lambda generated, target: torch.full((len(target),), torch.inf).double())
    overflowing = ImageAccumulator([broken])
    with pytest.raises(ValueError, match="expected finite values"):
        overflowing.update(generated, target)
    assert accumulator.results() == before
    with pytest.raises(ValueError, match="no image to compare among 0 images"):
        overflowing.results()


def test_nothing_seen_is_an_error_and_an_empty_batch_is_nothing():
    accumulator = ImageAccumulator(protocols(image.NAMES))
    empty = torch.zeros(0, 3, 48, 24, dtype=torch.uint8)
    accumulator.update(empty, empty, torch.zeros(0, 18, 2), torch.zeros(0, 18))
    with pytest.raises(ValueError, match=r"SSIM \(PATN\): no image to compare among 0 images; call update first"):
        accumulator.results()
    accumulator.update(*pictures(), *person())
    accumulator.reset()
    with pytest.raises(ValueError, match="no image"):
        accumulator.results()


def test_other_protocols_do_not_merge():
    with pytest.raises(ValueError, match=r"merge: expected protocols L1, got PSNR"):
        ImageAccumulator(protocols("L1")).merge(ImageAccumulator(protocols("PSNR")))
