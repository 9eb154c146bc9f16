"""Resuming: which settings are inherited from the checkpoint, overridden, reported or refused."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mnist_amp.__main__ import main
from mnist_amp.runs import checkpoint_files
from tests.conftest import Refused, Run, files

SMOKE = ("--config", "configs/smoke.yaml")


def last(version: int) -> dict[str, Any]:
    return checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/last.ckpt"))


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Flatten nested dicts and lists into one dict, tensors as lists."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}").items()}
    if isinstance(value, list):
        return {k: v for key, item in enumerate(value) for k, v in flat(item, f"{name}.{key}").items()}
    return {name: value}


KEPT = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "MixedPrecision",
    "loops",
    "epoch",
    "global_step",
    "callbacks",
)


@pytest.mark.parametrize("config", ["fp32", "bf16", "fp16-cpu"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(run: Run, tmp_path: Path, config: str) -> None:
    (tmp_path / "growth.yaml").write_text(
        yaml.safe_dump(
            {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 0.9}}}
        )
    )
    settings = ("-c", f"{config}.yaml", *SMOKE, "-c", "growth.yaml", "--optimizer=SGD", "--optimizer.momentum=0.9")
    run("fit", *settings, "--trainer.max_epochs", "3")
    run("fit", *settings, "--trainer.max_epochs", "1")
    # settings that are not given are inherited: precision, optimizer, schedule, limits
    printed = run("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert "lightning_logs/version_1/checkpoints/last.ckpt (1 epoch done, step 8)\n" in printed
    uninterrupted, resumed = last(0), last(2)
    for key in KEPT:
        assert flat(resumed.get(key)) == flat(uninterrupted.get(key)), key
    assert len(uninterrupted["callbacks"]["RunCheckpoint"]["history"]) == 3


def test_the_best_is_carried_over(run: Run) -> None:
    run("fit", *SMOKE, "--trainer.max_epochs=2", "--optimizer=SGD", "--optimizer.lr=0.1")
    best = Path("lightning_logs/version_0/checkpoints/best.ckpt").read_bytes()
    # the gradients are clipped to almost zero, so the third epoch is not better
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3", "--trainer.gradient_clip_val=1e-30")
    assert last(1)["global_step"] == 24
    assert Path("lightning_logs/version_1/checkpoints/best.ckpt").read_bytes() == best


def test_another_optimizer_is_refused(fitted: Run, refused: Refused) -> None:
    fitted(*SMOKE)
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--optimizer=SGD") == (
        "mnist-amp: error: optimizer is torch.optim.SGD, but lightning_logs/version_0/checkpoints/last.ckpt holds the "
        "state of torch.optim.Adam, which another optimizer can't use. Leave optimizer out, or start without "
        "this checkpoint.\n"
    )


def test_resume_restores_reduce_lr_on_plateau(run: Run) -> None:
    """With a learning rate near zero no epoch is better, so each one lowers it further."""
    schedule = ("--lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--lr_scheduler.monitor=val_loss")
    settings = (*SMOKE, *schedule, "--lr_scheduler.patience=0", "--optimizer=SGD", "--optimizer.lr=1e-30")
    run("fit", *settings, "--lr_scheduler.eps=0", "--trainer.max_epochs=4")
    run("fit", *settings, "--lr_scheduler.eps=0", "--trainer.max_epochs=2")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=4")
    assert last(2)["optimizer_states"] == last(0)["optimizer_states"]
    assert last(2)["lr_schedulers"] == last(0)["lr_schedulers"]
    assert last(0)["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-32)


def test_overridden_settings_are_reported_and_take_effect(run: Run) -> None:
    run("fit", *SMOKE, "--optimizer=SGD", "--optimizer.lr=0.1", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=5")
    changed = ("--optimizer.lr=0.2", "--optimizer.momentum=0.5", "--lr_scheduler.step_size=3", "--data.batch_size=32")
    printed = run("fit", "--ckpt_path=last", "--trainer.max_epochs=2", *changed)
    assert (
        "changed     optimizer.lr 0.1 -> 0.2, optimizer.momentum 0.0 -> 0.5, lr_scheduler.step_size 5 -> 3, "
        "data.batch_size 64 -> 32\n"
    ) in printed
    group = last(1)["optimizer_states"][0]["param_groups"][0]
    assert (group["lr"], group["momentum"]) == (0.2, 0.5)
    assert last(1)["lr_schedulers"][0]["step_size"] == 3


def test_without_overrides_no_change_is_reported(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    assert "changed" not in run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")


def test_limits_of_steps_are_inherited_and_limits_of_time_are_not(run: Run, refused: Refused) -> None:
    run("fit", *SMOKE, "--trainer.max_steps=5", "--trainer.max_time=00:01:00:00")
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=2").endswith(
        "has trained 5 steps and trainer.max_steps is 5: nothing is left to train. Raise it, for example "
        "--trainer.max_steps 10.\n"
    )
    run("fit", "--ckpt_path=last", "--trainer.max_steps=7")
    config = yaml.safe_load(Path("lightning_logs/version_1/config.yaml").read_text())
    assert (config["trainer"]["max_steps"], config["trainer"]["max_time"]) == (7, None)


def test_overridden_trainer_settings_are_reported(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    printed = run("fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--trainer.gradient_clip_val=0.5")
    assert "\nchanged     trainer.gradient_clip_val None -> 0.5\n" in printed


SEQUENCE = (
    "--lr_scheduler=SequentialLR",
    "--lr_scheduler.schedulers=[{class_path: LinearLR, init_args: {start_factor: 0.1, total_iters: 2}}, "
    "{class_path: CosineAnnealingLR, init_args: {T_max: 2}}]",
    "--lr_scheduler.milestones=[2]",
)
ONE_CYCLE = ("--lr_scheduler=OneCycleLR", "--lr_scheduler.max_lr=0.01", "--model.lr_scheduler_interval=step")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("CosineAnnealingLR", "T_max=2"), ("--lr_scheduler.T_max=4",)),
        (("MultiStepLR", "milestones=[1]"), ("--lr_scheduler.milestones=[2,3]",)),
        (("CosineAnnealingLR", "T_max=2"), ("--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5")),
        (("CosineAnnealingLR", "T_max=2"), ("--lr_scheduler=null",)),
        ((), ("--lr_scheduler=CosineAnnealingLR", "--lr_scheduler.T_max=4")),
        (("StepLR", "step_size=1"), SEQUENCE),
    ],
    ids=["T_max", "milestones", "another class", "left out", "added", "warm-up and decay"],
)
def test_an_overridden_schedule_gives_the_rates_of_a_run_that_began_with_it(
    run: Run, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    monitor = ("--trainer.callbacks=LearningRateMonitor", "--trainer.log_every_n_steps=1")
    schedule = [f"--lr_scheduler{'.' if '=' in part else '='}{part}" for part in before]
    run("fit", *SMOKE, *monitor, *schedule, "--trainer.max_epochs=2")
    printed = run("fit", "--ckpt_path=last", *after, "--trainer.max_epochs=4")
    assert "\nchanged     lr_scheduler" in printed
    named = (f"--lr_scheduler={before[0]}",) if before and not after[0].startswith("--lr_scheduler=") else ()
    run("fit", *SMOKE, *monitor, *named, *after, "--trainer.max_epochs=4")
    assert learning_rates(1)[-2:] == learning_rates(2)[-2:]
    assert state(1) == state(2)


def learning_rates(version: int) -> list[float]:
    with Path(f"lightning_logs/version_{version}/metrics.csv").open(newline="") as file:
        return [float(row["lr-Adam"]) for row in csv.DictReader(file) if row.get("lr-Adam")]


def state(version: int) -> Any:
    """Return the settings of the optimizer and the schedule in the last checkpoint."""
    found = checkpoint_files.read(Path(f"lightning_logs/version_{version}/checkpoints/last.ckpt"))
    return found["optimizer_states"][0]["param_groups"], found["lr_schedulers"]


def test_a_longer_one_cycle_schedule_is_the_schedule_of_the_complete_run(run: Run) -> None:
    run("fit", *SMOKE, *ONE_CYCLE, "--lr_scheduler.total_steps=8")
    run("fit", "--ckpt_path=last", "--lr_scheduler.total_steps=16", "--trainer.max_epochs=2")
    run("fit", *SMOKE, *ONE_CYCLE, "--lr_scheduler.total_steps=16", "--trainer.max_epochs=2")
    assert state(1) == state(2)


def test_a_schedule_that_ends_before_the_run_is_refused(run: Run, refused: Refused, tmp_path: Path) -> None:
    message = (
        "mnist-amp: error: the schedule OneCycleLR ends after 8 optimizer steps, but the run takes 16 optimizer steps. "
        "Give the schedule as many steps (OneCycleLR: total_steps), or train for less.\n"
    )
    assert refused("fit", *SMOKE, *ONE_CYCLE, "--lr_scheduler.total_steps=8", "--trainer.max_epochs=2") == message
    assert list(tmp_path.iterdir()) == []
    printed = run("fit", *SMOKE, *ONE_CYCLE, "--lr_scheduler.total_steps=8")
    assert "mnist-amp fit --ckpt_path last --trainer.max_epochs 2 --lr_scheduler.total_steps 16\n" in printed
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=2") == message
    assert [path.name for path in Path("lightning_logs").iterdir()] == ["version_0"]


def test_the_steps_that_are_done_count_for_the_length(run: Run, refused: Refused) -> None:
    """Two epochs of 8 steps are done. Epochs of 4 steps follow, so four epochs take 24 steps and not 16."""
    run("fit", *SMOKE, *ONE_CYCLE, "--lr_scheduler.total_steps=24", "--trainer.max_epochs=2")
    shorter = ("--ckpt_path=last", "--trainer.limit_train_batches=4", "--trainer.max_epochs=4")
    assert refused("fit", *shorter, "--lr_scheduler.total_steps=20") == (
        "mnist-amp: warning: trainer.limit_train_batches 8 -> 4: this changes the batches, so the run is not continued "
        "exactly.\n"
        "mnist-amp: error: the schedule OneCycleLR ends after 20 optimizer steps, but the run takes 24 optimizer "
        "steps. Give the schedule as many steps (OneCycleLR: total_steps), or train for less.\n"
    )
    run("fit", *shorter)
    assert last(1)["global_step"] == last(1)["lr_schedulers"][0]["last_epoch"] == 24


def test_no_longer_fit_is_suggested_for_a_schedule_of_schedules(run: Run) -> None:
    printed = run("fit", *SMOKE, *SEQUENCE)
    assert "\nnext      mnist-amp test\n          tensorboard" in printed
    assert "--ckpt_path last" not in printed


def test_torchs_own_plateau_is_refused(refused: Refused, tmp_path: Path) -> None:
    assert refused("fit", *SMOKE, "--lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau") == (
        "mnist-amp: error: the optimizer or its schedule can't be made: give lightning.pytorch.cli.ReduceLROnPlateau, "
        "which has a monitor, instead of torch's class.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_will_rise_again_is_warned_of(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *SMOKE, "--lr_scheduler=CosineAnnealingLR", "--lr_scheduler.T_max=1"])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "mnist-amp fit --ckpt_path last --trainer.max_epochs 2 --lr_scheduler.T_max 2\n" in printed.out
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert capsys.readouterr().err == (
        "mnist-amp: warning: the learning rate of CosineAnnealingLR rises again after 1 epoch, because the run takes 2 "
        "epochs. For a rate that falls to the end, set T_max to the length of the run.\n"
    )


def test_a_newer_run_without_a_best_is_reported(fitted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        fitted(*SMOKE)
    Path("lightning_logs/version_1/checkpoints/best.ckpt").unlink()
    main(["test", "--trainer.limit_test_batches=2"])
    assert capsys.readouterr().err == (
        "mnist-amp: warning: lightning_logs/version_1 has no best checkpoint yet, so the one of "
        "lightning_logs/version_0 is used.\n"
    )


def test_a_damaged_log_does_not_prevent_resume(fitted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(*SMOKE)
    log = Path("lightning_logs/version_0/metrics.csv")
    log.write_bytes(log.read_bytes()[:-40] + bytes(30) + b",,,,,,,,,,\n")
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: {log} is damaged, so its rows are not copied into the logs of this run.\n"
    )


def test_the_config_of_a_resumed_run_does_not_resume(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    text = Path("lightning_logs/version_1/config.yaml").read_text()
    assert text.startswith("# resumed from lightning_logs/version_0/checkpoints/last.ckpt\n")
    assert yaml.safe_load(text)["ckpt_path"] is None
    assert "Epoch 0: 8 batches" in run("fit", "--config=lightning_logs/version_1/config.yaml")


def test_training_images_are_not_validated_on(
    fitted: Run, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a temperature fitted on them."""
    fitted(*SMOKE)
    message = seen_message("best", "seed_everything")
    for args in (("--seed_everything=5",), ("--data.val_size=6000",)):
        assert refused("validate", *args) == f"mnist-amp: error: {message}\n"
        main(["test", *args])
        assert capsys.readouterr().err == f"mnist-amp: warning: {message} There is no temperature.\n"


