"""Search for good settings of `mnist-amp fit` with Optuna: `python examples/sweep.py --space examples/sweep.yaml`.

A trial is one `mnist-amp fit` in a process of its own, with the trial's settings as options. While it trains, the sweep
reads the metrics of its run, and stops it if Optuna's pruner advises so. Options that the sweep does not have are
passed on to `fit`.

The same command, started again, continues the sweep; started several times, it runs several trials at once. The
process of a trial renews the time in the trial's attribute `alive`. When that time is older than `--grace` seconds, the
next free process continues the trial, from the last checkpoint of its run. A resumed fit ends bit for bit as one
without interruption, so the trial gets the value that it would have had.
"""

import argparse
import contextlib
import csv
import ctypes
import json
import math
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from mnist_amp.errors import RequestError, RunError
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.runs.config_text import parse_yaml

try:
    import optuna
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError
except ImportError:
    sys.exit("sweep: error: Optuna is not installed. Install the extra: pip install 'mnist-amp[sweep]'")

FIT = (sys.executable, "-m", "mnist_amp", "fit")
# before a sweep begins, a fit of one batch finds mistakes in the space, the options and the metric
ONE_BATCH = (
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"),
    *("--trainer.val_check_interval=1.0", "--trainer.check_val_every_n_epoch=1"),
)
PRUNERS = ("MedianPruner", "SuccessiveHalvingPruner", "HyperbandPruner", "NopPruner")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
DRAWS = 50  # to find settings that no trial has
POLL = 0.3  # seconds
REFUSED = 2  # the exit status of a command whose settings are wrong
STORAGE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
# of a run's config.yaml: the lines that are about this run alone
OF_A_RUN = re.compile(r"^(# resumed .*|(ckpt_path|weights_only|  default_root_dir):.*(\n    .*)*)\n", re.MULTILINE)


class TrialError(Exception):
    """A fit has failed. The sweep continues with other settings."""


def main(args: Sequence[str] | None = None) -> None:
    options, passed = make_parser().parse_known_args(args)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Sweep(options, passed).run()
    except KeyboardInterrupt:
        sys.stderr.write("sweep: stopped. The same command continues it.\n")
        sys.exit(130)
    except STORAGE_ERRORS as error:
        cause = first_line(error.__cause__ or error)  # Optuna's own text is about its internals
        sys.exit(f"sweep: error: the storage failed: {cause} The same command continues the sweep.")
    except (RequestError, RunError, OSError) as error:
        sys.exit(f"sweep: error: {error}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Search for good settings of mnist-amp fit. Other options are passed on to fit.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--space", type=Path, default=Path(__file__).with_name("sweep.yaml"), help="YAML file of the search space")
    add("--trials", type=int, default=20, help="trials in all, complete or pruned; more of them extend a sweep (20)")
    add("--seeds", type=int, default=1, help="runs of each trial, whose mean is its value (1)")
    add("--metric", default="val_accuracy", help="a metric that fit logs; the best checkpoint's counts (val_accuracy)")
    add("--mode", choices=("max", "min"), default="max", help="whether high or low values are better (max)")
    add("--pruner", choices=PRUNERS, default=PRUNERS[0], help="when to stop a trial early; NopPruner: never")
    add("--folder", type=Path, default=Path("sweep"), help="for the runs, best.yaml and the storage (sweep)")
    add("--storage", help="URL of a database (SQLite in the folder)")
    add("--grace", type=float, default=60.0, help="seconds without a sign of life after which a trial is dead (60)")
    return parser


