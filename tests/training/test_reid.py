"""Re-identification: the data, one step against plain autograd, and a run that beats chance."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import tiny_market
import torch

from fastpose import training
from fastpose.data import create_loader
from fastpose.nn import backbones
from fastpose.training import config as configuration
from fastpose.training import engine, reid, reid_data
from fastpose.training.phases import Update
from fastpose.training.reid_data import Photo, ReidDataConfig


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_market.write(tmp_path_factory.mktemp("market") / "market_data")


def config(root, *overrides: str, recipe: str = "reid/tiny"):
    return configuration.load_recipe(recipe, [f"data.root={root}", *overrides]).config


# ---------------------------------------------------------------------------------------------------------- data


def test_names_tell_identity_and_camera(root):
    found = {(photo.identity, photo.camera) for photo in reid_data.read_folder(root / "test")}
    assert found == {(person, camera) for person, cameras in tiny_market.TEST.items() for camera in cameras}


def test_the_folder_above_will_do_and_published_names_count(root, tmp_path):
    assert reid_data.folder(root.parent, "train") == root / "train"
    for name in ("bounding_box_train", "bounding_box_test", "query"):
        tiny_market.write_images(tmp_path / name, {1: (1, 2)})
    queries, gallery = reid_data.test_photos(ReidDataConfig(root=str(tmp_path)))
    assert [photo.path.parent.name for photo in (*queries, *gallery)] == ["query"] * 2 + ["bounding_box_test"] * 2
    assert len(reid_data.train_photos(ReidDataConfig(root=str(tmp_path)))) == 2


def test_every_query_has_a_match_by_another_camera(root):
    queries, gallery = reid_data.split_queries(reid_data.read_folder(root / "test"))
    chosen = [(photo.identity, photo.camera) for photo in queries]
    # 5 is seen by one camera only; of 3 and its two images one must stay; 7 keeps its second image of camera 6
    assert chosen == [(1, 1), (3, 2), (7, 4), (7, 5)]
    assert len(queries) + len(gallery) == len(tiny_market.names(tiny_market.TEST))
    for query in queries:
        assert any(p.identity == query.identity and p.camera != query.camera for p in gallery)


def test_one_image_of_a_camera_is_a_query_the_first_by_name(tmp_path):
    cameras = (1, 1, 2, 2, 3, 3)
    photos = [Photo(tmp_path / str(number), 9, camera) for number, camera in enumerate(cameras)]
    queries, gallery = reid_data.split_queries(photos)
    assert [photo.path.name for photo in queries] == ["0", "2", "4"]
    assert [photo.path.name for photo in gallery] == ["1", "3", "5"]


def test_samples_are_a_function_of_seed_epoch_and_index(root):
    data = config(root).data
    one, other = reid_data.train_dataset(data, 0), reid_data.train_dataset(data, 0)
    assert torch.equal(one[(1, 3)]["image"], other[(1, 3)]["image"])
    assert one[(0, 0)]["image"].shape == (3, 32, 16)
    assert sorted({int(one[index]["label"]) for index in range(len(one))}) == [0, 1, 2, 3]
    views = {one[(epoch, 3)]["image"].numpy().tobytes() for epoch in range(8)}
    assert len(views) > 2


def test_augmentation_mirrors_and_erases(root):
    image = np.arange(32 * 16 * 3, dtype=np.uint8).reshape(32, 16, 3)
    rng = np.random.default_rng(0)
    never = replace(config(root).data, flip=False, erasing=0.0)
    assert (reid_data.augment(image, never, rng) == image).all()
    flips = [reid_data.augment(image, replace(never, flip=True), rng) for _ in range(40)]
    mirrored = sum((flip == image[:, ::-1]).all() for flip in flips)
    assert 10 < mirrored < 30
    fill = np.rint(255 * np.array(reid_data.IMAGENET_MEAN))
    shares = [(reid_data.augment(image, replace(never, erasing=1.0), rng) == fill).all(2).mean() for _ in range(50)]
    assert 0.01 < min(shares) < 0.1
    assert 0.25 < max(shares) < 0.45


def test_the_test_set_comes_whole_and_in_order(root):
    dataset = reid_data.test_dataset(config(root).data)
    assert dataset.queries == 4
    assert [int(dataset[index]["query"]) for index in range(6)] == [1, 1, 1, 1, 0, 0]
    assert len(dataset) == 14
    assert dataset.fingerprint != reid_data.train_dataset(config(root).data, 0).fingerprint


def test_promise_17_unreadable_images_are_skipped_in_training_and_left_out_of_scores(root, tmp_path, caplog):
    copy = shutil.copytree(root, tmp_path / "market")
    settings = config(copy, "data.on_error=skip", "data.skip_limit=2").data
    train, test = reid_data.train_dataset(settings, 0), reid_data.test_dataset(settings)
    for dataset in (train, test):
        dataset.photos[1].path.write_bytes(b"")
    shown = [int(train[(epoch, 1)]["index"]) for epoch in range(9)]
    assert shown == [int(reid_data.train_dataset(settings, 0)[(epoch, 1)]["index"]) for epoch in range(9)]
    assert 1 not in shown
    assert len(set(shown)) > 1
    assert int(train[(0, 1)]["label"]) == int(train[shown[0]]["label"])
    scored = [index for batch in create_loader(test, 4, shuffle=False) for index in batch["index"].tolist()]
    assert scored == [index for index in range(len(test)) if index != 1]
    assert f"1 of {len(test)} samples are left out of this evaluation" in caplog.text
    for dataset in (train, test):
        for photo in dataset.photos[:3]:
            photo.path.write_bytes(b"")
    with pytest.raises(ValueError, match="3 unreadable images, more than the limit of 2; last: market image"):
        [train[index] for index in range(3)]


def test_only_the_manifests_real_images(root, tmp_path):
    mixed = tiny_market.write(tmp_path / "mixed")
    rows = [
        {"name": name, "kind": "real" if n % 2 else "generated"}
        for n, name in enumerate(tiny_market.names(tiny_market.TRAIN))
    ]
    data = replace(config(mixed).data, only_real=True)
    with pytest.raises(FileNotFoundError, match=r"data.only_real needs a set that fastpose augment wrote"):
        reid_data.train_photos(data)
    (mixed / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [photo.path.name for photo in reid_data.train_photos(data)] == [
        row["name"] for row in sorted(rows, key=lambda row: row["name"]) if row["kind"] == "real"
    ]
    (mixed / "manifest.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="expected a line with 'name' and 'kind'"):
        reid_data.train_photos(data)


def test_bad_folders_are_one_sentence(root, tmp_path):
    with pytest.raises(ValueError, match=r"data.root: data set 'market' needs the folder"):
        reid_data.train_dataset(ReidDataConfig(), 0)
    with pytest.raises(FileNotFoundError, match="no folder train or bounding_box_train"):
        reid_data.train_dataset(ReidDataConfig(root=str(tmp_path)), 0)
    tiny_market.write_images(tmp_path / "train", {2: (1,)})
    with pytest.raises(FileNotFoundError, match=r"no folder bounding_box_test or test .*set data.test_root"):
        reid_data.test_dataset(ReidDataConfig(root=str(tmp_path)))
    tiny_market.write_images(tmp_path / "test", {2: (1, 2)})
    with pytest.raises(ValueError, match="1 identities are in training and test set, first 2"):
        reid_data.test_dataset(ReidDataConfig(root=str(tmp_path)))
    (tmp_path / "train" / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="which tells who is on it"):
        reid_data.train_dataset(ReidDataConfig(root=str(tmp_path)), 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.name=lsp", "data.name: expected one of market"),
        ("data.erasing=2", "data.erasing: expected a probability"),
        ("model.backbone=vgg", "model.backbone: expected one of"),
        ("model.weights=a.pth", "backbone 'small' has no published weights"),
        ("loss.smoothing=1", "loss.smoothing: expected a share"),
        ("optimizer.lr=0", "optimizer.lr: expected a positive number"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay: expected 0 or more"),
        ("schedule.milestones=0", "schedule.milestones: expected epochs from 1 on"),
        ("test.similarity=cos", "test.similarity: expected one of cosine"),
    ],
)
def test_bad_settings_are_one_sentence(root, override, message):
    with pytest.raises(ValueError, match=message):
        config(root, override)


# ---------------------------------------------------------------------------------------------------------- training


def batch(size: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (size, 3, 32, 16), generator=generator, dtype=torch.uint8)
    return {"image": image, "label": torch.arange(size) % 4}


def test_a_step_is_cross_entropy_with_the_backbones_own_rate(root):
    overrides = ("optimizer.name=sgd", "optimizer.weight_decay=0", "optimizer.lr=0.1", "optimizer.backbone_factor=0.5")
    trainer = reid.ReidTrainer(config(root, *overrides, "model.dropout=0", "loss.smoothing=0.2"))
    network = trainer.networks["embedder"]
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    twin = reid.build_network(trainer.config)
    twin.load_state_dict(network.state_dict())
    _, logits = twin(
        (batch()["image"].float() / 255 - torch.tensor(reid_data.IMAGENET_MEAN).view(3, 1, 1)).div(
            torch.tensor(reid_data.IMAGENET_STD).view(3, 1, 1)
        )
    )
    target = torch.full((4, 4), 0.05) + 0.8 * torch.eye(4)  # 1 - 0.2 on the person, 0.2 over all four
    loss = -(target * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    update = Update(trainer.networks, trainer.optimizers, main="embedder")
    update.begin(1, "", last=True)
    logged = trainer.step(batch(), update)
    assert float(logged["identity"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, weight), wanted in zip(network.named_parameters(), twin.parameters(), strict=True):
        rate = 0.1 * (0.5 if name.startswith("backbone.") else 1.0)
        moved = rate * 1.9 * wanted.grad  # Nesterov's first step with momentum 0.9
        assert torch.allclose(before[name] - weight, moved, atol=1e-6), name


def test_the_number_of_persons_must_be_the_networks(root):
    trainer = reid.ReidTrainer(config(root, "model.identities=7"))
    with pytest.raises(ValueError, match=r"expected 4, as many .* pass model.identities=4"):
        trainer.train_dataset()


def test_the_features_are_of_both_views_and_the_mode_stays(root):
    network = reid.build_network(config(root))
    images = batch()["image"]
    both = reid.embed(network, images, flip=True)
    assert torch.allclose(both, reid.embed(network, images.flip(-1), flip=True), atol=1e-6)
    assert torch.allclose(reid.embed(network, images, flip=False).norm(dim=1), torch.ones(4))
    assert network.training


def test_a_resnet_begins_with_the_users_weights(root, tmp_path):
    given = backbones.create("resnet18")
    torch.save(given.state_dict(), tmp_path / "r18.pth")
    words = ("model.backbone=resnet18", f"model.weights={tmp_path / 'r18.pth'}")
    trainer = reid.ReidTrainer(config(root, *words))
    started = trainer.networks["embedder"].backbone.state_dict()
    assert all(torch.equal(started[key], value) for key, value in given.state_dict().items())
    assert all(weight.requires_grad for weight in trainer.networks["embedder"].parameters())
    with pytest.raises(FileNotFoundError, match=r"none.pth"):
        reid.ReidTrainer(config(root, words[0], "model.weights=none.pth"))


def test_schedules(root):
    for words, last in ((("schedule.milestones=1",), 0.1), (("schedule=cosine",), 0.0), (("schedule=constant",), 1.0)):
        trainer = reid.ReidTrainer(config(root, *words, "run.epochs=2"))
        for _ in range(2):
            trainer.optimizers["embedder"].step()
            trainer.schedulers["embedder"].step()
        rate = trainer.optimizers["embedder"].param_groups[1]["lr"]
        assert rate == pytest.approx(last * trainer.config.optimizer.lr, abs=1e-9)


def test_a_run_fits_its_persons_and_can_be_evaluated(root, tmp_path):
    words = [f"data.root={root}", "run.epochs=20", "run.batch_size=8", "run.max_steps=0", "run.evaluate_every=20"]
    words += ["data.erasing=0", "model.dropout=0", "optimizer.lr=0.01", "schedule=cosine", "run.checkpoint_every=20"]
    recipe = configuration.load_recipe("reid/tiny", words)
    result = engine.launch(recipe, lambda: reid.ReidTrainer(recipe.config), out=tmp_path, progress=False)
    values = {row.name: row.value for row in result.results}
    assert list(values) == ["market test mAP", "market test rank-1", "market test rank-5", "market test rank-10"]
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    losses = [row["identity"] for row in map(json.loads, lines) if row["kind"] == "train"]
    assert losses[0] == pytest.approx(np.log(4), abs=0.05)  # four persons, nothing known yet
    assert np.mean(losses[-6:]) < 0.5
    weights = result.folder / "weights" / "best.safetensors"
    again = training.evaluate("reid/tiny", weights)
    assert again[0].value == pytest.approx(result.best["value"])
    assert (result.folder / "samples" / "ranking.png").stat().st_size > 500


class MeanColour(torch.nn.Module):
    """Features that are the mean colour, and no classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        back = images * torch.tensor(reid_data.IMAGENET_STD).view(3, 1, 1)
        return self.scale * (back + torch.tensor(reid_data.IMAGENET_MEAN).view(3, 1, 1)).mean((2, 3)), None