def seen_message(name: str, seed_option: str) -> str:
    return (
        f"lightning_logs/version_0/checkpoints/{name}.ckpt may have been trained on images that are validation images "
        "now, so their accuracy may be too high. Give the split of its run: "
        f"--{seed_option} 42 --data.val_size 5000."
    )


def test_a_best_of_later_steps_is_not_carried_over(run: Run, fitted: Run) -> None:
    """A fit that resumes from an early checkpoint must not carry over a best checkpoint of later steps."""
    fitted(*SMOKE)
    early = Path("early.ckpt").write_bytes(Path("lightning_logs/version_0/checkpoints/last.ckpt").read_bytes())
    assert early
    run("fit", *SMOKE, "--trainer.max_epochs=3")
    beside = Path("lightning_logs/version_1/checkpoints/early.ckpt")
    Path("early.ckpt").rename(beside)
    run("fit", f"--ckpt_path={beside}", "--trainer.max_epochs=2", "--trainer.limit_val_batches=0")
    assert checkpoint_files.read(Path("lightning_logs/version_2/checkpoints/best.ckpt"))["global_step"] == 16


def test_resume_from_a_file_and_from_a_folder(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    for start in ("lightning_logs/version_0/checkpoints/best.ckpt", "lightning_logs/version_0"):
        printed = run("fit", "--ckpt_path", start, "--trainer.max_epochs", "2")
        assert "lightning_logs/version_0/checkpoints/" in printed
        assert "(1 epoch done, step 8)" in printed


def test_another_width_is_refused(fitted: Run, refused: Refused) -> None:
    fitted(*SMOKE, "--network.hidden_dim=32")
    where = "lightning_logs/version_0/checkpoints/last.ckpt"
    assert refused("fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--network.hidden_dim=64") == (
        f"mnist-amp: error: {where} holds another network (checkpoint -> now): network.hidden_dim 32 -> 64. Leave "
        "network.hidden_dim out, or start without this checkpoint.\n"
    )


def test_the_width_of_a_checkpoint_is_inherited(run: Run, fitted: Run) -> None:
    fitted(*SMOKE, "--network.hidden_dim=32")
    assert "25,450 parameters" in run("test")
    assert "25,450 parameters" in run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")


def test_nothing_is_left_to_train(fitted: Run, refused: Refused) -> None:
    fitted(*SMOKE)
    assert refused("fit", "--ckpt_path", "last") == (
        "mnist-amp: error: lightning_logs/version_0/checkpoints/last.ckpt has trained 1 epoch and trainer.max_epochs "
        "is 1: nothing is left to train. Raise it, for example --trainer.max_epochs 2.\n"
    )


PRECISIONS = {"16-mixed": "fp16-cpu.yaml", "bf16-mixed": "bf16.yaml", "32-true": "fp32.yaml"}


@pytest.mark.parametrize("before", PRECISIONS)
def test_an_overridden_precision_is_reported_with_the_loss_scale(run: Run, fitted: Run, before: str) -> None:
    fitted(f"--config={PRECISIONS[before]}", *SMOKE)
    assert f"precision   {before}\n" in run("test")
    for now in PRECISIONS.keys() - {before}:
        scale = ""
        if before == "16-mixed":
            scale = f" (its loss scale, 65,536, is dropped because {now} needs none)"
        elif now == "16-mixed":
            scale = " (with a new loss scale, 65,536)"
        start = ("--ckpt_path=lightning_logs/version_0", "--trainer.max_epochs=2")
        printed = run("fit", f"--config={PRECISIONS[now]}", *start)
        assert f"precision   {now}\n" in printed
        assert f"\nchanged     precision {before} -> {now}{scale}\n" in printed
    assert "precision   32-true\n" in run("test", "--ckpt_path=lightning_logs/version_0", "--trainer.precision=32-true")


def test_resume_restores_the_loss_scale(run: Run, fitted: Run) -> None:
    fitted("--config=fp16-cpu.yaml", *SMOKE)
    assert "changed" not in run("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert last(1)["MixedPrecision"]["_growth_tracker"] == 16


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("--data.batch_size=32", "data.batch_size 64 -> 32"),
        ("--seed_everything=1", "seed_everything 42 -> 1"),
        ("--data.seed=1", "data.seed None -> 1"),
        ("--data.val_size=9", "data.val_size None -> 9"),
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches 1 -> 2"),
        ("--data.mean=0.1", "data.mean 0.5 -> 0.1"),
        (
            "--trainer.callbacks={class_path: GradientAccumulationScheduler, init_args: {scheduling: {1: 2}}}",
            "trainer.callbacks None -> GradientAccumulationScheduler",
        ),
    ],
)
def test_settings_that_change_the_batches_are_warned_of(
    fitted: Run, capsys: pytest.CaptureFixture[str], argument: str, change: str
) -> None:
    fitted(*SMOKE)
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2", argument])
    printed = capsys.readouterr()
    seen = f"mnist-amp: warning: {seen_message('last', change.partition(' ')[0])}\n" if "seed" in change else ""
    assert printed.err == (
        f"mnist-amp: warning: {change}: this changes the batches, so the run is not continued exactly.\n{seen}"
    )
    assert f"\nchanged     {change}\n" in printed.out


