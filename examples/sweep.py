"""Search for good settings of `mnist-amp fit` with Optuna: `python examples/sweep.py --trials 20`. See docs/sweeps.md.

A trial is a `mnist-amp fit` in a process of its own. The same command, started again, continues the sweep; started
several times, it runs several trials at once. If a process dies, another one resumes its trial; nothing is lost.
"""

import argparse
import csv
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml
from filelock import FileLock

from mnist_amp.runs.config_text import parse_yaml, read_yaml
from mnist_amp.runs.folders import run_dirs

try:
    import optuna
    from optuna.trial import Trial, TrialState
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
        self.settings(optuna.create_study().ask())  # finds mistakes in the space
        self.folder.mkdir(parents=True, exist_ok=True)
        url, name = self.storage or f"sqlite:///{self.folder}/sweep.db?timeout=60", self.folder.absolute().name
        wanted = str([self.space.read_text(), self.passed, self.seeds, self.seed_everything, self.metric, self.mode])
        with (lock := FileLock(self.folder / "sweep.lock")):  # the processes take turns
            study = optuna.create_study(storage=url, study_name=name, direction=self.mode, load_if_exists=True)
            if study.user_attrs.get("sweep", wanted) != wanted:
                raise ValueError(f"{self.folder} has another sweep. Repeat its command, or use another --folder.")
            study.set_user_attr("sweep", wanted)
        while True:
            with lock:
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
                return self.write_best([trial for trial in trials if trial.state == TrialState.COMPLETE])

    def settings(self, trial: Trial) -> list[str]:
        """Return the options of `fit`. Optuna draws those that the trial does not have yet."""
        settings, passed = [], {option.partition("=")[0] for option in self.passed}
        for name, value in parse_yaml(self.space.read_text(encoding="utf-8"), str(self.space)).items():
            if f"--{name}" in passed:
                continue
            if isinstance(value, dict) and "choices" in value:
                choices = [json.dumps(choice) if isinstance(choice, dict) else choice for choice in value["choices"]]
                value = trial.suggest_categorical(name, choices)
            elif isinstance(value, dict) and "low" in value:
                bounds = {key: read_yaml(str(bound)) for key, bound in value.items()}  # YAML takes 1e-4 for a text
                whole = all(isinstance(bound, int) for bound in bounds.values())
                value = (trial.suggest_int if whole else trial.suggest_float)(name, **bounds)
            settings.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
        return [*self.passed, *sorted(settings, key=lambda text: "." in text.partition("=")[0])]  # classes come first

    def run_trial(self, trial: Trial) -> None:
        """Train with each seed, and record the result."""
        try:
            values = [self.fit(trial, self.seed_everything + number) for number in range(self.seeds)]
            state, result = TrialState.COMPLETE, f"{self.metric} {statistics.fmean(values):.6g}"
        except optuna.TrialPruned:
            values, state, result = [], TrialState.PRUNED, "worse than the median"
        except subprocess.SubprocessError as error:
            values, state, result = [], TrialState.FAIL, str(error)
        trial.set_user_attr("values", values)
        trial.set_user_attr("result", f"{result} with {trial.params}")
        trial.study.tell(trial, statistics.fmean(values) if values else None, state=state)
        print(f"trial {trial.number} {state.name.lower()}: {result} with {trial.params}", flush=True)
        if [trial.state for trial in trial.study.trials[-3:]] == [TrialState.FAIL] * 3:
            raise ValueError("three trials failed one after another, for the reasons above.")

    def fit(self, trial: Trial, seed: int, resume: bool = True) -> float:
        """Fit with one seed, or resume a fit that was interrupted, and return the metric of its best epoch."""
        root = self.folder / f"trial_{trial.number}" / (f"seed_{seed}" if self.seeds > 1 else "")
        root.mkdir(parents=True, exist_ok=True)
        command = [*FIT, *self.settings(trial), f"--seed_everything={seed}", f"--trainer.default_root_dir={root}"]
        command += ["--ckpt_path=last"] if resume and any(root.rglob("last.ckpt")) else []
        with (root / "fit.log").open("wb") as log:
            fit = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=END_WITH_SWEEP)
        try:
            running = True
            while running:
                time.sleep(POLL)
                running = fit.poll() is None
                trial.set_user_attr("alive", time.time())
                metrics = next(run_dirs(root), root) / "metrics.csv"
                text = metrics.read_text(encoding="utf-8") if metrics.is_file() else ""
                rows = csv.DictReader(text.rpartition("\n")[0].splitlines())  # the last row may be incomplete
                values = {int(row["epoch"]): float(row[self.metric]) for row in rows if row.get(self.metric)}
                for epoch in values.keys() - trial.study.trials[trial.number].intermediate_values.keys():
                    trial.report(values[epoch], epoch)
                if running and trial.should_prune():
                    raise optuna.TrialPruned
        finally:
            fit.terminate()  # it saves a checkpoint
            fit.wait()
        if fit.returncode == 2 and "--ckpt_path=last" in command:  # nothing was left to train
            return self.fit(trial, seed, resume=False)
        if fit.returncode or not values:
            reason = (root / "fit.log").read_text().rstrip().rpartition("\n")[2] if fit.returncode else "metric missing"
            raise (ValueError if trial.number == 0 and fit.returncode == 2 else subprocess.SubprocessError)(reason)
        return max(values.values()) if self.mode == "maximize" else min(values.values())

    def write_best(self, complete: list[Trial]) -> None:
        """Write the configuration of the best trial, and compare this trial with the second."""
        best, *others = sorted(complete, key=lambda trial: trial.value, reverse=self.mode == "maximize")
        path = min(self.folder.glob(f"trial_{best.number}/**/config.yaml"))
        config = parse_yaml(path.read_text(encoding="utf-8"), path.name)
        del config["ckpt_path"], config["trainer"]["default_root_dir"]
        (self.folder / "best.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        print(f"best    trial {best.number}: {best.user_attrs['result']}")
        if others and self.seeds == 1:
            print(f"note    trial {others[0].number} has {others[0].value:.6g}. Chance? --seeds 3 shows it.")
        elif others:
            spread = max(statistics.stdev(trial.user_attrs["values"]) for trial in (best, others[0]))
            winner = "is second" if abs(best.value - others[0].value) > spread else "can't be distinguished from it"
            print(f"note    trial {others[0].number} {winner}: {others[0].value:.6g}; spread over seeds {spread:.2g}")


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
    add("--storage", help="URL of a database (SQLite in the folder)")
    add("--grace", type=float, default=60.0, help="seconds without a sign of life after which a trial is dead (60)")
    sweep = Sweep()
    _, sweep.passed = parser.parse_known_args(args, sweep)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sweep.run()
    except KeyboardInterrupt:
        sys.exit("sweep: stopped. The same command continues it.")
    except Exception as error:  # of the space, the storage or its driver, or of all trials
        sys.exit(f"sweep: error: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
