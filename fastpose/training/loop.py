"""One run in memory: steps, epochs, limits, signals; when to log, evaluate and save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastpose import _numbers
from fastpose.nn import split_dropout, sync_norm
from fastpose.training import distributed, outcome, randomness, resume_point, resuming, snapshot
from fastpose.training.config import Recipe, RunConfig
from fastpose.training.distributed import World
from fastpose.training.ema import Ema
from fastpose.training.logbook import Logbook, Window, require_tensorboard
from fastpose.training.phases import BufferGuard, NonFiniteError, Update, step_schedule
from fastpose.training.progress import create_progress
from fastpose.training.run_folder import RunFolder
from fastpose.training.signals import StopRequest, exit_code, is_signal, signal_name

if TYPE_CHECKING:
    from fastpose.training.engine import Trainer


@dataclass
class Position:
    """Where a run stands: ``epoch`` (from 0), steps done in it, steps done in all."""

    epoch: int = 0
    in_epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Ending:
    """Why a run ended, and the exit code that says so."""

    reason: str
    code: int


class Job:
    """One run in memory; ``folder`` is given to it when everything else has proved sound."""

    def __init__(self, trainer: Trainer, recipe: Recipe, place: World, create_loader: Callable[..., Any]) -> None:
        self.trainer, self.recipe, self.place, self.create_loader = trainer, recipe, place, create_loader
        self.settings: RunConfig = recipe.config.run
        self.folder: RunFolder
        self.stop = StopRequest()  # entered by who runs the job
        if self.settings.tensorboard:
            require_tensorboard()
        self._load_data()
        self._compare()
        self._place_networks()
        self.ema = Ema(self.main, self.settings.ema) if self.settings.ema > 0 else None
        self.update = self._create_update()
        self.guard = BufferGuard(trainer.networks)
        self.best = outcome.Best(trainer.monitor, getattr(trainer, "monitor_mode", "max"))
        self.position, self.window = Position(), Window()
        self.rows = 0
        self.results: list[Any] = []
        self.evaluated = False  # by this launch; known to every process, unlike the results
        self.environment: dict[str, Any] = {}
        self.explained: set[str] = set()  # protocols whose sentence is on the screen
        # One stream on all processes: what is drawn for a batch is drawn for the batches of all (distributed.drawn).
        randomness.seed_everything(self.settings.seed)

    # ---- preparation -------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Refuse to train where the processes have other code, configuration or data."""
        if self.place.several:
            distributed.compare(resuming.common(self.described, self.place), self.place)

    def _place_networks(self) -> None:
        networks = self.trainer.networks
        for network in networks.values() if self.place.several else ():
            split_dropout.split(network)
            if self.settings.sync_batch_norm:
                sync_norm.synchronise(network)
        self.channels_last = self._channels_last()
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        for network in networks.values():
            network.to(device=self.place.device, memory_format=layout)  # type: ignore[call-overload]
        distributed.broadcast_networks(networks.values(), self.place)

    def _channels_last(self) -> bool:
        """Return whether the networks lie channels last: as the run says, else where the system gains by it."""
        wanted = self.settings.channels_last
        gaining = getattr(self.trainer, "channels_last_on", ())
        return self.place.device.type in gaining if wanted is None else wanted

    def _load_data(self) -> None:
        settings = self.settings
        self.train_data, self.validation_data = self.trainer.train_dataset(), self.trainer.validation_dataset()
        place = {"rank": self.place.rank, "world_size": self.place.size}
        self.loader = self._create_loader(self.train_data, shuffle=True, drop_last=True, **place)
        self.steps_per_epoch = len(self.loader) // settings.accumulate
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"run.accumulate: {settings.accumulate} batches of {settings.batch_size} make one step, the epoch has "
                f"{len(self.loader)} (from {len(self.train_data)} items); lower run.accumulate or run.batch_size"
            )

    def _create_loader(self, data: Any, **options: Any) -> Any:
        settings = self.settings
        return self.create_loader(
            data,
            settings.batch_size,
            seed=settings.seed,
            workers=settings.workers,
            pin_memory=self.place.device.type == "cuda",
            **options,
        )

    def _create_update(self) -> Update:
        settings, trainer = self.settings, self.trainer
        return Update(
            trainer.networks,
            trainer.optimizers,
            main=trainer.main_network,
            precision=settings.precision,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            limit=settings.skip_nonfinite,
            ema=self.ema,
            place=self.place,
        )

    # ---- the run -----------------------------------------------------------------------------------------------

    def run(self, progress: bool) -> Ending:
        """Train, evaluate and write everything into ``folder``."""
        settings = self.settings
        self._open_files()
        total = settings.epochs * self.steps_per_epoch
        total = min(total, settings.max_steps) if settings.max_steps else total
        start, shown = self.position.step, progress and self.place.leader
        self.progress = create_progress(total, settings.epochs, start, enabled=shown, seconds=settings.print_seconds)
        self.began = self._logged_at = time.monotonic()
        self._logged_step = start
        try:
            return self._finish(self._epochs())
        finally:
            self.progress.close()
            self.logbook.close()

    def _open_files(self) -> None:
        self.logbook = Logbook(self.folder.path, tensorboard=self.settings.tensorboard and self.place.leader)
        if not self.place.leader:
            return
        self.folder.complete()
        self.folder.write_config(self.recipe)
        chosen = {"world_size": self.place.size, "channels_last": self.channels_last}
        self.environment = self.folder.write_environment(str(self.place.device), chosen)
        self.logbook.resume(self.rows)

    def _epochs(self) -> str:
        """Train epoch by epoch; return why it ended."""
        if self.settings.max_steps and self.position.step >= self.settings.max_steps:
            return "max_steps"
        while self.position.epoch < self.settings.epochs:
            stopped = self._epoch() or self._end_epoch()
            if stopped:
                return stopped
        return "finished"

    def _epoch(self) -> str:
        """Do the steps that are left of the epoch; return why it was broken off, or an empty text."""
        position, every = self.position, self.settings.checkpoint_steps
        for network in self.trainer.networks.values():
            network.train()
        self.loader.set_epoch(position.epoch, position.in_epoch * self.settings.accumulate)
        batches = iter(self.loader)
        while position.in_epoch < self.steps_per_epoch:
            self._step(batches)
            stopped = self._stopped()
            if stopped:
                return stopped
            if every and position.step % every == 0 and position.in_epoch < self.steps_per_epoch:
                self.save()
        return ""

    def _step(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Do one optimizer step of every network: ``accumulate`` batches."""
        position, accumulate = self.position, self.settings.accumulate
        self.guard.remember()
        before, terms = self.trainer.state(), []
        for number in range(accumulate):
            batch = outcome.to_device(next(batches), self.place.device)
            self.update.begin(position.step + 1, batch.get("index"), last=number == accumulate - 1)
            terms.append(self.trainer.step(batch, self.update))
        disturbed, failure = self.update.disturbed, self.update.failure
        if disturbed:
            self.guard.restore()
            self.trainer.load_state(before)
        self.update.finish()
        position.step, position.in_epoch = position.step + 1, position.in_epoch + 1
        self.progress.advance(position.step, self.epoch)
        for values in [] if disturbed else terms:
            self.window.add(values)
        if failure is not None:
            with suppress(NonFiniteError):
                self.save()
            raise failure
        if position.step % self.settings.log_every == 0:
            self._log()

    def _stopped(self) -> str:
        """Return why to stop after this step, agreed between all processes, or an empty text."""
        settings = self.settings
        minutes = (time.monotonic() - self.began) / 60
        late = 1 if settings.max_minutes and minutes >= settings.max_minutes else 0
        wish = int(distributed.largest(float(self.stop.signal * 2 or late), self.place))
        if wish >= 2:
            return self._save_for(wish // 2)
        if settings.max_steps and self.position.step >= settings.max_steps:
            return "max_steps"
        return "max_minutes" if wish else ""

    def _save_for(self, number: int) -> str:
        """Save because of a signal and return its name."""
        self.stop.signal = number
        self.save()
        return signal_name(number)

    def _end_epoch(self) -> str:
        """Evaluate, step the schedules and save where it is their turn; enter the next epoch.

        Returns the name of a signal that broke the evaluation off: a resume then begins with this epoch's end.
        """
        position, settings = self.position, self.settings
        done = position.epoch + 1
        last = done == settings.epochs
        if last or (settings.evaluate_every and done % settings.evaluate_every == 0):
            number = self.evaluate()
            if number:
                return self._save_for(number)
        for scheduler in self.trainer.schedulers.values():
            step_schedule(scheduler.step)
        position.epoch, position.in_epoch = done, 0
        if last or done % settings.checkpoint_every == 0:
            self.save()
        return ""

    def _finish(self, reason: str) -> Ending:
        if is_signal(reason):
            return self._say_stopped(reason)
        if reason != "finished":
            # Saved before the evaluation, so that a resume goes on as if the run had not paused here.
            self.save()
        if self.position.step % self.settings.log_every:
            self._log()
        if reason != "finished" or not self.evaluated:
            self.stop.signal = self.evaluate(pausing=reason != "finished")
            if self.stop.signal:
                return self._say_stopped(signal_name(self.stop.signal))
        with distributed.undisturbed(self.place):
            self._write_outcome(reason)
        return Ending(reason, 0)

    def _say_stopped(self, reason: str) -> Ending:
        self.progress.note(f"{reason}: saved at step {self.position.step}; go on with --resume {self.folder.path}")
        return Ending(reason, exit_code(self.stop.signal))

    # ---- log, evaluation, files --------------------------------------------------------------------------------

    def _log(self) -> None:
        means = self.window.means(self.place)
        if not self.place.leader:
            return
        position = self.position
        rates = {
            f"lr.{name}": float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.trainer.optimizers.items()
        }
        row: dict[str, Any] = {"kind": "train", "step": position.step, "epoch": self.epoch}
        self.logbook.append(row | means | rates | {"skipped": sum(self.update.skipped.values())})
        self.progress.losses(means)
        now = time.monotonic()
        rate = (position.step - self._logged_step) / max(now - self._logged_at, 1e-9)
        self.logbook.append_timing(
            {"step": position.step, "seconds": round(now - self.began, 3), "steps_per_second": round(rate, 4)}
        )
        self._logged_at, self._logged_step = now, position.step

    @property
    def main(self) -> nn.Module:
        """The network the run is about."""
        return self.trainer.networks[self.trainer.main_network]

    @property
    def published(self) -> nn.Module:
        """The network that is evaluated and published: the averaged weights where there are some."""
        return self.ema.average if self.ema is not None else self.main

    def evaluate(self, *, pausing: bool = False) -> int:
        """Evaluate on the leader while the others wait; log, and publish ``best`` where it is.

        A resume forgets what an evaluation did that was made only because the run is ``pausing``.
        Returns the number of a signal that broke it off (nothing is logged then), or 0.
        """
        self.evaluated = True
        number = 0
        if self.place.leader and self.validation_data is not None:
            try:
                self._evaluate_here(pausing)
            except outcome.Interrupted:
                number = self.stop.signal
        distributed.barrier(self.place)  # it may take longer than a collective waits
        return int(distributed.largest(float(number), self.place))

    def _evaluate_here(self, pausing: bool) -> None:
        position = self.position
        loader = self._create_loader(self.validation_data, shuffle=False, drop_last=False)
        loader = outcome.OnDevice(loader, self.place.device, self.stop)
        self.results = outcome.evaluate(self.trainer, self.published, loader)
        # A run that was killed while it wrote its outcome has logged its last evaluation already.
        known = self.logbook.evaluated == position.step
        for result in self.results:
            row = {"kind": "evaluation", "step": position.step, "epoch": self.epoch} | outcome.as_row(result)
            if not known:
                self.logbook.append(row)
            line = result.line(protocol=result.protocol not in self.explained)
            self.explained.add(result.protocol)
            self.progress.note(f"epoch {self.epoch}  step {position.step}  {line}")
        if self.results and self.best.improves(self.results, position.step, self.epoch):
            if pausing:
                outcome.keep_best(self.folder)
            self._publish("best", results=[outcome.as_row(result) for result in self.results])

    @property
    def epoch(self) -> int:
        """The epoch the last step belongs to, from 1."""
        return min(self.position.epoch + 1, self.settings.epochs)

    @cached_property
    def measured(self) -> dict[str, float]:
        """What the configuration leaves to the training set; an evaluation has often read it already."""
        return getattr(self.trainer, "measured", dict)()

    def _publish(self, which: str, **about: Any) -> None:
        common = {
            "step": self.position.step,
            "epoch": self.epoch,
            "network": self.trainer.main_network,
            "averaged": self.ema is not None,
        }
        common |= {"measured": self.measured} if self.measured else {}
        outcome.publish_weights(self.folder, which, self.published, self.recipe, common | about)

    def _write_outcome(self, stopped: str) -> None:
        if not self.place.leader:
            return
        pictures = []
        if self.validation_data is not None:
            pictures = outcome.write_pictures(self.trainer, self.published, self.validation_data, self.folder)
        position, best = self.position, self.best.record
        summary = f"{stopped} at step {position.step}, epoch {position.epoch}"
        if best is not None:
            summary += f"; best {best['name']} {_numbers.text(best['value'])} at step {best['step']}"
        rows = [outcome.as_row(result) for result in self.results]
        outcome.write_report(self.folder, self.recipe, self.environment, rows, pictures, summary)

    # ---- state -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Publish a resume point and ``weights/last``; the leader writes, the others give what is theirs.

        Raises:
            NonFiniteError: a state that is not finite never replaces an earlier resume point.
        """
        broken = distributed.gather(snapshot.not_finite(self), self.place)
        for what in (what for parts in broken for what in parts):
            raise NonFiniteError(
                f"step {self.position.step}: {what} are not finite and were not saved; "
                "lower the learning rate or set run.clip_norm, and resume from the earlier state"
            )
        private = distributed.gather(snapshot.take_private(self), self.place)
        if self.place.leader:
            with distributed.undisturbed(self.place):
                self.logbook.flush()
                resume_point.save(self.folder.state, snapshot.take(self, private), self.described, self.position.step)
                self._publish("last")
        distributed.barrier(self.place)

    def resume(self, path: Path, allow_changes: bool) -> None:
        """Take the state of a resume point: the one named, or the newest of the run folder.

        Raises:
            ValueError: damaged, of something else, or the run has already come to its end.
        """
        path = self.folder.state if path.is_dir() else path
        if self.place.leader:
            self.folder.complete()
        state, manifest = distributed.agreed(lambda: resume_point.load(path), self.place)
        manifest = resuming.completed(manifest, self.recipe)
        resuming.check(path, manifest, self.described, allow_changes=allow_changes)
        snapshot.check_place(state, path)
        # The leader's files tell; another machine has perhaps none of them, or others.
        distributed.agreed(lambda: outcome.check_unfinished(self.folder, state["position"], self.settings), self.place)
        snapshot.put_back(self, state, path, manifest, self.described["config"])
        self.rows = state["rows"]
        if self.place.leader:
            # The files beside the resume point may be of before it (a kill) or of after it (a pause, an earlier one).
            outcome.put_best_back(self.folder, self.best.record)
            self._publish("last")

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a resume point says of its run; reading through the data sets takes its time."""
        datasets = {"train": self.train_data, "validation": self.validation_data}
        return resuming.describe(self.recipe, datasets, self.place)
