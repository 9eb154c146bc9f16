"""Search for good settings of `mnist-amp fit` with Optuna: `python examples/sweep.py --trials 20`. See docs/sweeps.md.

A trial is a `mnist-amp fit` in a process of its own. The same command, started again, continues the sweep; started
several times, it runs several trials at once. If a process dies, another one resumes its trial; nothing is lost.
"""

import argparse
import ctypes
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml
from filelock import FileLock

from mnist_amp.errors import RequestError, RunError
from mnist_amp.runs.atomic_files import atomic_write
from mnist_amp.runs.config_text import parse_yaml

try:
    import optuna
    from optuna.trial import Trial, TrialState
    from sqlalchemy.exc import SQLAlchemyError

    from sweep_files import draw, read_metric
except ImportError:
    sys.exit("sweep: error: Optuna is not installed. Install the extra: pip install 'mnist-amp[sweep]'")

FIT = (sys.executable, "-m", "mnist_amp", "fit")
POLL = 1.0  # seconds
# if the sweep is killed, Linux sends SIGTERM to its fit, which then saves a checkpoint and ends
END_WITH_SWEEP = (lambda: ctypes.CDLL(None).prctl(1, 15)) if sys.platform == "linux" else None


class Sweep(argparse.Namespace):
    """The options of the command are attributes; `passed` are those for `fit`."""

    def run(self) -> None:
        """Run trials until as many as wanted are complete or pruned, by this process or by others."""
        draw(optuna.create_study().ask(), self.space, self.passed)  # finds mistakes in the space
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url = self.storage or f"sqlite:///{self.folder}/sweep.db?timeout=60"
        wanted = str([self.space.read_text(), self.passed, self.seeds, self.seed_everything, self.metric, self.mode])
        with FileLock(self.folder / "sweep.lock") as self.lock:  # the processes take turns
            name = self.folder.absolute().name
            study = optuna.create_study(storage=self.url, study_name=name, direction=self.mode, load_if_exists=True)
            if study.user_attrs.get("sweep", wanted) != wanted:
                raise RequestError(f"{self.folder} has another sweep. Repeat its command, or use another --folder.")
            study.set_user_attr("sweep", wanted)
            study.pruner = optuna.pruners.MedianPruner(self.prune_after)
        while True:
            with self.lock:
                trials = study.get_trials(states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED))
                running = [trial for trial in trials if trial.state == TrialState.RUNNING]
                dead = [t._trial_id for t in running if time.time() - t.user_attrs.get("alive", 0) > self.grace]
                trial = Trial(study, dead[0]) if dead else study.ask() if len(trials) < self.trials else None
                if trial:
                    trial.set_user_attr("alive", time.time())
            if trial:
                self.run_trial(trial)
            elif running:
                time.sleep(POLL)  # other processes run the last trials, and may die
            else:
                return self.write_best(study.get_trials(states=(TrialState.COMPLETE,)))

    def run_trial(self, trial: Trial) -> None:
        """Train with each seed, and record the result."""
        try:
            values = [self.fit(trial, self.seed_everything + number) for number in range(self.seeds)]
            state, result = TrialState.COMPLETE, f"{self.metric} {statistics.fmean(values):.6g}"
        except optuna.TrialPruned:
            values, state, result = [], TrialState.PRUNED, "worse than the median"
        except subprocess.SubprocessError as error:
            values, state, result = [], TrialState.FAIL, str(error)
        except RequestError:  # a mistake in the command
            with self.lock:
                trial.study.tell(trial, state=TrialState.FAIL)
                if all(known.state == TrialState.FAIL for known in trial.study.trials):
                    optuna.delete_study(study_name=trial.study.study_name, storage=self.url)
                    for folder in self.folder.glob("trial_*"):
                        shutil.rmtree(folder)
            raise
        trial.set_user_attr("values", values)
        trial.set_user_attr("result", f"{result} with {trial.params}")
        trial.study.tell(trial, statistics.fmean(values) if values else None, state=state)
        print(f"trial {trial.number} {state.name.lower()}: {result} with {trial.params}", flush=True)
        if [trial.state for trial in trial.study.trials[-3:]] == [TrialState.FAIL] * 3:
            raise RequestError("three trials failed one after another, for the reasons above.")

    def fit(self, trial: Trial, seed: int, resume: bool = True) -> float:
        """Fit with one seed, or resume a fit that was interrupted, and return the metric of its best epoch."""
        root = self.folder / f"trial_{trial.number}" / (f"seed_{seed}" if self.seeds > 1 else "")
        root.mkdir(parents=True, exist_ok=True)
        resume = resume and any(root.rglob("last.ckpt"))
        command = [*FIT, *draw(trial, self.space, self.passed), f"--seed_everything={seed}"]
        command += [f"--trainer.default_root_dir={root}", *(["--ckpt_path=last"] if resume else [])]
        with (root / "fit.log").open("wb") as log:
            fit = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=END_WITH_SWEEP)
        try:
            running = True
            while running:
                time.sleep(POLL)
                running = fit.poll() is None
                trial.set_user_attr("alive", time.time())
                values, logged = read_metric(root, self.metric)
                for epoch in values.keys() - trial.study.trials[trial.number].intermediate_values.keys():
                    trial.report(values[epoch], epoch)
                if running and trial.should_prune():
                    raise optuna.TrialPruned
        finally:
            fit.terminate()  # it saves a checkpoint
            fit.wait()
        output = (root / "fit.log").read_text(encoding="utf-8", errors="replace").rstrip()
        ended = "nothing is left to train" in output and any(root.rglob("model.pth"))  # just before a kill
        if fit.returncode == 2 and resume and not ended:
            return self.fit(trial, seed, resume=False)
        if fit.returncode and not ended:
            mistake = fit.returncode == 2 and not trial.study.get_trials(states=(TrialState.COMPLETE,))
            raise (RequestError if mistake else subprocess.SubprocessError)(output.rpartition("\n")[2])
        if not values:
            raise RequestError(f"fit logged no {self.metric}. Use a --metric that it logged: {', '.join(logged)}.")
        return max(values.values()) if self.mode == "maximize" else min(values.values())

    def write_best(self, complete: list[Trial]) -> None:
        """Write the configuration of the best trial, and compare this trial with the second."""
        best, *others = sorted(complete, key=lambda trial: trial.value, reverse=self.mode == "maximize")
        text = min(self.folder.glob(f"trial_{best.number}/**/config.yaml")).read_text(encoding="utf-8")
        config = parse_yaml(text, "config.yaml")
        del config["ckpt_path"], config["trainer"]["default_root_dir"]
        with atomic_write(self.folder / "best.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        print(f"best    trial {best.number}: {best.user_attrs['result']}")
        if others and self.seeds == 1:
            print(f"note    trial {others[0].number} has {others[0].value:.6g}. Chance? --seeds 3 shows it.")
        elif others:
            spread = max(statistics.stdev(trial.user_attrs["values"]) for trial in (best, others[0]))
            winner = "is second" if abs(best.value - others[0].value) > spread else "can't be distinguished from it"
            print(f"note    trial {others[0].number} {winner}: {others[0].value:.6g}; spread over seeds {spread:.2g}")
        print(f"next    mnist-amp fit --config {self.folder / 'best.yaml'}")


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Other options are passed on to mnist-amp fit.", allow_abbrev=False)
    add = parser.add_argument
    add("--space", type=Path, default=Path(__file__).with_name("sweep.yaml"), help="YAML file of the search space")
    add("--trials", type=int, default=20, help="trials in all, complete or pruned; more of them extend a sweep (20)")
    add("--seeds", type=int, default=1, help="runs of each trial, whose mean is its value (1)")
    add("--seed_everything", type=int, default=42, help="the first seed (42)")
    add("--metric", default="val_accuracy", help="a metric of metrics.csv; the best epoch counts (val_accuracy)")
    add("--mode", choices=("maximize", "minimize"), default="maximize", help="which values are better (maximize)")
    add("--folder", type=Path, default=Path("sweep"), help="for the runs, best.yaml and the storage (sweep)")
    add("--prune_after", type=int, default=5, help="complete trials before the first one may be pruned (5)")
    add("--storage", help="URL of a database (SQLite in the folder)")
    add("--grace", type=float, default=60.0, help="seconds without a sign of life after which a trial is dead (60)")
    sweep = Sweep()
    _, sweep.passed = parser.parse_known_args(args, sweep)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sweep.run()
    except KeyboardInterrupt:
        sys.exit("sweep: stopped. The same command continues it.")
    except (RequestError, RunError, OSError, ImportError, optuna.exceptions.OptunaError, SQLAlchemyError) as error:
        sys.exit(f"sweep: error: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
