"""Each mistake ends in one message and exit status 2, and leaves no file."""

import importlib.util
import inspect
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch

from mnist_amp.__main__ import main
from mnist_amp.cli import lightning_cli
from tests.conftest import THEIRS, Refused, Run, files, filled

SMOKE = ("--config", "configs/smoke.yaml")
ADAM, SGD = (", ".join(list(inspect.signature(kind).parameters)[1:]) for kind in (torch.optim.Adam, torch.optim.SGD))
SEE = " See mnist-amp fit --help."
NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

SETTINGS = [
    # unknown
    ("--data.batchsize=3", f"there is no option data.batchsize (did you mean data.batch_size?).{SEE}"),
    ("--trainer.max_epoch=3", f"there is no option trainer.max_epoch (did you mean trainer.max_epochs?).{SEE}"),
    ("--ckpt=last", f"there is no option ckpt (did you mean ckpt_path?).{SEE}"),
    ("--optimiser.lr=1", f"there is no option optimiser.lr (did you mean optimizer.lr?).{SEE}"),
    ("--lr=1", f"there is no option lr (did you mean optimizer.lr?).{SEE}"),
    ("--epochs=3", f"there is no option epochs (did you mean trainer.max_epochs?).{SEE}"),
    ("--batch_size=3", f"there is no option batch_size (did you mean data.batch_size?).{SEE}"),
    ("--nothing.like.it=3", f"there is no option nothing.like.it.{SEE}"),
    (
        "--fit.trainer.max_epochs=1",
        f"there is no option fit.trainer.max_epochs; leave out `fit.`, as in --trainer.max_epochs.{SEE}",
    ),
    ("smoke.yaml", f"smoke.yaml is not an option; a config file is given as in --config smoke.yaml.{SEE}"),
    ("--optimizer=Adamm", f"optimizer can't be Adamm (did you mean Adam?); give the name of a class.{SEE}"),
    ("--lr_scheduler=StepRL", f"lr_scheduler can't be StepRL (did you mean StepLR?); give the name of a class.{SEE}"),
    ("--optimizer.beta=1", f"optimizer: Adam takes no beta (did you mean betas?); it takes {ADAM}.{SEE}"),
    ("--lr_scheduler=StepLR", f"lr_scheduler: StepLR needs step_size, as in --lr_scheduler.step_size VALUE.{SEE}"),
    # of the wrong type
    ("--data.batch_size=many", f"data.batch_size can't be many; it takes int.{SEE}"),
    ("--data.batch_size=1.5", f"data.batch_size can't be 1.5; it takes int.{SEE}"),
    ("--optimizer.lr=abc", f"optimizer.lr can't be abc; it takes float.{SEE}"),
    ("--seed_everything=abc", f"seed_everything can't be abc; it takes true or false or int.{SEE}"),
    (
        "--trainer.precision=17-mixed",
        f"trainer.precision can't be 17-mixed (did you mean 16-mixed?); it takes {THEIRS}, 16-mixed, {THEIRS}.{SEE}",
    ),
    (
        "--model=3",
        f"model can't be 3; set its parts one by one, such as --model.lr_scheduler_interval.{SEE}",
    ),
    ("--data=3", f"data can't be 3; set its parts one by one, such as --data.data_dir.{SEE}"),
    # out of range
    ("--data.batch_size=0", f"data.batch_size is 0; it must be at least 1.{SEE}"),
    ("--data.batch_size=-4", f"data.batch_size is -4; it must be at least 1.{SEE}"),
    ("--network.hidden_dim=0", f"network.hidden_dim is 0; it must be at least 1.{SEE}"),
    (
        "--data.val_size=60000",
        "data.val_size is 60000; it must be at least 0 and leave some of the 60,000 images to train on.",
    ),
    ("--trainer.max_epochs=0", f"trainer.max_epochs is 0; it must be at least 1, or -1 for no limit.{SEE}"),
    ("--trainer.max_epochs=-2", f"trainer.max_epochs is -2; it must be at least 1, or -1 for no limit.{SEE}"),
    ("--trainer.max_steps=0", f"trainer.max_steps is 0; it must be at least 1, or -1 for no limit.{SEE}"),
    ("--optimizer.lr=0", f"optimizer.lr is 0.0; it must be above 0.{SEE}"),
    ("--optimizer.lr=-1", f"optimizer.lr is -1.0; it must be above 0.{SEE}"),
    ("--optimizer.lr=.inf", f"optimizer.lr is inf; it must be above 0.{SEE}"),
    ("--optimizer.eps=-1", f"the optimizer or its schedule can't be made: {THEIRS}."),
    ("--trainer.limit_train_batches=0", f"trainer.limit_train_batches is 0; it must be above 0.{SEE}"),
    ("--trainer.accumulate_grad_batches=0", f"trainer.accumulate_grad_batches is 0; it must be at least 1.{SEE}"),
    ("--trainer.check_val_every_n_epoch=0", f"trainer.check_val_every_n_epoch is 0; it must be at least 1.{SEE}"),
    ("--trainer.gradient_clip_val=-1", f"trainer.gradient_clip_val is -1; it must be at least 0.{SEE}"),
    ("--trainer.val_check_interval=0", f"trainer.val_check_interval is 0; it must be above 0.{SEE}"),
    (
        "--trainer.num_sanity_val_steps=-5",
        f"trainer.num_sanity_val_steps is -5; it must be at least 0, or -1 for no limit.{SEE}",
    ),
    ("--trainer.min_epochs=-3", f"trainer.min_epochs is -3; it must be at least 0.{SEE}"),
    ("--optimizer=null", f"optimizer is null; leave it out to use its default.{SEE}"),
    ("--checkpoint.every_n_train_steps=-1", f"checkpoint.every_n_train_steps is -1; it must be at least 0.{SEE}"),
    ("--seed_everything=-1", f"seed_everything is -1; it must be at least 0.{SEE}"),
    ("--data.seed=4294967296", f"data.seed is 4294967296; it must be at most 4294967295.{SEE}"),
    (
        "--trainer.val_check_interval=99",
        f"`val_check_interval` (99) {THEIRS}",
    ),
    (
        f"--data.batch_size={2**63}",
        f"data.batch_size is {2**63}; it must be at most 60000, the number of training images.",
    ),
    (f"--network.hidden_dim={10**28}", f"network.hidden_dim is {10**28}; it must be at most 2147483647.{SEE}"),
    ("--trainer.max_time=00:00:00:00", f"trainer.max_time is 00:00:00:00; it must be above 0.{SEE}"),
    ("--trainer.max_time=-1:00:00:00", f"trainer.max_time is -1:00:00:00; it must be above 0.{SEE}"),
    ("--trainer.max_time={hours: -1}", f"trainer.max_time is {{'hours': -1}}; it must be above 0.{SEE}"),
    *(
        (
            f"--trainer.{name}={text}",
            f"trainer.{name} can't be {text}; a time is days:hours:minutes:seconds, such as 00:00:15:00.{SEE}",
        )
        for name, text in (
            ("max_time", "90"),
            ("max_time", "1:30"),
            ("max_time", "00:01:30"),
            ("max_time", "1:0:0:0"),
            ("max_time", "soon"),
            ("val_check_interval", "soon"),
        )
    ),
    ("--ckpt_path=", f"ckpt_path is empty; name a checkpoint, or leave it out.{SEE}"),
    # unsupported here
    *(
        (
            f"--trainer.strategy={name}",
            f"trainer.strategy is {name}, whose processes can't return the metrics of the run. Use ddp.{SEE}",
        )
        for name in ("ddp_spawn", "ddp_fork_find_unused_parameters_true", "ddp_notebook")
    ),
    *(
        (
            f"--trainer.callbacks={name}",
            f"{name} trains for some steps and starts again, so the run could not be resumed exactly. Leave it out, and give {option}.{SEE}",
        )
        for name, option in (("LearningRateFinder", "optimizer.lr"), ("BatchSizeFinder", "data.batch_size"))
    ),
    (
        "--optimizer=SparseAdam",
        f"the optimizer can't be used: RuntimeError: {THEIRS}",
    ),
    *(
        (
            f"--{option}={path}.X",
            f"{THEIRS}{path}{THEIRS} Correct the name of the class, or install the package that it is in.",
        )
        for option, path in (("optimizer", "torch.nope"), ("trainer.callbacks", "nomod"))
    ),
    pytest.param(
        "--trainer.logger=WandbLogger",
        f"lightning.pytorch.loggers.WandbLogger can't be made: {THEIRS}",
        marks=pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed"),
    ),
    (
        "--trainer.precision=16-true",
        "trainer.precision is 16-true. On a CPU the loss then becomes NaN at once, because Adam's smallest numbers are "
        "zero in fp16. Use bf16-true, or fp16 with a GradScaler: --config configs/fp16-cpu.yaml.",
    ),
    ("--trainer.devices=[a]", f"`devices` {THEIRS}"),
    (
        "--trainer.default_root_dir=s3://bucket",
        f"trainer.default_root_dir is s3://bucket; give a folder of this machine.{SEE}",
    ),
]