def test_the_ranking_shows_no_junk_and_frames_by_person(root, tmp_path, monkeypatch):
    from fastpose.visual import grids

    # (identity, camera, blue): the query is red; the more blue, the less alike
    rows = [(4, 1, 0), (4, 1, 10), (-1, 2, 20), (7, 1, 60), (4, 2, 90), (0, 3, 120), (9, 1, 150)]
    photos = []
    for number, (person, camera, blue) in enumerate(rows):
        photos.append(Photo(tmp_path / f"{number}.png", person, camera))
        grids.save_image(photos[-1].path, np.full((32, 16, 3), (200, 0, blue), np.uint8))
    seen = []
    monkeypatch.setattr(grids, "grid", lambda tiles, columns, captions: seen.append((tiles, columns, captions)))
    settings = config(root)
    reid.ranking(MeanColour(), reid_data.ReidDataset(photos, settings.data, queries=1), settings, shown=6)
    tiles, columns, captions = seen[0]
    assert (columns, captions) == (7, ["query", "1", "2", "3", "4", "5", "6"])
    shown = [(tuple(tile[0, 0].tolist()), tuple(tile[10, 10].tolist())) for tile in tiles]
    assert shown == [
        ((0, 0, 0), (200, 0, 0)),
        ((196, 52, 42), (200, 0, 60)),  # not the same camera's image, nor the junk, although both are closer
        ((38, 142, 60), (200, 0, 90)),
        ((196, 52, 42), (200, 0, 120)),
        ((196, 52, 42), (200, 0, 150)),
        *[((255, 255, 255), (255, 255, 255))] * 2,
    ]


def test_recipes_of_the_baseline_load():
    baseline = configuration.load_recipe("reid/market-baseline")
    assert baseline.paper == {reid.MONITOR: 71.8}
    assert (baseline.config.model.identities, baseline.config.data.height) == (751, 256)
    assert configuration.load_recipe("reid/small").config.model.identities == 50


def test_the_real_sample_gives_a_query_for_nearly_every_camera(shared, tmp_path):
    archive = shared / "data" / "market1501_sample" / "market_data.tar"
    if not archive.is_file():
        pytest.skip("the sample of Market-1501 is absent")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    data = ReidDataConfig(root=str(tmp_path))
    queries, gallery = reid_data.test_photos(data)
    assert (len(queries), len(gallery)) == (81, 97)
    assert len({photo.identity for photo in reid_data.train_photos(data)}) == 50