class Sweep:
    """A sweep in its folder and its storage.

    Args:
        options: those of the sweep.
        passed: those of `fit`, for all trials. They replace settings of the same name in the space.

    Raises:
        RequestError: there is a mistake in them, or the folder has another sweep.
    """

    def __init__(self, options: argparse.Namespace, passed: list[str]) -> None:
        self.options, self.passed = options, passed
        settings = parse_yaml(options.space.read_text(encoding="utf-8"), str(options.space))
        given = {option.partition("=")[0][2:] for option in passed if option.startswith("--")}
        self.settings = {name: value for name, value in settings.items() if name not in given}
        self.space = {name: distribution(name, value) for name, value in self.settings.items() if is_searched(value)}
        if not self.space or min(options.trials, options.seeds) < 1:
            raise RequestError(f"a sweep needs choices or a range in {options.space}, and at least 1 trial and 1 seed.")
        options.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(options.folder / "sweep.lock")  # the processes take turns in choosing a trial
        with self.lock:
            self.study = self.open_study()
            seed = self.begin_or_continue()
        self.seeds = range(seed, seed + options.seeds)
        self.reported: set[int] = set()  # epochs of the trial that runs

    # the study

    def open_study(self) -> Any:
        options = self.options
        url = options.storage or f"sqlite:///{options.folder / 'sweep.db'}"
        patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
        try:
            return optuna.create_study(
                storage=optuna.storages.RDBStorage(url, engine_kwargs=patience),
                sampler=optuna.samplers.TPESampler(constant_liar=True),  # considers trials that run as well
                pruner=getattr(optuna.pruners, options.pruner)(),
                study_name=options.folder.absolute().name,
                direction=f"{options.mode}imize",
                load_if_exists=True,
            )
        except Exception as error:  # of any driver, or because there is none
            shown = re.sub("://.*@", "://", url)  # without a password
            raise RequestError(f"the storage {shown} can't be used: {first_line(error)}") from error

    def begin_or_continue(self) -> int:
        """Check that the study belongs to this sweep, and return the seed of the first run of each trial."""
        wanted = {"space": self.settings, "options of fit": self.passed, "metric": self.options.metric}
        wanted = json.loads(json.dumps(wanted | {"mode": self.options.mode, "number of seeds": self.options.seeds}))
        saved = self.study.user_attrs.get("sweep")
        if saved is None:
            saved = wanted | {"seed": self.seed_of_one_batch()}
            self.study.set_user_attr("sweep", saved)
        if differ := [name for name in wanted if wanted[name] != saved[name]]:
            raise RequestError(
                f"{self.options.folder} has a sweep with another {' and another '.join(differ)}. Repeat its command to "
                "continue it, or begin a new sweep in another --folder."
            )
        return int(saved["seed"])

    def seed_of_one_batch(self) -> int:
        """Fit one batch with the first settings of the space, and return the seed.

        Raises:
            RequestError: `fit` refuses the settings, or does not log the metric.
        """
        first = {name: getattr(found, "choices", None) or [found.low] for name, found in self.space.items()}
        first = {name: values[0] for name, values in first.items()}
        root = self.options.folder / "one_batch"
        shutil.rmtree(root, ignore_errors=True)
        command = [*FIT, *self.arguments(first), *ONE_BATCH, f"--trainer.default_root_dir={root}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RequestError(f"fit fails with {described(first)}: {reason(done.stderr, done.returncode)}")
        run = runs_in(root)[-1]
        if value_of(run, self.options.metric) is None:
            logged = sorted({name for row in rows_of(run) for name in row} - {"epoch", "step"})
            raise RequestError(f"fit does not log {self.options.metric}. It logs {', '.join(logged)}.")
        config = parse_yaml((run / "config.yaml").read_text(encoding="utf-8"), "config.yaml")
        shutil.rmtree(root)
        return int(config["seed_everything"])

    def trials(self) -> list[Any]:
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def ranked(self) -> list[Any]:
        """Return the complete trials, the best first."""
        complete = [t for t in self.trials() if t.state == TrialState.COMPLETE and t.user_attrs.get("runs")]
        return sorted(complete, key=lambda trial: trial.value, reverse=self.options.mode == "max")

    # the choice of a trial

    def run(self) -> None:
        """Run trials until as many as wanted are complete or pruned, by this process or by others."""
        failed = succeeded = 0
        while sum(trial.state in FINISHED for trial in self.trials()) < self.options.trials:
            with self.lock:
                trial = self.next_trial()
            if trial is None:
                time.sleep(POLL)  # other processes run the last trials, and may die
                continue
            success = self.run_trial(trial)
            failed, succeeded = failed + (not success), succeeded + success
            if failed > succeeded + 3:
                raise RunError("most trials fail, for the reasons above. The same command continues the sweep.")
        with self.lock:
            self.write_best()
        print(self.summary())

    def next_trial(self) -> Any:
        """Return a trial whose process has died, else a new one; None if other processes run all that are left."""
        trials = self.trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        chosen = next((t for t in running if time.time() - t.user_attrs.get("alive", 0) > self.options.grace), None)
        if chosen is None and len(running) + sum(t.state in FINISHED for t in trials) < self.options.trials:
            chosen = self.new_trial(trials)
        if chosen is None:
            return None
        trial = optuna.trial.Trial(self.study, chosen._trial_id)  # only so can a trial that runs be continued
        trial.set_user_attr("alive", time.time())
        return trial

    def new_trial(self, trials: list[Any]) -> Any:
        """Record a new trial with all its settings in one transaction, and return it."""
        settings, token = self.new_settings(trials), uuid.uuid4().hex
        attributes = {"alive": time.time(), "token": token}
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING, params=settings, distributions=self.space, user_attrs=attributes
            )
        )
        return next(trial for trial in self.trials() if trial.user_attrs.get("token") == token)

    def new_settings(self, trials: list[Any]) -> dict[str, Any]:
        """Return settings that no trial has; if none can be found, those of a trial that has not failed."""
        drawn: list[dict[str, Any]] = []
        for sampler in (self.study.sampler, optuna.samplers.RandomSampler()):
            copy = optuna.create_study(direction=self.study.direction, sampler=sampler)
            copy.add_trials(trials)
            for _ in range(DRAWS):
                drawn.append(copy.ask(self.space).params)
                if all(drawn[-1] != trial.params for trial in trials):
                    return drawn[-1]
        failed = [trial.params for trial in trials if trial.state == TrialState.FAIL]
        return next((settings for settings in drawn if settings not in failed), drawn[0])

    # a trial

    def run_trial(self, trial: Any) -> bool:
        """Run a trial to its end and record it; return False if it has failed."""
        try:
            state, values, why = self.outcome(trial)
            self.record(trial, state, values, why)
        except optuna.exceptions.UpdateFinishedTrialError:
            return True  # another process took this one for dead, and has finished the trial
        except BaseException:
            with contextlib.suppress(*STORAGE_ERRORS):
                trial.set_user_attr("alive", 0.0)  # the next process continues it without waiting
            raise
        return bool(state != TrialState.FAIL)

    def outcome(self, trial: Any) -> tuple[Any, list[float], str]:
        """Train with each seed; return the state of the trial, its values, and why it has failed."""
        self.reported = set(self.trials()[trial.number].intermediate_values)
        try:
            return TrialState.COMPLETE, [self.train(trial, seed) for seed in self.seeds], ""
        except optuna.TrialPruned:
            return TrialState.PRUNED, [], ""
        except TrialError as error:
            return TrialState.FAIL, [], str(error)

    def record(self, trial: Any, state: Any, values: list[float], why: str) -> None:
        newest = [run for seed in self.seeds for run in runs_in(self.root(trial, seed))[-1:]]
        runs = [run.relative_to(self.options.folder).as_posix() for run in newest]
        for name, content in {"runs": runs, "values": values, "reason": why}.items():
            trial.set_user_attr(name, content)
        self.study.tell(trial, statistics.fmean(values) if values else None, state=state)
        with self.lock:
            self.write_best()
        value = self.trials()[trial.number].value
        result = why or f"{self.options.metric} {math.nan if value is None else value:.6g}"
        print(f"trial {trial.number} {state.name.lower()}: {result} with {described(trial.params)}", flush=True)

    def root(self, trial: Any, seed: int) -> Path:
        """Return the folder of a trial's runs with one seed; there are several if it was interrupted."""
        folder: Path = self.options.folder / f"trial_{trial.number}"
        return folder / f"seed_{seed}" if len(self.seeds) > 1 else folder

    def arguments(self, chosen: Mapping[str, Any]) -> list[str]:
        """Return the options of `fit`; first those that may name a class, because they drop settings of another one."""
        settings = {name: chosen.get(name, value) for name, value in self.settings.items()}
        options = {name: f"--{name}={as_text(settings[name])}" for name in sorted(settings, key=lambda n: n.count("."))}
        classes = [option for name, option in options.items() if "." not in name]
        return [*classes, *self.passed, *(option for name, option in options.items() if "." in name)]

    def train(self, trial: Any, seed: int) -> float:
        """Fit with one seed, or continue a fit that was interrupted, and return the metric.

        Raises:
            TrialError: the fit failed.
            optuna.TrialPruned: it was stopped early; the first seed decides.
        """
        root = self.root(trial, seed)
        # a fit may have ended just before a kill; model.pth is written when everything is trained
        ended = [run for run in runs_in(root) if (run / "model.pth").is_file()]
        value = value_of(ended[-1], self.options.metric) if ended else None
        if value is None:
            self.fit(trial, seed)
            value = value_of(runs_in(root)[-1], self.options.metric)
        if seed == self.seeds[0]:
            self.report(trial, root)  # its last epochs, for the pruner of other trials
        if value is None or math.isnan(value):
            raise TrialError(f"{self.options.metric} is {'missing' if value is None else 'not a number'}")
        return value

    def fit(self, trial: Any, seed: int) -> None:
        root = self.root(trial, seed)
        command = [*FIT, *self.arguments(trial.params), f"--trainer.default_root_dir={root}"]
        command += [f"--seed_everything={seed}"] if len(self.seeds) > 1 else []
        interrupted = any(root.glob("lightning_logs/version_*/checkpoints/last.ckpt"))
        status = self.watch(trial, [*command, "--ckpt_path=last"] if interrupted else command, seed)
        if interrupted and status == REFUSED:  # nothing was left to train; a fit from the start ends in the same way
            status = self.watch(trial, command, seed)
        if status:
            raise TrialError(reason((root / "fit.log").read_text(encoding="utf-8", errors="replace"), status))

    def watch(self, trial: Any, command: list[str], seed: int) -> int:
        """Run a fit, renew the trial's sign of life, and stop the fit if it is pruned; return the exit status."""
        root = self.root(trial, seed)
        root.mkdir(parents=True, exist_ok=True)
        with (root / "fit.log").open("ab") as log:
            # in a session of its own: Ctrl-C reaches the sweep alone, which then stops the fit
            fit = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent)
        renewed = 0.0
        try:
            while fit.poll() is None:
                if time.time() - renewed > min(self.options.grace / 4, 10):
                    renewed = time.time()
                    trial.set_user_attr("alive", renewed)
                if seed == self.seeds[0] and self.report(trial, root):
                    raise optuna.TrialPruned
                time.sleep(POLL)
        finally:
            if fit.poll() is None:
                fit.terminate()  # it saves a checkpoint
                fit.wait()
        return fit.returncode

    def report(self, trial: Any, root: Path) -> bool:
        """Report the epochs that have ended since the last report; return whether the trial should stop."""
        stop = False
        for row in (row for run in runs_in(root)[-1:] for row in rows_of(run)):
            epoch = int(row["epoch"])
            if self.options.metric in row and epoch not in self.reported:
                self.reported.add(epoch)
                trial.report(row[self.options.metric], epoch)
                stop = stop or trial.should_prune()
        return stop

    # the result

    def write_best(self) -> None:
        """Write the configuration of the best trial's first run, without the lines that are about this run alone."""
        for best in self.ranked()[:1]:
            text = (self.options.folder / best.user_attrs["runs"][0] / "config.yaml").read_text(encoding="utf-8")
            title = f"# trial {best.number} of {self.options.folder}: {self.options.metric} {best.value}\n"
            with atomic_write(self.options.folder / "best.yaml") as temporary:
                temporary.write_text(title + OF_A_RUN.sub("", text), encoding="utf-8")

    def summary(self) -> str:
        states = [trial.state for trial in self.trials()]
        counts = [f"{states.count(state)} {state.name.lower()}" for state in (*FINISHED, TrialState.FAIL)]
        command = f"next    mnist-amp fit --config {self.options.folder / 'best.yaml'}"
        return "\n".join([f"trials  {', '.join(counts)}", *verdict(self.ranked(), self.options.metric), command])