@pytest.mark.parametrize(("argument", "message"), SETTINGS)
def test_a_setting(refused: Refused, tmp_path: Path, argument: str, message: str) -> None:
    found = refused("fit", *SMOKE, argument)
    assert found == filled(f"mnist-amp: error: {message}\n", found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"data:\n  batch_size: [3\nmodel: 3\n", f"a.yaml:3:6: this is not YAML: {THEIRS}."),
        (b"data:\n  batch_size: 3\x01", "a.yaml:2: this is not YAML: it has the character '\\x01'."),
        (b"data: &a {x: *a}", "a.yaml has more than 10,000 values. A YAML alias may refer to itself."),
        (b"[" * 2000, "a.yaml is nested too deeply."),
        (b"data: !!timestamp 2026-13-45", f"a.yaml: this can't be read as YAML: {THEIRS}."),
        (b"data: {}\ntrainer: {}\ndata: {}", "a.yaml:3:1: this is not YAML: data is given twice."),
        (
            b"data: {batch_size: 0}",
            f"data.batch_size is 0; it must be at least 1. It is set by a.yaml.{SEE}",
        ),
        # MNIST_AMP_DATA__DATA_DIR sets it, and is not the wrong one
        (b"data: {data_dir: [3]}", f"data.data_dir can't be [3]; it takes str. It is set by a.yaml.{SEE}"),
        (b"some words", "a.yaml holds no settings; a config file has lines such as `data: {batch_size: 32}`."),
        (b"", "a.yaml holds no settings; a config file has lines such as `data: {batch_size: 32}`."),
        *(
            (
                text,
                f"a.yaml has the level `{level}:`. Leave it out: a config file has lines such as "
                "`data: {batch_size: 32}`, and the command gets it by --config. Two commands with other settings need "
                "two files.",
            )
            for level, text in (
                ("fit", b"fit: {trainer: {max_epochs: 1}}"),
                ("test", b"test: {trainer: {limit_test_batches: 1}}\nfit: {trainer: {max_epochs: 1}}"),
                ("compare", b"seed_everything: 1\ncompare:"),
            )
        ),
        (
            b"\xff\xfe\x00",
            f"a.yaml can't be read as a config file: {THEIRS}.",
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
            f"optimizer: SGD takes no momentumm (did you mean momentum?); it takes {SGD}. It is set by a.yaml.{SEE}",
        ),
        (
            b"{data: {val_size: 0}, trainer: {callbacks: {class_path: EarlyStopping, init_args: {monitor: val_loss}}}}",
            "EarlyStopping monitors val_loss, but the run does not validate: data.val_size or trainer.limit_val_batches is "
            f"0. Raise it, or monitor train_loss.{SEE}",
        ),
    ],
)
def test_a_config_file(refused: Refused, tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.yaml").write_bytes(text)
    found = refused("fit", *SMOKE, "--config", "a.yaml")
    assert found == filled(f"mnist-amp: error: {message}\n", found)
    assert files(tmp_path) == {"a.yaml"}


def test_a_config_file_that_is_missing(refused: Refused, tmp_path: Path) -> None:
    assert refused("fit", "--config=no.yaml") == (
        "mnist-amp: error: there is no config file no.yaml. Those of the package are bf16, cosine, csv, cuda, ddp-cpu, fast, fp16-cpu, fp16-cuda, "
        "fp32, guide, mlflow, overfit, profile, smoke, wandb (.yaml).\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATA__BATCHSIZE", "3", "there is no option data.batchsize (did you mean data.batch_size?)."),
        (
            "FIT__DATA__BATCH_SIZE",
            "3",
            "there is no option fit.data.batch_size; leave out `fit.`, as in --data.batch_size.",
        ),
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
    [
        ("file", "Not a directory"),
        # which takes no files, whoever asks
        pytest.param("/proc", "No such file or directory", marks=NEEDS_PROC),
    ],
)
def test_a_folder_that_can_not_be_written(refused: Refused, tmp_path: Path, where: str, reason: str) -> None:
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