def test_validation_is_on_the_runs_own_images(run: Run) -> None:
    """The validation images depend on the seed. Another seed would score images that were trained on."""
    summary = run("fit", *SMOKE, "--seed_everything=7", "--data.val_size=100", "--trainer.limit_val_batches=1.0")
    accuracy = summary[summary.index("accuracy  ") :].split()[1]
    assert f"accuracy  {accuracy} of 100 images\n" in run("validate")


def test_clipping_can_change_on_resuming(run: Run, fitted: Run) -> None:
    fitted(*SMOKE)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--trainer.gradient_clip_val=1e-30")
    for key in ("exp_avg", "exp_avg_sq"):  # eight steps whose gradients are almost zero
        before, after = (last(version)["optimizer_states"][0]["state"][0][key] for version in (0, 1))
        torch.testing.assert_close(after, before * {"exp_avg": 0.9, "exp_avg_sq": 0.999}[key] ** 8)
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3", "--trainer.gradient_clip_val=0.0")
    assert not last(2)["optimizer_states"][0]["state"][0]["exp_avg"].allclose(after * 0.9**8)
    assert [last(version)["optimizer_states"][0]["param_groups"][0]["fused"] for version in range(3)] == [True] * 3


def test_optimizer_settings_that_need_more_state_are_refused(run: Run, refused: Refused, tmp_path: Path) -> None:
    run("fit", *SMOKE)
    before = files(tmp_path)
    message = refused("fit", "--ckpt_path=last", "--trainer.max_epochs=2", "--optimizer.amsgrad=true")
    assert message.startswith(
        "mnist-amp: error: the overridden settings of the optimizer need more state than "
        "lightning_logs/version_0/checkpoints/last.ckpt has; leave them out: "
    )
    assert files(tmp_path) == before
