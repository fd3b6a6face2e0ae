"""Backbones: torchvision's keys and shapes, values against plain formulae, and files good and bad."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastpose.nn import backbones

# What torchvision's documentation gives; Inception without its auxiliary head, which has 3,326,696.
PARAMETERS = {
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "alexnet": 61_100_840,
    "squeezenet1_1": 1_235_496,
    "inception_v3": 27_161_264 - 3_326_696,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
}
# A key of each network that only the right layout has, and its shape.
TELLING = {
    "vgg16": ("features.28.weight", (512, 512, 3, 3)),
    "vgg19": ("features.34.weight", (512, 512, 3, 3)),
    "alexnet": ("features.10.weight", (256, 256, 3, 3)),
    "squeezenet1_1": ("features.12.expand3x3.weight", (256, 64, 3, 3)),
    "inception_v3": ("Mixed_6d.branch7x7dbl_5.conv.weight", (192, 160, 1, 7)),
    "resnet18": ("layer4.0.downsample.0.weight", (512, 256, 1, 1)),
    "resnet50": ("layer3.5.bn3.running_var", (1024,)),
}


def small(name="squeezenet1_1", **options):
    torch.manual_seed(0)
    return backbones.create(name, **options)


@pytest.mark.parametrize("name", backbones.NAMES)
def test_parameters_are_as_many_as_published(name):
    with torch.device("meta"):
        network = backbones.create(name, head=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    key, shape = TELLING[name]
    assert tuple(network.state_dict()[key].shape) == shape


def test_features_alone_are_smaller():
    with torch.device("meta"):
        network = backbones.create("vgg19")
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_024_384
    assert not any(key.startswith("classifier") for key in network.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "size", "shape"),
    [
        ("vgg16", {}, (32, 64), (1, 512, 1, 2)),
        ("alexnet", {}, (63, 95), (1, 256, 1, 2)),
        ("squeezenet1_1", {}, (64, 32), (1, 512, 3, 1)),
        ("squeezenet1_1", {"head": True}, (64, 32), (1, 1000)),
        ("inception_v3", {}, (75, 75), (1, 1000)),
        ("inception_v3", {"head": False}, (75, 91), (1, 2048)),
        ("resnet18", {}, (64, 32), (1, 512)),
        ("resnet50", {"head": True}, (64, 32), (1, 1000)),
    ],
)
def test_shapes(name, options, size, shape):
    with torch.device("meta"):
        assert backbones.create(name, **options).eval()(torch.zeros(1, 3, *size)).shape == shape


def test_the_last_level_of_a_resnet_may_keep_its_size():
    with torch.device("meta"):
        images = torch.zeros(1, 3, 128, 64)
        assert backbones.create("resnet50").features(images).shape == (1, 2048, 4, 2)
        assert backbones.create("resnet50", last_stride=1).features(images).shape == (1, 2048, 8, 4)


def test_outputs_are_the_first_layers_in_one_pass():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.MaxPool2d(2))
    images = torch.randn(2, 3, 9, 8)
    found = backbones.outputs(features, images, (1, 2, 4))
    for end, maps in zip((1, 2, 4), found, strict=True):
        torch.testing.assert_close(maps, features[:end](images), rtol=0, atol=0)


@pytest.mark.parametrize("ends", [(), (2, 2), (3, 1), (0,), (6,)])
def test_outputs_refuse_ends_that_are_none(ends):
    features = nn.Sequential(*(nn.Identity() for _ in range(5)))
    with pytest.raises(ValueError, match=r"ends: expected rising layer numbers within 1\.\.5, got"):
        backbones.outputs(features, torch.zeros(1), ends)


def test_inception_turns_imagenet_statistics_into_its_own():
    network = small("inception_v3").eval()
    images = torch.rand(2, 3, 75, 75)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        plain = network(images * 2 - 1)
        network.transform_input = True
        normalised = network((images - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(normalised, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item())


def test_a_bottleneck_rectifies_after_the_sum():
    with torch.no_grad():
        block = small("resnet50").eval().layer1[1]
        x = torch.randn(1, 256, 4, 4)
        body = block.bn3(block.conv3(torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))))))
        torch.testing.assert_close(block(x), torch.relu(x + body))


def test_images_are_left_alone():
    images = torch.randn(1, 3, 64, 64)
    before = images.clone()
    for name in ("squeezenet1_1", "alexnet", "resnet18"):
        small(name)(images)
    assert torch.equal(images, before)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_published_file_is_read_and_its_head_dropped(kind, tmp_path):
    source = small(head=True).state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(source, path)
    else:
        torch.save(source, path, _use_new_zipfile_serialization=kind == "zip")
    network = backbones.load("squeezenet1_1", path)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert set(network.state_dict()) == {key for key in source if key.startswith("features.")}
    assert all(torch.equal(value, source[key]) for key, value in network.state_dict().items())
    with_head = backbones.load("squeezenet1_1", path, head=True)
    assert torch.equal(with_head.classifier[1].weight, source["classifier.1.weight"])


def test_an_auxiliary_head_and_missing_batch_counters_are_no_obstacle(tmp_path):
    source = {
        key: value for key, value in small("resnet18", head=True).state_dict().items() if "num_batches" not in key
    }
    torch.save(source, tmp_path / "resnet18.pth")
    assert torch.equal(backbones.load("resnet18", tmp_path / "resnet18.pth").conv1.weight, source["conv1.weight"])
    source = {**small("inception_v3").state_dict(), "AuxLogits.fc.weight": torch.zeros(1000, 768)}
    torch.save(source, tmp_path / "inception.pth")
    assert torch.equal(backbones.load("inception_v3", tmp_path / "inception.pth").fc.bias, source["fc.bias"])


def test_another_network_is_refused_with_its_keys(tmp_path):
    source = small().state_dict()
    torch.save(source, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"weights of alexnet: .*another network, keys: 8 missing \(features.3.weight"):
        backbones.load("alexnet", tmp_path / "other.pth")
    del source["features.0.bias"]
    source |= {"extra.weight": torch.zeros(1), "features.3.squeeze.bias": torch.zeros(7)}
    torch.save(source, tmp_path / "edited.pth")
    with pytest.raises(ValueError) as error:
        backbones.load("squeezenet1_1", tmp_path / "edited.pth")
    assert "1 missing (features.0.bias)" in str(error.value)
    assert "1 unexpected (extra.weight)" in str(error.value)
    assert "1 of another shape (features.3.squeeze.bias (7,) instead of (16,))" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_belongs_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights of vgg19: .* torchvision's format .*none.pth is no file"):
        backbones.load("vgg19", tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", ["cut", "text", "empty"])
def test_damaged_files_are_one_sentence(suffix, content, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    source = small().state_dict()
    (torch.save if suffix == "pth" else save_file)(source, path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"not weights at all", "empty": b""}[content])
    with pytest.raises(ValueError, match=r"bytes\) cannot be read as a .pth or .safetensors file") as error:
        backbones.load("squeezenet1_1", path)
    assert "\n" not in str(error.value)


class Code:
    """A pickle that would run a function when it is read."""

    def __reduce__(self):
        return (print, ("ran",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"features.0.weight": Code()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        backbones.load("squeezenet1_1", tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}, "epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="expected a state dict"):
        backbones.load("squeezenet1_1", tmp_path / "weights.pth")


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown backbone 'vgg_19'; did you mean 'vgg19'"):
        backbones.create("vgg_19")