def test_checkpoints_of_other_projects(fitted: Run, refused: Refused, tmp_path: Path) -> None:
    fitted(*SMOKE)
    left = files(tmp_path)
    good = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    checkpoint = torch.load(good, weights_only=True)

    def message(*args: str) -> str:
        return refused(*args, "--ckpt_path=it.ckpt").removeprefix("mnist-amp: error: it.ckpt ").removesuffix("\n")

    more = ("fit", "--trainer.max_epochs=2")
    torch.save({**checkpoint, "hyper_parameters": {"dropout": 0.1}}, "it.ckpt")
    assert message(*more) == (
        "is damaged, or a checkpoint of another project: its hyper_parameters.network is missing. The newest "
        f"checkpoint that can be read is {good}."
    )
    weights = checkpoint["state_dict"]
    torch.save({**checkpoint, "state_dict": {**weights, "model.fc3.bias": torch.zeros(10)}}, "it.ckpt")
    assert message(*more) == (
        "holds another network. These weights differ in name or shape: model.fc3.bias. This network has "
        "model.fc1.weight, model.fc1.bias, model.fc2.weight, model.fc2.bias. Name the network of the file with --network; if it is this one, its code has changed."
    )
    torch.save({"conv": torch.zeros(1)}, "it.ckpt")
    assert message("test") == (
        "holds another network. These weights differ in name or shape: model.conv, model.fc1.bias, model.fc1.weight, model.fc2.bias, model.fc2.weight. "
        "This network has model.fc1.weight, model.fc1.bias, model.fc2.weight, model.fc2.bias. Name the network of the file with --network; if it is this one, its code has changed."
    )
    Path("it.ckpt").write_bytes(good.read_bytes()[:10_000])
    assert message(*more) == (
        f"(10,000 bytes) is not a checkpoint, or it is truncated or damaged. The newest checkpoint that can be read is {good}."
    )
    assert files(tmp_path) - left == {"it.ckpt"}


