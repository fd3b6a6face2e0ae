"""The order of updates of system 002, against the algorithm written out in plain torch, and what each stage trains."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transfer_cases import Recorder, descend, update_for, weights, with_sgd

from fastpose import ops
from fastpose.training import config as configuration
from fastpose.training import pose3d, pose3d_data
from fastpose.training.pose3d_config import Pose3dConfig
from fastpose.training.pose_data import MPII_MEAN

PELVIS, THORAX = 6, 7
KNOWN = [True, False, True, False, False, True]  # which samples of a batch have 3D truth
REAL, FAKES = [0, 2, 5], {"both": [1, 2, 4], "3d": [0, 2, 5], "wild": [1, 3, 4]}
SECOND = {"both": [0, 3, 5], "3d": [0, 2, 5], "wild": [1, 3, 4]}  # of the critic's second step with one batch
BONES = (((0, 1), (1, 2), (3, 4), (4, 5)), ((10, 11), (11, 12), (13, 14), (14, 15)), ((2, 6), (3, 6)))


def trainer_for(*overrides: str) -> pose3d.Pose3dTrainer:
    return pose3d.Pose3dTrainer(configuration.load_recipe("pose3d/tiny", overrides).config)


def batch_for(trainer: Any, seed: int = 0) -> dict[str, Tensor]:
    """Six samples; joints are hidden in a true pose, in a wild one, and one joint of truth has no depth."""
    generator = torch.Generator().manual_seed(seed)
    side, known = trainer.config.data.image_size, torch.tensor(KNOWN)
    visibility = torch.ones(6, 16)
    visibility[0, 3] = visibility[1, 7] = visibility[4, :6] = 0
    depth_known = known[:, None].float().expand(6, 16).clone()
    depth_known[2, 9] = 0
    depth = torch.rand(6, 16, generator=generator) - 0.5
    return {
        "image": torch.randint(0, 256, (6, 3, side, side), generator=generator, dtype=torch.uint8),
        "keypoints": torch.rand(6, 16, 2, generator=generator) * (side // 4 - 1),
        "visibility": visibility,
        "depth": depth * depth_known,
        "depth_known": depth_known,
        "domain": (~known).long(),
        "index": torch.arange(6),
    }


# ---- by hand ---------------------------------------------------------------------------------------------------


def soft_place(plane: Tensor, temperature: float) -> Tensor:
    """The expected pixel (2,) as (x, y) of a plane (H, W) in the 9 x 9 pixels round its maximum."""
    row, column = divmod(int(plane.argmax()), plane.shape[1])
    rows, columns = slice(max(row - 4, 0), row + 5), slice(max(column - 4, 0), column + 5)
    window = plane[rows, columns] / plane.max().clamp(min=0.01)
    share = torch.softmax(window.flatten() / temperature, 0).view(window.shape)
    x = share.sum(0) @ torch.arange(plane.shape[1], dtype=share.dtype)[columns]
    y = share.sum(1) @ torch.arange(plane.shape[0], dtype=share.dtype)[rows]
    return torch.stack((x, y))


def in_cube(points: Tensor, depth: Tensor, side: int) -> Tensor:
    return torch.cat((2 * points / side - 1, depth[..., None]), -1)


def hidden(heatmaps: Tensor, joints: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Blank what is not shown, sample by sample."""
    maps, places = [], []
    for heatmap, joint, flags in zip(heatmaps, joints, shown, strict=True):
        maps.append(torch.stack([m if f else torch.zeros_like(m) for m, f in zip(heatmap, flags, strict=True)]))
        middle = joint[flags].mean(0)
        places.append(torch.stack([j if f else middle for j, f in zip(joint, flags, strict=True)]))
    return torch.stack(maps), torch.stack(places)


