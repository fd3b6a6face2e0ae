"""LPIPS: torchmetrics' own network with the same trunk, equal and different images, files."""

from __future__ import annotations

import builtins
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from fastpose.metrics import ImageAccumulator, image, lpips
from fastpose.nn import backbones

pytest.importorskip("torchmetrics", reason="the eval extra is not installed")

TRUNKS = {"vgg": "vgg16", "squeeze": "squeezenet1_1", "alex": "alexnet"}


def trunk(net, seed=0):
    torch.manual_seed(seed)
    return backbones.create(TRUNKS[net]).eval()


def pictures(count=2, size=(64, 48), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 256, (count, 3, *size), generator=generator).to(torch.uint8) for _ in range(2))


def theirs(net, network, monkeypatch):
    """Torchmetrics' LPIPS network, its trunk's layers being those of ``network``."""
    module = importlib.import_module("torchmetrics.functional.image.lpips")
    monkeypatch.setattr(module, "_get_tv_model_features", lambda name, pretrained=False: network.features)
    return module._LPIPS(pretrained=True, net=net, pnet_rand=True)


@pytest.mark.parametrize("net", lpips.NETS)
def test_torchmetrics_finds_the_same(net, monkeypatch):
    network = trunk(net)
    ours, other = lpips.LPIPS(net, network), theirs(net, network, monkeypatch)
    generated, target = (picture.float() / 127.5 - 1 for picture in pictures())
    with torch.no_grad():
        found, expected = ours(generated, target), other(generated, target).flatten()
    assert expected.min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)


def test_the_formula_in_plain_words():
    """Features of unit length, squared differences weighted by channel, mean over places, sum over slices."""
    network = trunk("squeeze")
    ours = lpips.LPIPS("squeeze", network)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    first, second = (picture[:1].float() / 127.5 - 1 for picture in pictures())
    total = 0.0
    for end, head in zip((2, 5, 8, 10, 11, 12, 13), ours.heads, strict=True):
        units = []
        for images in (first, second):
            maps = network.features[:end]((images - shift[:, None, None]) / scale[:, None, None])
            units.append(maps / maps.square().sum(1, keepdim=True).sqrt().clamp(min=1e-10))
        weighted = (units[0] - units[1]).square() * head[:, None, None]
        total += weighted.sum(1).mean().item()
    assert ours(first, second).item() == pytest.approx(total, rel=1e-5)
    assert all((head >= 0).all() for head in ours.heads)  # the published weights


@pytest.mark.parametrize("net", lpips.NETS)
def test_equal_images_have_no_distance_and_others_have_one(net):
    accumulator = ImageAccumulator([lpips.protocol(net, trunk(net))])
    generated, target = pictures()
    accumulator.update(target, target)
    perfect = accumulator.results()[0]
    assert (perfect.name, perfect.value, perfect.count) == (f"LPIPS ({net})", 0.0, 2)
    assert f"v0.1 by {TRUNKS[net]}" in perfect.protocol
    near = target // 2 + generated // 2
    far, between = (
        image.values(lpips.protocol(net, trunk(net)), each, target).mean().item() for each in (generated, near)
    )
    assert 0 < between < far


def test_protocols_of_images_and_lpips_go_together():
    generated, target = pictures()
    accumulator = ImageAccumulator([*image.protocols("L1"), lpips.protocol("squeeze", trunk("squeeze"))])
    accumulator.update(generated[:1], target[:1])
    accumulator.update(generated[1:], target[1:])
    names = [result.name for result in accumulator.results()]
    assert names == ["L1", "LPIPS (squeeze)"]
    whole = image.values(lpips.protocol("squeeze", trunk("squeeze")), generated, target)
    assert accumulator.results()[1].value == pytest.approx(whole.mean().item(), rel=1e-5)