def test_a_config_from_a_pipe(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("data: {batchsize: 3}",), daemon=True).start()
    assert refused("fit", *SMOKE, "--config=pipe") == (
        f"mnist-amp: error: there is no option data.batchsize (did you mean data.batch_size?).{SEE}\n"
    )


@pytest.mark.parametrize("root", [".", "lightning_logs"])
def test_a_log_folder_that_is_a_dangling_link(refused: Refused, tmp_path: Path, root: str) -> None:
    (tmp_path / "lightning_logs").symlink_to("nowhere")
    assert refused("fit", *SMOKE, f"--trainer.default_root_dir={root}") == (
        f"mnist-amp: error: no run can be written to {Path(root) / 'lightning_logs'}: Not a directory. Name a writable "
        "folder with --trainer.default_root_dir.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_logs"]


def test_several_nodes_need_to_find_each_other(refused: Refused, tmp_path: Path) -> None:
    assert refused("fit", *SMOKE, "--trainer.num_nodes=2") == (
        "mnist-amp: error: trainer.num_nodes is 2, but NODE_RANK, MASTER_ADDR, MASTER_PORT are not set. Use torchrun or "
        "srun; or start this command on each node, with NODE_RANK (0 to 1), and with the address of the first node and "
        "a free port on it as MASTER_ADDR and MASTER_PORT.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_last_is_replaced_by_the_newest_readable(fitted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(*SMOKE)
    last = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    last.unlink()
    last.symlink_to("nowhere.ckpt")
    Path("lightning_logs/version_1").mkdir()
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert capsys.readouterr().err == (
        "mnist-amp: warning: lightning_logs/version_1 has no last checkpoint yet, so the one of lightning_logs/version_0 "
        f"is used.\nmnist-amp: warning: {last} can't be read: No such file or directory. Resuming from the newest checkpoint that can be read, "
        f"{last.with_name('best.ckpt')}.\n"
    )


def test_a_damaged_last_is_replaced_by_the_newest_readable(
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
            f"Resuming from the newest checkpoint that can be read, {best}.\n"
        )
        assert f"checkpoint  {best} (" in printed.out
        shutil.rmtree("lightning_logs/version_1")


def test_a_last_that_is_a_dangling_link_is_replaced_by_the_newest_readable(
    fitted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        fitted(*SMOKE)
    last = Path("lightning_logs/version_1/checkpoints/last.ckpt")
    last.unlink()
    last.symlink_to("gone.ckpt")
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert capsys.readouterr().err == (
        f"mnist-amp: warning: {last} can't be read: No such file or directory. Resuming from the newest checkpoint that can be read, "
        f"{last.with_name('best.ckpt')}.\n"
    )


def test_a_checkpoint_of_another_run_is_not_used_unasked(fitted: Run, refused: Refused) -> None:
    for _ in range(2):
        fitted(*SMOKE)
    folder = Path("lightning_logs/version_1/checkpoints")
    (folder / "best.ckpt").unlink()
    (folder / "last.ckpt").write_bytes(b"torn")
    assert refused("fit", f"--ckpt_path={folder.parent}", "--trainer.max_epochs=2") == (
        f"mnist-amp: error: {folder / 'last.ckpt'} (4 bytes) is not a checkpoint, or it is truncated or damaged. "
        "The newest checkpoint that can be read is lightning_logs/version_0/checkpoints/last.ckpt.\n"
    )


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            ("--lr_scheduler=StepLR", "--lr_scheduler.step_size=0"),
            f"the optimizer or its schedule can't be used: {THEIRS}.",
        ),
        (
            ("--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=val_acc"),
            "ReduceLROnPlateau monitors val_acc; the metrics are train_loss, train_accuracy, "
            f"train_loss_step, val_loss, val_accuracy.{SEE}",
        ),
    ],
)
def test_a_schedule(refused: Refused, schedule: tuple[str, ...], message: str) -> None:
    found = refused("fit", *SMOKE, *schedule)
    assert found == filled(f"mnist-amp: error: {message}\n", found)
    assert not Path("lightning_logs").exists()


def test_an_unexpected_error_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lightning_cli, "run", lambda args: 1 / 0)
    with pytest.raises(SystemExit) as exit_info:
        run("fit")
    assert exit_info.value.code == 1
    found = capsys.readouterr().err
    assert found == filled(
        f"mnist-amp: error: ZeroDivisionError: {THEIRS}\nSet MNIST_AMP_DEBUG=1 to see where it came from.\n", found
    )