def label_loss(scores: Tensor, label: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


class ByHand:
    """One step of the algorithm without any of the package's machinery."""

    def __init__(self, trainer: Any, batch: dict[str, Tensor]) -> None:
        self.settings, self.batch = trainer.config.loss, batch
        self.networks = copy.deepcopy(trainer.networks)
        self.image = (batch["image"].float() / 255 - torch.tensor(MPII_MEAN).view(1, 3, 1, 1)).double()
        self.side = self.image.shape[-1] // 4
        self.points, self.depth = batch["keypoints"].double(), batch["depth"].double()
        self.visible, self.known = batch["visibility"] > 0, batch["depth_known"] > 0

    def target(self, shown: Tensor) -> Tensor:
        size = (self.side, self.side)
        return ops.render_gaussian_heatmaps(self.points, size, self.settings.sigma, visibility=shown.double())

    def pose_loss(self, heatmaps: list[Tensor], depth: Tensor) -> Tensor:
        """Equation 2."""
        target = self.target(self.visible)
        stacks = torch.stack([(one - target).square() for one in heatmaps])
        depths = (depth - self.depth).square() * self.known
        if self.settings.pose_reduction == "sum":
            return (stacks.sum() + self.settings.depth_weight * depths.sum()) / 6
        return stacks.mean((1, 2, 3, 4)).sum() + self.settings.depth_weight * depths.mean()

    def poses(self, heatmaps: Tensor, depth: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """Return heatmaps, joints and what is shown of the true poses and of the estimates."""
        real_shown = self.visible & self.known
        target = self.target(real_shown)
        real = (target, in_cube(self.places(target), self.depth, self.side), real_shown)
        behind = depth - depth[:, PELVIS, None]
        return real, (heatmaps, in_cube(self.places(heatmaps), behind, self.side), self.visible)

    def places(self, heatmaps: Tensor) -> Tensor:
        """Return the pixels (B, K, 2) of the maxima, soft or hard."""
        planes = heatmaps.flatten(0, 1)
        places = torch.stack([soft_place(plane, self.settings.temperature) for plane in planes]).view(6, 16, 2)
        if self.settings.coordinates == "straight_through":
            best = heatmaps.flatten(2).argmax(-1)
            hard = torch.stack((best % self.side, best // self.side), -1).double()
            places = hard + places - places.detach()
        return places

    def critic_loss(self, real: Any, fake: Any, others: list[int]) -> Tensor:
        """Equation 3, or a Wasserstein critic's loss with its penalty."""
        critic, settings = self.networks["discriminator"], self.settings
        common = real[2][REAL] & fake[2][others]
        true = (self.image[REAL], *hidden(real[0][REAL], real[1][REAL], common))
        made = (self.image[others], *hidden(fake[0][others].detach(), fake[1][others].detach(), common))
        scores = critic(*[torch.cat(pair) for pair in zip(true, made, strict=True)])
        if settings.gan == "bce":
            return label_loss(scores[:3], 1.0) + label_loss(scores[3:], 0.0)
        share = torch.rand(3).double()
        points = []
        for one, other in zip(true, made, strict=True):
            weight = share.view(-1, *[1] * (one.dim() - 1))
            points.append((weight * one + (1 - weight) * other).requires_grad_())
        gradients = torch.autograd.grad(critic(*points).sum(), points, create_graph=True)
        norm = torch.cat([gradient.flatten(1) for gradient in gradients], 1).norm(dim=1)
        excess = norm - 1 if settings.penalty_form == "gp" else (norm - 1).clamp(min=0)
        return scores[3:].mean() - scores[:3].mean() + settings.penalty * excess.square().mean()

    def adversarial(self, real: Any, fake: Any) -> Tensor:
        """Equation 4; a critic with batch norm has as many true poses as partners of the estimates."""
        critic = self.networks["discriminator"]
        if self.settings.gan == "wgan-gp":
            return -critic(self.image, *hidden(*fake)).mean()
        rows = REAL + REAL
        common = real[2][rows] & fake[2]
        true = (self.image[rows], *hidden(real[0][rows], real[1][rows], common))
        made = (self.image, *hidden(fake[0], fake[1], common))
        return label_loss(critic(*[torch.cat(pair) for pair in zip(true, made, strict=True)])[6:], 1.0)

    def step(self) -> dict[str, nn.Module]:
        heatmaps, depth = self.networks["generator"](self.image)
        real, fake = self.poses(heatmaps[-1], depth)
        for turn in range(self.settings.critic_steps):
            others = (FAKES if turn == 0 else SECOND)[self.settings.fakes]
            descend(self.networks["discriminator"], self.critic_loss(real, fake, others))
        loss = self.pose_loss(heatmaps, depth) + self.settings.lambda_g * self.adversarial(real, fake)
        descend(self.networks["generator"], loss)
        return self.networks


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in float64, so that rounding is not made large by batch norm."""
    normalise = pose3d_data.normalise
    monkeypatch.setattr(pose3d_data, "normalise", lambda image, data: normalise(image, data).double())


def in_double(trainer: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    for network in trainer.networks.values():
        network.double()
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


WGAN = ("loss.gan=wgan-gp", "discriminator.norm=none")


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("loss.fakes=wild", "discriminator.sources=image,maps"),
        ("loss.fakes=3d", "discriminator.sources=image,geometry"),
        ("loss.coordinates=straight_through", "discriminator.sources=geometry", "loss.sigma=1.75"),
        ("loss.pose_reduction=sum", "loss.depth_weight=0.1", "optimizer.generator.lr=1"),
        ("discriminator.depth_maps=onehot",),
        WGAN,
        (*WGAN, "loss.critic_steps=2", "loss.penalty_form=lp", "loss.penalty=3"),
    ],
)
def test_a_step_is_the_algorithm(overrides: tuple[str, ...]) -> None:
    """With lambda 1, so that the adversarial part of the generator's step is seen."""
    trainer = trainer_for("loss.missing=zero", "loss.lambda_g=1", *overrides)
    batch = in_double(trainer, batch_for(trainer))
    trainer = with_sgd(trainer)
    torch.manual_seed(3)
    expected = ByHand(trainer, batch).step()
    before = {name: weights(network) for name, network in trainer.networks.items()}
    torch.manual_seed(3)
    trainer.step(batch, update_for(trainer))
    for name, network in trainer.networks.items():
        assert not torch.equal(weights(network), before[name])
        torch.testing.assert_close(weights(network), weights(expected[name]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("overrides", [(), (*WGAN, "loss.critic_steps=3")])
def test_the_critic_is_updated_first_and_by_nothing_else(overrides: tuple[str, ...]) -> None:
    trainer = trainer_for(*overrides)
    passes: list[int] = []
    trainer.networks["generator"].register_forward_hook(lambda *_: passes.append(1))
    update = Recorder(trainer)  # sees to it that no other network changes with an update
    trainer.step(batch_for(trainer), update)
    assert update.order == ["discriminator"] * trainer.config.loss.critic_steps + ["generator"]
    assert len(passes) == 1
    assert all(p.grad is None for network in trainer.networks.values() for p in network.parameters())


def test_the_adversarial_loss_goes_through_the_updated_critic() -> None:
    """With a critic that learns fast the generator's step is another than with one that does not learn."""
    steps = []
    for rate in (1e-12, 1.0):
        trainer = with_sgd(trainer_for("loss.lambda_g=1"))
        trainer.optimizers["discriminator"].param_groups[0]["lr"] = rate
        trainer.step(batch_for(trainer), update_for(trainer))
        steps.append(weights(trainer.networks["generator"]))
    assert not torch.allclose(steps[0], steps[1])


def shown_in_a_step(trainer: Any, batch: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
    """Return what the critic reads in its passes, the generator's the last."""
    shown: list[tuple[Tensor, ...]] = []
    critic = trainer.networks["discriminator"]
    critic.register_forward_pre_hook(lambda _, given: shown.append(tuple(x.detach() for x in given)))
    trainer.step(batch, update_for(trainer))
    return shown


def test_hidden_joints_tell_nothing() -> None:
    """Half of what the critic is shown is real, and both halves hide the same joints."""
    trainer = trainer_for()
    shown, judged = shown_in_a_step(trainer, batch_for(trainer))
    blank = (shown[1] == 0).all(-1).all(-1)  # (6, K)
    assert torch.equal(blank[:3], blank[3:])
    assert (
        blank[:3].sum().item() == 9
    )  # joint 3 and its partner's 7; joint 9 without depth; six of the last one's partner
    assert judged[1].shape[0] == 6 + 6
    blank = (judged[1] == 0).all(-1).all(-1)  # (12, K)
    assert torch.equal(blank[:6], blank[6:])
    assert (blank[6:] >= (batch_for(trainer)["visibility"] == 0)).all()


def knows(trainer: Any, batch: dict[str, Tensor], offset: Tensor) -> None:
    """Let the generator give the truth, its depth moved by a number per sample (B,)."""
    generator = trainer.networks["generator"]
    heatmaps = ops.render_gaussian_heatmaps(
        batch["keypoints"], (trainer.config.data.image_size // 4,) * 2, trainer.config.loss.sigma
    )
    depth = batch["depth"] + offset[:, None]
    generator.register_forward_hook(lambda *given: ([heatmaps + 0 * given[2][0][-1]], depth + 0 * given[2][1]))


def exact(batch: dict[str, Tensor], root: int) -> dict[str, Tensor]:
    """All with truth and labels; depths in 1/64, so that an offset is added and taken away without rounding."""
    depth = (batch["depth"] * 64).round() / 64
    ones = torch.ones_like(depth)
    return batch | {"visibility": ones, "depth_known": ones, "depth": depth - depth[:, root : root + 1]}


SEEN = [
    ("discriminator.sources=image,maps",),
    ("discriminator.sources=image,geometry",),
    ("discriminator.sources=image,geometry,maps",),
    ("loss.coordinates=straight_through",),
    ("discriminator.depth_maps=constant",),
    ("discriminator.depth_maps=onehot", "discriminator.depth_maps_from=joints"),
    ("data.depth_root=thorax",),
]


@pytest.mark.parametrize("overrides", SEEN)
def test_a_perfect_estimate_cannot_be_told_from_the_truth(overrides: tuple[str, ...]) -> None:
    """To the last bit of all that the critic reads, wherever the estimate's root stands in depth."""
    trainer = trainer_for("loss.fakes=3d", *overrides)
    batch = exact(batch_for(trainer), THORAX if "data.depth_root=thorax" in overrides else PELVIS)
    knows(trainer, batch, torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0, -0.25]))
    shown = shown_in_a_step(trainer, batch)
    for given in shown:
        for tensor in given:
            real, fake = tensor.chunk(2)
            assert torch.equal(real, fake)


def test_the_generators_pass_has_the_statistics_of_the_critics_own() -> None:
    """Where both are shown the same estimates, everything that the critic reads is the same."""
    trainer = trainer_for("loss.fakes=3d")
    batch = batch_for(trainer)
    batch["depth_known"] = torch.ones(6, 16)
    shown = shown_in_a_step(trainer, batch)
    own, passed = shown
    assert all(torch.equal(*pair) for pair in zip(own, passed, strict=True))


@pytest.mark.parametrize("origin", ["heatmaps", "joints"])
@pytest.mark.parametrize("kind", ["gaussian", "constant", "onehot"])
def test_a_hidden_joint_has_no_depth_map(kind: str, origin: str) -> None:
    trainer = trainer_for(f"discriminator.depth_maps={kind}", f"discriminator.depth_maps_from={origin}")
    batch = batch_for(trainer)
    real = trainer._truth(pose3d_data.normalise(batch["image"], trainer.config.data), batch)
    critic: Any = trainer.networks["discriminator"]
    _, heatmaps, joints = real.sources()
    maps = critic.depth_maps(heatmaps, joints)
    assert (maps[~real.shown] == 0).all()
    assert (maps[real.shown].abs().amax((1, 2)) > 0).sum() > 40


def test_half_of_the_critics_images_are_of_true_poses() -> None:
    trainer = trainer_for()
    batch = batch_for(trainer)
    seen = [given[0] for given in shown_in_a_step(trainer, batch)]
    image = pose3d_data.normalise(batch["image"], trainer.config.data)
    assert torch.equal(seen[0], image[REAL + FAKES["both"]])


# ---- stages ----------------------------------------------------------------------------------------------------


def moved(trainer: Any, **options: Any) -> dict[str, bool]:
    """Which parts of the generator a step changes, with their buffers."""
    generator = trainer.networks["generator"]
    before = copy.deepcopy(generator)
    for network in trainer.networks.values():
        network.train()  # as the loop does at the start of an epoch
    trainer.step(batch_for(trainer), update_for(trainer, **options))
    pairs = {part: (getattr(before, part).state_dict(), getattr(generator, part).state_dict()) for part in PARTS}
    return {part: any(not torch.equal(old[key], new[key]) for key in old) for part, (old, new) in pairs.items()}


PARTS = ("two_d", "depth")


def test_stage_2d_trains_heatmaps_alone() -> None:
    trainer = trainer_for("stage=2d", "data.name=none")
    assert set(trainer.networks) == {"generator"}
    assert moved(trainer) == {"two_d": True, "depth": False}
    assert set(trainer.step(batch_for(trainer), update_for(trainer))) == {"heatmap", "accuracy"}


def test_stage_pose_trains_both() -> None:
    trainer = trainer_for("stage=pose")
    assert set(trainer.networks) == {"generator"}
    assert moved(trainer) == {"two_d": True, "depth": True}
    assert set(trainer.step(batch_for(trainer), update_for(trainer))) == {"heatmap", "depth", "accuracy"}


@pytest.mark.parametrize("stage", ["pose", "adversarial"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fix_2d_leaves_the_2d_module_as_it_is(stage: str, precision: str) -> None:
    trainer = trainer_for(f"stage={stage}", "stage.fix_2d=yes")
    two_d = list(trainer.networks["generator"].two_d_parameters())
    optimized = [p for group in trainer.optimizers["generator"].param_groups for p in group["params"]]
    assert not {id(p) for p in two_d} & {id(p) for p in optimized}
    for _ in range(2):
        assert moved(trainer, precision=precision) == {"two_d": False, "depth": True}


def test_what_is_logged() -> None:
    trainer = trainer_for(*WGAN, "loss.bones_weight=0.01")
    logged = trainer.step(batch_for(trainer), update_for(trainer))
    assert set(logged) == {"heatmap", "depth", "bones", "adversarial", "real", "fake", "penalty", "accuracy"}
    assert not any(value.requires_grad for value in logged.values())


def test_weights_of_the_losses() -> None:
    trainer = trainer_for("loss.depth_weight=2", "loss.bones_weight=3", "loss.lambda_g=5")
    terms = {name: torch.tensor(1.0) for name in ("heatmap", "depth", "bones", "adversarial")}
    assert float(trainer._weighted(terms)) == 1 + 2 + 3 + 5


@pytest.mark.usefixtures("double")
def test_the_bone_loss_is_of_wild_photographs_alone() -> None:
    """Labelled (x, y) beside the estimated depth; the variance of the groups by hand."""
    trainer = trainer_for("stage=pose", "loss.bones_weight=1")
    batch = in_double(trainer, batch_for(trainer))
    side = trainer.config.data.image_size // 4
    depth = torch.rand(6, 16, dtype=torch.float64)
    found = trainer._pose_terms([torch.zeros(6, 16, side, side, dtype=torch.float64)], depth, batch)["bones"]
    joints, total = in_cube(batch["keypoints"], depth, side), 0.0
    factors = {(0, 1): 1.0085885098415446, (4, 5): 1.0085885098415446}
    factors |= {(10, 11): 1.1375361376887123, (14, 15): 1.1375361376887123}
    for row in (1, 3, 4):
        for group in (*BONES, ((12, 8), (13, 8))):
            lengths = [
                factors.get((a, b), 1.0) * (joints[row, a] - joints[row, b]).norm()
                for a, b in group
                if batch["visibility"][row, [a, b]].all()
            ]
            if lengths:
                total += float(torch.stack(lengths).var(correction=0))
    assert float(found) == pytest.approx(total / 6)


def test_a_critic_does_not_change_the_generators_start() -> None:
    with_one, without = trainer_for(), trainer_for("stage=pose")
    assert torch.equal(weights(with_one.networks["generator"]), weights(without.networks["generator"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ("stage=2d", "data.name=none"),
        ("stage=pose", "loss.bones_weight=0.01", "loss.depth_over=known"),
        ("discriminator.sources=image,maps",),
        ("discriminator.sources=image,geometry", "discriminator.geometry=conv"),
        ("loss.coordinates=straight_through", "discriminator.depth_maps=onehot"),
        ("discriminator.depth_maps=constant", "discriminator.depth_maps_from=joints"),
        ("stage.fix_2d=yes", "loss.missing=zero"),
        (*WGAN, "loss.critic_steps=2", "loss.penalty_form=lp"),
        ("model.depth_head=flatten", "loss.pose_reduction=sum", "loss.sigma=1.75"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_variant_trains(overrides: tuple[str, ...], precision: str) -> None:
    trainer = trainer_for(*overrides)
    update = update_for(trainer, precision=precision)
    before = weights(trainer.networks["generator"])
    for seed in range(3):
        logged = trainer.step(batch_for(trainer, seed), update)
        assert all(torch.isfinite(value) for value in logged.values())
    assert not update.disturbed
    assert not torch.equal(weights(trainer.networks["generator"]), before)


def test_one_batch_can_be_learned() -> None:
    trainer = trainer_for("loss.sigma=2", "optimizer.generator.lr=3e-3", "optimizer.generator.name=adam")
    batch, update = batch_for(trainer), update_for(trainer)
    logs = [trainer.step(batch, update) for _ in range(30)]
    for name in ("heatmap", "depth"):
        assert float(logs[-1][name]) < 0.5 * float(logs[0][name])


def test_a_batch_without_truth_is_one_sentence() -> None:
    trainer = trainer_for()
    batch = batch_for(trainer)
    batch["depth_known"] = torch.zeros(6, 16)
    with pytest.raises(ValueError, match="batch: expected samples with 3D truth"):
        trainer.step(batch, update_for(trainer))


# ---- optimizers, schedules, state ------------------------------------------------------------------------------


def test_optimizers_are_those_of_the_specification() -> None:
    trainer = pose3d.Pose3dTrainer(configuration.apply_overrides(Pose3dConfig(), ["model.width=8"]))
    generator, critic = trainer.optimizers["generator"], trainer.optimizers["discriminator"]
    assert isinstance(generator, torch.optim.RMSprop)
    assert (generator.defaults["lr"], generator.defaults["alpha"], generator.defaults["eps"]) == (2.5e-5, 0.99, 1e-8)
    assert isinstance(critic, torch.optim.Adam)
    assert (critic.defaults["lr"], critic.defaults["betas"]) == (1e-4, (0.5, 0.999))
    assert trainer.state() == {}


@pytest.mark.parametrize(("epoch", "share"), [(24, 1.0), (25, 0.1), (29, 0.1)])
def test_stage_2_drops_its_rate_at_epoch_25(epoch: int, share: float) -> None:
    config = configuration.load_recipe("pose3d/stage-2-2s", ["model.width=8"]).config
    trainer = pose3d.Pose3dTrainer(config)
    for _ in range(epoch):
        trainer.optimizers["generator"].step()
        trainer.schedulers["generator"].step()
    assert trainer.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(2.5e-4 * share)


def test_the_critics_rate_follows_only_when_asked() -> None:
    assert set(trainer_for().schedulers) == {"generator"}
    assert set(trainer_for("schedule.discriminator=yes").schedulers) == {"generator", "discriminator"}


def test_the_defaults_are_full_2s() -> None:
    config = Pose3dConfig()
    assert (config.loss.lambda_g, config.loss.sigma, config.loss.depth_weight, config.loss.gan) == (1e-4, 1, 1, "bce")
    assert (config.loss.pose_reduction, config.loss.bones_weight, config.loss.fakes) == ("mean", 0, "both")
    assert config.run.epochs * config.data.epoch_batches == 120_000
    assert (config.run.batch_size, config.discriminator.sources) == (12, ("image", "geometry", "maps"))


@pytest.mark.parametrize(
    ("section", "field", "value", "sentence"),
    [
        ("stage", "name", "adverserial", "stage.name: expected one of 2d, pose, adversarial.*did you mean 'advers"),
        ("loss", "gan", "wgan", "loss.gan: expected one of bce, wgan-gp.*did you mean 'wgan-gp'"),
        ("loss", "sigma", 0.0, r"loss\.sigma: expected a positive finite number, got 0\.0"),
        ("loss", "sigma", float("inf"), r"loss\.sigma: expected a positive finite number, got inf"),
        ("loss", "temperature", float("nan"), r"loss\.temperature: expected a positive finite number, got nan"),
        ("loss", "temperature", float("inf"), r"loss\.temperature: expected a positive finite number, got inf"),
        ("loss", "depth_weight", float("inf"), r"loss\.depth_weight: expected a finite number, got inf"),
        ("model", "stacks", 0, r"model\.stacks: expected 1 or more, got 0"),
        ("model", "modules", -1, r"model\.modules: expected 1 or more, got -1"),
        ("model", "width", 20, r"model\.width: expected a multiple of 8, got 20"),
        ("model", "regressor_modules", -1, r"model\.regressor_modules: expected 0 or more, got -1"),
        ("discriminator", "width", 20, r"discriminator\.width: expected a multiple of 8, got 20"),
        ("discriminator", "hidden", 0, r"discriminator\.hidden: expected 1 or more, got 0"),
        ("loss", "lambda_g", -1.0, r"loss\.lambda_g: expected 0 or more, got -1\.0"),
        ("loss", "bones_weight", float("nan"), r"loss\.bones_weight: expected 0 or more, got nan"),
        ("loss", "penalty_form", "pg", r"loss\.penalty_form: expected one of gp, lp, got 'pg'"),
        ("loss", "critic_steps", 0, r"loss\.critic_steps: expected 1 or more, got 0"),
        ("loss", "fakes", "wilde", "loss.fakes: .*did you mean 'wild'"),
        ("loss", "coordinates", "softargmx", "did you mean 'softargmax'"),
        ("loss", "depth_over", "bach", "loss.depth_over: .*did you mean 'batch'"),
        ("loss", "pose_reduction", "half_sum", "loss.pose_reduction: expected one of mean, sum, got 'half_sum'"),
        ("loss", "missing", "ignor", "loss.missing: .*did you mean 'ignore'"),
        ("model", "depth_head", "flaten", "model.depth_head: .*did you mean 'flatten'"),
        ("model", "name", "pose3d.generater", "did you mean 'pose3d.generator'"),
        ("discriminator", "sources", ("image", "map"), "discriminator.sources: .*did you mean 'maps'"),
        ("discriminator", "sources", (), r"discriminator\.sources: expected different ones of .*got \(\)"),
        ("discriminator", "norm", "batsh", "discriminator.norm: .*did you mean 'batch'"),
        ("discriminator", "depth_maps", "gausian", "discriminator.depth_maps: .*did you mean 'gaussian'"),
        ("discriminator", "width", 0, r"discriminator\.width: expected a multiple of 8, got 0"),
        ("schedule", "name", "cosinus", "did you mean 'cosine'"),
        ("schedule", "factor", 0.0, r"schedule\.factor: expected a positive finite number, got 0\.0"),
        ("schedule", "milestones", (0,), r"schedule\.milestones: expected epochs from 1 on, got \(0,\)"),
    ],
)
def test_a_bad_value_is_one_sentence(section: str, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(getattr(Pose3dConfig(), section), **{field: value})


def test_a_trainer_reads_what_is_held_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, create, read = trainer_for(), pose3d_data.data.create, []
    monkeypatch.setattr(
        pose3d_data.data, "create", lambda *names, **options: read.append(names[::2]) or create(*names, **options)
    )
    trainer.train_dataset()
    trainer.validation_dataset()
    assert sorted(read) == [(name, split) for name in ("sample", "sample-mocap") for split in ("train", "val")]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["optimizer.generator.lr=0"], r"optimizer\.generator\.lr: expected a positive finite number, got 0\.0"),
        (["optimizer.discriminator.lr=-1"], r"optimizer\.discriminator\.lr: expected a positive finite number, got -1"),
        (["optimizer.discriminator.beta1=1"], r"optimizer\.discriminator\.beta1: expected a number from 0 up to 1"),
        (["optimizer.discriminator.name=adm"], r"optimizer\.discriminator\.name: .*did you mean 'adam'"),
        (["stage=2d", "stage.fix_2d=yes"], r"stage\.fix_2d: expected no with stage\.name=2d"),
        (["data.name=none"], r"data\.name: expected a set with 3D truth with stage\.name=adversarial, got 'none'"),
        (
            ["data.mixing=shuffled", "data.epoch_batches=0"],
            r"data\.mixing: expected exact with stage\.name=adversarial",
        ),
        (["data.wild=", "loss.fakes=wild"], r"loss\.fakes: expected 3d or both without photographs in data\.wild"),
        (["loss.gan=wgan-gp"], r"discriminator\.norm: expected none with loss\.gan=wgan-gp"),
        (["loss.critic_steps=2", "run.accumulate=2"], r"loss\.critic_steps: expected 1 with run\.accumulate=2, got 2"),
        (["data.image_size=80", "model.depth=3"], r"data\.image_size: expected a multiple of 32 \(model\.depth=3"),
        (["data.image_size=96", "model.depth_head=flatten"], r"expected a multiple of 64 .*depth_head=flatten"),
        (["model.depth=0"], r"model\.depth: expected 1 or more, got 0"),
        (["stage.fix2d=yes"], r"unknown key 'stage\.fix2d'.*did you mean 'stage\.fix_2d'"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        trainer_for(*overrides)