def verdict(ranked: Sequence[Any], metric: str) -> list[str]:
    """Return the best trial and, if there are others, whether it can be distinguished from the second."""
    if not ranked:
        return []
    first, *others = ranked
    best = f"best    trial {first.number}: {metric} {first.value:.6g} with {described(first.params)}"
    if not others:
        return [best]
    second, seeds = others[0], len(first.user_attrs["values"])
    difference = abs(first.value - second.value)
    note = f"note    trials {first.number} and {second.number} differ by {difference:.2g}"
    if seeds == 1:
        return [best, f"{note}. One seed does not show whether that is chance; --seeds 3 does."]
    spread = max(statistics.stdev(trial.user_attrs["values"]) for trial in (first, second))
    spread_text = f"the spread over {seeds} seeds (standard deviation {spread:.2g})"
    if difference > spread:
        return [best, f"{note}, more than {spread_text}."]
    return [best, f"{note}, which is within {spread_text}: the two can't be distinguished."]


# the search space and the options


def is_searched(value: Any) -> bool:
    return isinstance(value, Mapping) and bool({"choices", "low", "high"} & {*value})


def distribution(name: str, given: Mapping[str, Any]) -> Any:
    """Return Optuna's distribution for choices, or for a range with `low`, `high` and maybe `log` or `step`."""
    try:
        if "choices" in given:
            (choices,) = given.values()
            return optuna.distributions.CategoricalDistribution([as_choice(value) for value in choices])
        bounds = {key: as_number(value) for key, value in given.items()}
        whole = all(isinstance(value, int) for value in bounds.values())
        kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
        return kind(**bounds)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{name} is neither {{choices: [...]}} nor {{low: ..., high: ...}} with log or step: {first_line(error)}"
        ) from error