@pytest.mark.parametrize("net", lpips.NETS)
def test_the_protocol_shows_bytes_as_minus_one_to_one(net):
    network, given = trunk(net), pictures()
    expected = lpips.LPIPS(net, network)(*(2 * (picture.float() / 255) - 1 for picture in given)).double()
    found = image.values(lpips.protocol(net, network), *given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    narrow = lpips.LPIPS(net, network)(*(picture.float() / 255 for picture in given)).double()
    assert ((narrow - expected).abs() > 1e-2 * expected).all()  # another range is another distance


def test_the_trunk_may_be_a_file(tmp_path):
    network = trunk("squeeze")
    torch.save(backbones.create("squeezenet1_1", head=True).state_dict() | network.state_dict(), tmp_path / "trunk.pth")
    pair = [picture.float() / 127.5 - 1 for picture in pictures()]
    from_file = lpips.LPIPS("squeeze", tmp_path / "trunk.pth")
    assert torch.equal(from_file(*pair), lpips.LPIPS("squeeze", network)(*pair))
    assert not any(parameter.requires_grad for parameter in from_file.parameters())


def test_a_network_and_images_given_stay_as_they_are():
    network, (generated, target) = trunk("squeeze").train(), pictures()
    before = generated.clone(), target.clone()
    image.values(lpips.protocol("squeeze", network), generated, target)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(generated, before[0])
    assert torch.equal(target, before[1])


def test_a_gradient_reaches_the_generated_image():
    generated, target = (picture.float() / 127.5 - 1 for picture in pictures(1))
    generated.requires_grad_(True)
    lpips.LPIPS("squeeze", trunk("squeeze"))(generated, target).sum().backward()
    assert generated.grad is not None
    assert generated.grad.abs().sum() > 0


def test_unknown_nets_and_wrong_trunks_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"net: expected one of vgg, squeeze, alex, got 'squeez'; did you mean 'squeeze'"
    ):
        lpips.LPIPS("squeez", trunk("squeeze"))
    for other in (nn.Linear(1, 1), trunk("alex"), backbones.create("vgg19")):
        with pytest.raises(ValueError, match=f"trunk: expected the layers of vgg16 .*, got {type(other).__name__}"):
            lpips.LPIPS("vgg", other)
    with pytest.raises(FileNotFoundError, match=r"weights of vgg16: .* is no file"):
        lpips.LPIPS("vgg", tmp_path / "none.pth")


def test_heads_of_another_net_are_refused(tmp_path):
    heads = Path(importlib.util.find_spec("torchmetrics").origin).parent / "functional/image/lpips_models"
    with pytest.raises(ValueError, match=r"LPIPS \(squeeze\): expected lin0.model.1.weight"):
        lpips.LPIPS("squeeze", trunk("squeeze"), heads / "alex.pth")
    with pytest.raises(FileNotFoundError, match=r"weights of LPIPS \(alex\): .* is no file"):
        lpips.LPIPS("alex", trunk("alex"), tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        lpips.LPIPS("alex", trunk("alex"), tmp_path / "text.pth")


def test_images_that_do_not_fit():
    network = lpips.LPIPS("squeeze", trunk("squeeze"))
    with pytest.raises(
        ValueError, match=r"images: expected \(B, 3, H, W\) of at least 32 x 32 pixels, got \(1, 3, 31, 64\)"
    ):
        network(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))
    with pytest.raises(TypeError, match="images: expected float32"):
        network(*pictures())
    small = torch.zeros(1, 3, 16, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"LPIPS \(squeeze\): expected images of at least 32 x 32 pixels, got 16 x 64"):
        image.values(lpips.protocol("squeeze", trunk("squeeze")), small, small)


def test_damaged_weights_are_noticed():
    network = trunk("squeeze")
    with torch.no_grad():
        network.features[0].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"LPIPS \(squeeze\): the distance is not finite; the trunk's weights"):
        image.values(lpips.protocol("squeeze", network), *pictures())


def test_a_missing_extra_says_what_to_install(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchmetrics" else real(name))
    with pytest.raises(ImportError, match=r'which is not installed; run: pip install "fastpose\[eval\]"'):
        lpips.LPIPS("squeeze", trunk("squeeze"))
    bare = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: bare)
    with pytest.raises(FileNotFoundError, match=r"squeeze.pth is missing from the installed torchmetrics; name the"):
        lpips.LPIPS("squeeze", trunk("squeeze"))


def test_torchmetrics_itself_is_not_imported(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torchmetrics")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def watched(name, *rest, **options):
        assert not name.startswith("torchmetrics")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", watched)
    lpips.LPIPS("squeeze", trunk("squeeze"))
