"""Each mistake gets one message, exit status 2, and leaves nothing behind."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from mnist_amp.__main__ import main
from mnist_amp.cli import lightning_cli
from tests.conftest import Refused, Run, files

SMOKE = ("--config", "configs/smoke.yaml")
ADAM = "lr, betas, eps, weight_decay, amsgrad, foreach, maximize, capturable, differentiable, fused, decoupled_weight_decay"
SEE = " See mnist-amp fit --help."

SETTINGS = [
    # unknown
    ("--data.batchsize=3", f"there is no option data.batchsize (did you mean data.batch_size?).{SEE}"),
    ("--trainer.max_epoch=3", f"there is no option trainer.max_epoch (did you mean trainer.max_epochs?).{SEE}"),
    ("--ckpt=last", f"there is no option ckpt (did you mean ckpt_path?).{SEE}"),
    ("--nothing.like.it=3", f"there is no option nothing.like.it.{SEE}"),
    ("smoke.yaml", f"smoke.yaml belongs to no option; settings are given as in --config smoke.yaml.{SEE}"),
    ("--optimizer=Adamm", f"optimizer can't be Adamm (did you mean Adam?); it is the name of a class.{SEE}"),
    ("--lr_scheduler=StepRL", f"lr_scheduler can't be StepRL (did you mean StepLR?); it is the name of a class.{SEE}"),
    ("--optimizer.beta=1", f"optimizer: Adam takes no beta (did you mean betas?); it takes {ADAM}.{SEE}"),
    ("--lr_scheduler=StepLR", f"lr_scheduler: StepLR needs step_size, as in --lr_scheduler.step_size VALUE.{SEE}"),
    # of the wrong type
    ("--data.batch_size=many", f"data.batch_size can't be many; it takes int.{SEE}"),
    ("--data.batch_size=1.5", f"data.batch_size can't be 1.5; it takes int.{SEE}"),
    ("--data.val_size=null", f"data.val_size can't be None; it takes int.{SEE}"),
    ("--optimizer.lr=abc", f"optimizer.lr can't be abc; it takes float.{SEE}"),
    ("--seed_everything=abc", f"seed_everything can't be abc; it takes bool or int.{SEE}"),
    (
        "--trainer.precision=17-mixed",
        "trainer.precision can't be 17-mixed (did you mean 16-mixed?); it takes transformer-engine, "
        "transformer-engine-float16, 16-true, 16-mixed, bf16-true, bf16-mixed, 32-true, 64-true, 64, 32, 16, bf16."
        f"{SEE}",
    ),
    (
        "--model=3",
        f"model can't be 3; its settings are given one by one, as --model.hidden_dim.{SEE}",
    ),
    ("--data=3", f"data can't be 3; its settings are given one by one, as --data.data_dir.{SEE}"),
    ("--data.batch_size=" + "[" * 2000, f"data.batch_size can't be {'[' * 60}... it takes int.{SEE}"),
    # out of range
    ("--data.batch_size=0", f"data.batch_size is 0; it must be at least 1 and at most 60000.{SEE}"),
    ("--data.batch_size=-4", f"data.batch_size is -4; it must be at least 1 and at most 60000.{SEE}"),
    ("--model.hidden_dim=0", f"model.hidden_dim is 0; it must be at least 1 and below 2147483648.{SEE}"),
    (
        "--data.val_size=60000",
        f"data.val_size is 60000; it must be at least 0 and below 60000.{SEE}",
    ),
    ("--trainer.max_epochs=0", f"trainer.max_epochs is 0; it must be at least 1, or -1 for no limit.{SEE}"),
    ("--trainer.max_epochs=-2", f"trainer.max_epochs is -2; it must be at least 1, or -1 for no limit.{SEE}"),
    ("--trainer.max_steps=0", f"trainer.max_steps is 0; it must be at least 1, or -1 for no limit.{SEE}"),
    ("--optimizer.lr=0", f"optimizer.lr is 0.0; it must be above 0.{SEE}"),
    ("--optimizer.lr=-1", f"optimizer.lr is -1.0; it must be above 0.{SEE}"),
    ("--optimizer.lr=.inf", f"optimizer.lr is inf; it must be above 0.{SEE}"),
    ("--optimizer.eps=-1", "the optimizer or its schedule can't be made: Invalid epsilon value: -1.0."),
    ("--trainer.limit_train_batches=0", f"trainer.limit_train_batches is 0.0; it must be above 0.{SEE}"),
    ("--trainer.accumulate_grad_batches=0", f"trainer.accumulate_grad_batches is 0; it must be at least 1.{SEE}"),
    ("--trainer.check_val_every_n_epoch=0", f"trainer.check_val_every_n_epoch is 0; it must be at least 1.{SEE}"),
    ("--trainer.gradient_clip_val=-1", f"trainer.gradient_clip_val is -1.0; it must be at least 0.{SEE}"),
    ("--trainer.val_check_interval=0", f"trainer.val_check_interval is 0; it must be above 0.{SEE}"),
    (
        "--trainer.num_sanity_val_steps=-5",
        f"trainer.num_sanity_val_steps is -5; it must be at least 0, or -1 for no limit.{SEE}",
    ),
    ("--trainer.min_epochs=-3", f"trainer.min_epochs is -3; it must be at least 0.{SEE}"),
    ("--optimizer=null", f"optimizer is null; leave it out to have its default.{SEE}"),
    ("--checkpoint.every_n_train_steps=-1", f"checkpoint.every_n_train_steps is -1; it must be at least 0.{SEE}"),
    ("--seed_everything=-1", f"seed_everything is -1; it must be at least 0 and at most 4294967295.{SEE}"),
    ("--data.seed=4294967296", f"data.seed is 4294967296; it must be at least 0 and at most 4294967295.{SEE}"),
    (
        "--trainer.val_check_interval=99",
        "`val_check_interval` (99) must be less than or equal to the number of the training batches (8). If you want to "
        "disable validation set `limit_val_batches` to 0.0 instead. If you want to validate based on the total training "
        "batches, set `check_val_every_n_epoch=None`.",
    ),
    (f"--data.batch_size={2**63}", f"data.batch_size is {2**63}; it must be at least 1 and at most 60000.{SEE}"),
    (f"--model.hidden_dim={10**28}", f"model.hidden_dim is {10**28}; it must be at least 1 and below 2147483648.{SEE}"),
    ("--trainer.max_time=00:00:00:00", f"trainer.max_time is 00:00:00:00; it must be above 0.{SEE}"),
    ("--trainer.max_time=-1:00:00:00", f"trainer.max_time is -1:00:00:00; it must be above 0.{SEE}"),
    ("--trainer.max_time={hours: -1}", f"trainer.max_time is {{'hours': -1}}; it must be above 0.{SEE}"),
    ("--trainer.max_time={days: 1000000000000}", "Python int too large to convert to C int"),
    ("--ckpt_path=", f"ckpt_path is empty; name a checkpoint, or leave it out.{SEE}"),
    ("--trainer.default_root_dir=a\0b", "the name of a file or folder has a null character in it."),
    (
        f"--trainer.default_root_dir={'x' * 300}",
        f"no run can be written to {'x' * 300}/lightning_logs: {os.strerror(errno.ENAMETOOLONG)}. Name a writable folder with --trainer.default_root_dir.",
    ),
    # what can't be had here
    *(
        (
            f"--trainer.strategy={name}",
            f"trainer.strategy is {name}, whose processes can't hand back the figures of the run. Take ddp.{SEE}",
        )
        for name in ("ddp_spawn", "ddp_fork_find_unused_parameters_true", "ddp_notebook")
    ),
    *(
        (
            f"--trainer.callbacks={name}",
            f"{name} trains for a while and begins anew, which a run that can be gone on with exactly can't. Leave it out, and give {option}.{SEE}",
        )
        for name, option in (("LearningRateFinder", "optimizer.lr"), ("BatchSizeFinder", "data.batch_size"))
    ),
    (
        "--optimizer=SparseAdam",
        "the optimizer can't be used: RuntimeError: SparseAdam does not support dense gradients, please consider Adam instead.",
    ),
    *(
        (f"--{option}={path}.X", f"No module named '{path}'. Correct the name of the class, or install what it is in.")
        for option, path in (("optimizer", "torch.nope"), ("trainer.callbacks", "nomod"))
    ),
    (
        "--trainer.logger=WandbLogger",
        "lightning.pytorch.loggers.WandbLogger can't be made: Requirement 'wandb>=0.12.10' not met.",
    ),
    (
        "--trainer.precision=16-true",
        "trainer.precision is 16-true, in which training on a CPU comes to nan at once, as Adam's smallest numbers are "
        "zero in fp16. Take bf16-true, or fp16 with a GradScaler as in --config configs/fp16-cpu.yaml.",
    ),
    ("--trainer.devices=[a]", "`devices` selected with `CPUAccelerator` should be an int > 0."),
    (
        "--trainer.default_root_dir=s3://bucket",
        f"trainer.default_root_dir is s3://bucket; runs are written to folders of this machine.{SEE}",
    ),
]


@pytest.mark.parametrize(("argument", "message"), SETTINGS)
def test_a_setting(refused: Refused, tmp_path: Path, argument: str, message: str) -> None:
    assert refused("fit", *SMOKE, argument) == f"mnist-amp: error: {message}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"data:\n  batch_size: [3\nmodel: 3\n", "a.yaml:3:6: this is not YAML: expected ',' or ']', but got ':'."),
        (b"data:\n  batch_size: 3\x01", "a.yaml:2: this is not YAML: it has the character '\\x01'."),
        (b"data: &a {x: *a}", "a.yaml has more than 10,000 values. A YAML alias may refer to itself."),
        (b"[" * 2000, "a.yaml is nested too deeply."),
        (b"data: 2026-13-45", "a.yaml: this can't be read as YAML: month must be in 1..12."),
        (
            b"data: {batch_size: 0}",
            f"data.batch_size is 0; it must be at least 1 and at most 60000. It is set by a.yaml.{SEE}",
        ),
        # which MNIST_AMP_DATA__DATA_DIR sets, too
        (b"data: {data_dir: [3]}", f"data.data_dir can't be [3]; it takes str. It is set by a.yaml.{SEE}"),
        (b"some words", "a.yaml holds no settings; a config file has lines such as `data: {batch_size: 32}`."),
        (b"", "a.yaml holds no settings; a config file has lines such as `data: {batch_size: 32}`."),
        (
            b"\xff\xfe\x00",
            "a.yaml can't be read as a config file: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte.",
        ),
        (
            b"data: {batchsize: 3}",
            f"there is no option data.batchsize (did you mean data.batch_size?). It is set by a.yaml.{SEE}",
        ),
        (
            b"dtaa: {batch_size: 3}",
            f"there is no option dtaa.batch_size (did you mean data.batch_size?). It is set by a.yaml.{SEE}",
        ),
        (b"data: {batch_size: many}", f"data.batch_size can't be many; it takes int. It is set by a.yaml.{SEE}"),
        (
            b"optimizer: {class_path: SGD, init_args: {momentumm: 3}}",
            "optimizer: SGD takes no momentumm (did you mean momentum?); it takes lr, momentum, dampening, weight_decay, "
            f"nesterov, maximize, foreach, differentiable, fused. It is set by a.yaml.{SEE}",
        ),
        (
            b"{data: {val_size: 0}, trainer: {callbacks: {class_path: EarlyStopping, init_args: {monitor: val_loss}}}}",
            "EarlyStopping monitors val_loss, but no images are held out: data.val_size or trainer.limit_val_batches is "
            f"0. Hold some out, or monitor train_loss.{SEE}",
        ),
    ],
)
def test_a_config_file(refused: Refused, tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    assert refused("fit", *SMOKE, "--config", "a.yaml") == f"mnist-amp: error: {message}\n"
    assert files(tmp_path) == {"a.yaml"}


def test_a_config_file_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert refused("fit", "--config=no.yaml") == (
        "mnist-amp: error: there is no config file no.yaml. Shipped are bf16, cosine, cuda, ddp-cpu, fast, fp16-cpu, fp16-cuda, "
        "fp32, guide, overfit, profile, smoke (.yaml).\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATA__BATCHSIZE", "3", "there is no option data.batchsize (did you mean data.batch_size?)."),
        ("DATA__BATCH_SIZE", "x", "data.batch_size can't be x; it takes int."),
        ("OPTIMIZER__LR", "0", "optimizer.lr is 0.0; it must be above 0."),
    ],
)
def test_an_environment_variable(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"MNIST_AMP_{name}", value)
    assert refused("fit", *SMOKE) == f"mnist-amp: error: {message} It is set by MNIST_AMP_{name}.{SEE}\n"


def test_options_before_the_command(refused: Refused) -> None:
    assert refused("--config", "smoke.yaml", "fit") == (
        "mnist-amp: error: options come after the command: mnist-amp fit --config smoke.yaml\n"
    )


@pytest.mark.parametrize(
    ("where", "reason"),
    # /proc takes no files, whoever asks
    [("file", "Not a directory"), ("/proc", "No such file or directory")],
)
def test_a_folder_that_runs_can_not_be_written_to(refused: Refused, tmp_path: Path, where: str, reason: str) -> None:
    (tmp_path / "file").touch()
    assert refused("fit", *SMOKE, f"--trainer.default_root_dir={where}") == (
        f"mnist-amp: error: no run can be written to {where}/lightning_logs: {reason}. Name a writable folder "
        "with --trainer.default_root_dir.\n"
    )
    assert files(tmp_path) == {"file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "locked/lightning_logs: Permission denied." in refused("fit", *SMOKE, "--trainer.default_root_dir=locked")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no.ckpt (0 bytes) is not a checkpoint, or it is truncated or damaged."),
        (b"\x93random\x00bytes", "no.ckpt (13 bytes) is not a checkpoint, or it is truncated or damaged."),
        (None, "there is no checkpoint at no.ckpt. No run under lightning_logs has one."),
    ],
)
@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_checkpoint(refused: Refused, tmp_path: Path, content: bytes | None, message: str, subcommand: str) -> None:
    if content is not None:
        (tmp_path / "no.ckpt").write_bytes(content)
    assert refused(subcommand, "--ckpt_path=no.ckpt") == f"mnist-amp: error: {message}\n"
    assert files(tmp_path) <= {"no.ckpt"}


def test_a_folder_without_a_checkpoint(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert refused("test", "--ckpt_path=folder") == (
        "mnist-amp: error: there is no checkpoint at folder/checkpoints/best.ckpt. No run under lightning_logs "
        "has one.\n"
    )


def test_checkpoints_of_others(fitted: Run, refused: Refused, tmp_path: Path) -> None:
    fitted(*SMOKE)
    left = files(tmp_path)
    good = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    checkpoint = torch.load(good, weights_only=True)

    def said(*args: str) -> str:
        return refused(*args, "--ckpt_path=it.ckpt").removeprefix("mnist-amp: error: it.ckpt ").removesuffix("\n")

    more = ("fit", "--trainer.max_epochs=2")
    torch.save({**checkpoint, "hyper_parameters": {"dropout": 0.1}}, "it.ckpt")
    assert said(*more) == (
        "is damaged, or a checkpoint of another project: its hyper_parameters.hidden_dim is missing. The newest whole "
        f"checkpoint is {good}."
    )
    weights = checkpoint["state_dict"]
    torch.save({**checkpoint, "state_dict": {**weights, "model.fc3.bias": torch.zeros(10)}}, "it.ckpt")
    assert said(*more) == (
        "holds another network. These weights differ in name or shape: model.fc3.bias. This network has model.fc1.weight, model.fc1.bias, "
        "model.fc2.weight, model.fc2.bias."
    )
    torch.save(weights, "it.ckpt")
    assert said("test") == (
        "holds only weights, like model.pth. A run keeps its checkpoints in its folder checkpoints/. The newest whole "
        f"checkpoint is {good}."
    )
    Path("it.ckpt").write_bytes(good.read_bytes()[:10_000])
    assert said(*more) == (
        f"(10,000 bytes) is not a checkpoint, or it is truncated or damaged. The newest whole checkpoint is {good}."
    )
    assert files(tmp_path) - left == {"it.ckpt"}


def test_a_config_that_can_be_read_once_only(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("data: {batchsize: 3}",), daemon=True).start()
    assert refused("fit", *SMOKE, "--config=pipe") == (
        f"mnist-amp: error: there is no option data.batchsize (did you mean data.batch_size?).{SEE}\n"
    )


@pytest.mark.parametrize("root", [".", "lightning_logs"])
def test_a_log_folder_that_is_a_link_to_nothing(refused: Refused, tmp_path: Path, root: str) -> None:
    (tmp_path / "lightning_logs").symlink_to("nowhere")
    assert refused("fit", *SMOKE, f"--trainer.default_root_dir={root}") == (
        f"mnist-amp: error: no run can be written to {Path(root) / 'lightning_logs'}: Not a directory. Name a writable "
        "folder with --trainer.default_root_dir.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_logs"]


def test_other_nodes_are_waited_for_aloud(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lightning_cli.MnistAmpCLI, "instantiate_trainer", lambda self: 1 / 0)
    with pytest.raises(SystemExit):
        run("fit", *SMOKE, "--trainer.num_nodes=2")
    assert capsys.readouterr().err.splitlines()[0] == (
        "mnist-amp: warning: the run begins when all 2 nodes are there. Start this command on each, with NODE_RANK (0 to 1), "
        "MASTER_ADDR and MASTER_PORT in its environment."
    )


def test_a_last_that_is_missing_gives_way(fitted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(*SMOKE)
    last = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    last.unlink()
    last.symlink_to("nowhere.ckpt")
    Path("lightning_logs/version_1").mkdir()
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert capsys.readouterr().err == (
        "mnist-amp: warning: lightning_logs/version_1 has no last checkpoint yet, so the one of lightning_logs/version_0 "
        f"is used.\nmnist-amp: warning: {last} can't be read: No such file or directory. Going on from the newest whole one, "
        f"{last.with_name('best.ckpt')}.\n"
    )


def test_a_damaged_last_gives_way_to_the_newest_whole(
    fitted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted(*SMOKE)
    last = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:-1000])
    size = f"{last.stat().st_size:,}"
    best = last.with_name("best.ckpt")
    for start in ("last", "lightning_logs/version_0"):
        main(["fit", f"--ckpt_path={start}", "--trainer.max_epochs=2"])
        printed = capsys.readouterr()
        assert printed.err == (
            f"mnist-amp: warning: {last} ({size} bytes) is not a checkpoint, or it is truncated or damaged. "
            f"Going on from the newest whole one, {best}.\n"
        )
        assert f"checkpoint  {best} (" in printed.out
        shutil.rmtree("lightning_logs/version_1")


def test_a_last_that_is_a_link_to_nothing_gives_way_too(
    fitted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        fitted(*SMOKE)
    last = Path("lightning_logs/version_1/checkpoints/last.ckpt")
    last.unlink()
    last.symlink_to("gone.ckpt")
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: {last} can't be read: No such file or directory. Going on from the newest whole one, "
        f"{last.with_name('best.ckpt')}.\n"
    )


def test_another_runs_checkpoint_takes_no_place_unasked(fitted: Run, refused: Refused) -> None:
    for _ in range(2):
        fitted(*SMOKE)
    folder = Path("lightning_logs/version_1/checkpoints")
    (folder / "best.ckpt").unlink()
    (folder / "last.ckpt").write_bytes(b"torn")
    assert refused("fit", f"--ckpt_path={folder.parent}", "--trainer.max_epochs=2") == (
        f"mnist-amp: error: {folder / 'last.ckpt'} (4 bytes) is not a checkpoint, or it is truncated or damaged. "
        "The newest whole checkpoint is lightning_logs/version_0/checkpoints/last.ckpt.\n"
    )


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            ("--lr_scheduler=StepLR", "--lr_scheduler.step_size=0"),
            "the optimizer or its schedule can't be used: integer modulo by zero.",
        ),
        (
            ("--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val_acc"),
            "ReduceLROnPlateau monitors val_acc; what there is to monitor is train_loss, train_accuracy, "
            f"train_loss_step, val_loss, val_accuracy.{SEE}",
        ),
    ],
)
def test_a_schedule(refused: Refused, schedule: tuple[str, ...], message: str) -> None:
    assert refused("fit", *SMOKE, *schedule) == f"mnist-amp: error: {message}\n"
    assert not Path("lightning_logs").exists()


def test_an_unforeseen_error_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lightning_cli, "run", lambda args: 1 / 0)
    with pytest.raises(SystemExit) as exit_info:
        run("fit")
    assert exit_info.value.code == 1
    assert capsys.readouterr().err == (
        "mnist-amp: error: ZeroDivisionError: division by zero\nSet MNIST_AMP_DEBUG=1 to see where it came from.\n"
    )