def as_choice(value: Any) -> Any:
    """Return a class with its settings as text, because Optuna keeps plain values only."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def as_number(value: Any) -> Any:
    return value if isinstance(value, int) else float(value)  # `1e-4` is a text in YAML


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def described(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {as_text(value)}" for name, value in settings.items())


# the runs


def runs_in(root: Path) -> list[Path]:
    """Return the folders of the runs of a trial, the newest last."""
    return sorted(root.glob("lightning_logs/version_*"), key=lambda run: int(run.name.rpartition("_")[2]))


def rows_of(run: Path) -> list[dict[str, float]]:
    """Return the complete rows of metrics.csv that belong to an epoch; none if there is no such file."""
    path = run / "metrics.csv"
    complete = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.is_file() else ""
    rows = csv.DictReader(complete.splitlines())
    return [{name: float(value) for name, value in row.items() if value} for row in rows if row.get("epoch")]


def value_of(run: Path, metric: str) -> float | None:
    """Return a metric of the best checkpoint: highest accuracy, or the last row without validation; None if missing."""
    rows = rows_of(run)
    validated = [row for row in rows if "val_accuracy" in row]
    best = max(validated, key=lambda row: row["val_accuracy"]) if validated else rows[-1] if rows else {}
    of_epoch = [row[metric] for row in rows if row["epoch"] == best["epoch"] and metric in row]
    return best.get(metric, of_epoch[-1] if of_epoch else None)


def reason(log: str, status: int) -> str:
    """Return why a fit has failed."""
    messages = re.findall(r"^mnist-amp: (?:error: )?(.*)", log, re.MULTILINE)
    killed = f"killed by signal {-status}{', which may be for lack of memory' if status == -signal.SIGKILL else ''}"
    return killed if status < 0 else messages[-1] if messages else f"exit status {status}"


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def end_with_parent() -> None:
    """Let Linux send SIGTERM to this process if the sweep is killed; the fit saves a checkpoint and ends.

    Elsewhere such a fit continues to its end. This is harmless, because no other run writes into its folder.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
