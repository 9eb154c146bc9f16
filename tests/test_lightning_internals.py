"""All private names of Lightning's and torch's that this project uses still exist, and stand in one module each."""

import ast
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from lightning.fabric.strategies.launchers import subprocess_script as fabric_launcher
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies.launchers import subprocess_script

import mnist_amp
from mnist_amp import lightning_internals, torch_internals

SOURCE = Path(mnist_amp.__file__).parent
OPTIM_PROGRESS = "trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress"

# which function or class of lightning_internals uses which names, all private or of the training loop's counters
LIGHTNING = {
    "OpenCLI": ("cli._subcommand_parsers", "cli._run_subcommand", "cli._parse_ckpt_path"),
    "is_restoring": ("trainer._checkpoint_connector._loaded_checkpoint",),
    "ignore_slurm_checkpoints": ("trainer._checkpoint_connector._user_managed",),
    "set_sigterm_handler": ("trainer._signal_connector._sigterm_notifier_fn",),
    "pending_row": (
        "trainer._logger_connector._first_loop_iter",
        "trainer._logger_connector.should_update_logs",
        "trainer._logger_connector.metrics",
        "trainer.fit_loop.epoch_loop._batches_that_stepped",
    ),
    "log_no_hyperparameters": ("module._log_hyperparams", "data._log_hyperparams"),
    "metric_prefix": ("mlflow_logger._prefix",),
    "batches_since_validation": (
        "trainer.fit_loop.epoch_loop.batch_progress.total.ready",
        "trainer.fit_loop.epoch_loop.batch_progress.current.ready",
    ),
    "end_restart": ("trainer.fit_loop._restarting",),
    "end_fit": ("trainer.fit_loop.epoch_loop.max_steps",),
    "unfinished_epoch": (
        "trainer.fit_loop.epoch_progress.current.processed",
        "trainer.fit_loop.epoch_progress.total.processed",
    ),
    "averaged_module": ("average._average_model",),
    "average_start": ("average._swa_epoch_start",),
    "resume_average": ("average._scheduler_state", "average._initialized"),
    "align_logged_step": ("trainer.fit_loop.epoch_loop._batches_that_stepped",),
    "next_batch": ("trainer.fit_loop._data_fetcher", "trainer.fit_loop.epoch_loop.batch_progress.is_last_batch"),
    "transfer_batch": ("module._on_before_batch_transfer", "trainer.strategy.batch_to_device"),
    "begin_next_step": (
        "trainer.fit_loop.epoch_loop._batches_that_stepped",
        "trainer.fit_loop.epoch_loop.update_lr_schedulers",
        *(f"trainer.fit_loop.epoch_loop.batch_progress.increment_{count}" for count in ("ready", "started")),
        *(f"trainer.fit_loop.epoch_loop.batch_progress.increment_{count}" for count in ("processed", "completed")),
        *(f"{OPTIM_PROGRESS}.optimizer.step.increment_{count}" for count in ("ready", "completed")),
    ),
    "count_zero_grad": tuple(
        f"{OPTIM_PROGRESS}.optimizer.zero_grad.increment_{count}" for count in ("ready", "started", "completed")
    ),
    "uncounted_steps": (f"{OPTIM_PROGRESS}.state_dict", f"{OPTIM_PROGRESS}.load_state_dict"),
    "step_inputs": ("closure._step_fn.args",),
    "set_step_result": ("closure._result",),
    "checkpoint_interval": ("model_checkpoint._every_n_train_steps",),
    "QuickHooksModule": ("module._current_fx_name",),
    "ChildProcessObserver": ("fabric_launcher._ChildProcessObserver._terminate_all",),
    "process_observer": ("launcher._launch_process_observer",),
    "replace_process_observer": ("launcher._launch_process_observer",),
}
TORCH = {
    "inner_schedules": ("sequential_schedule._schedulers",),
    "milestones_of": ("sequential_schedule._milestones",),
    "found_infs": ("scaler._per_optimizer_states",),
    "cpu_multiplies": (
        "torch.cpu._is_avx512_bf16_supported",
        "torch.cpu._is_amx_tile_supported",
        "torch.ops.mkldnn._is_mkldnn_bf16_supported",
        "torch.ops.mkldnn._is_mkldnn_fp16_supported",
    ),
    "has_vnni": ("torch.cpu._is_vnni_supported",),
    "METADATA_ASSERT": ("torch.ops.aten._assert_tensor_metadata.default",),
    "metadata_of": ("state_dict._metadata",),
    "unscales_by_itself": ("fused._step_supports_amp_scaling",),
    "compiler_problem": (
        "torch._inductor.cpp_builder.get_cpp_compiler",
        "torch._inductor.exc.InvalidCxxCompiler",
    ),
    "is_of_compiler": ("torch._dynamo.exc.TorchDynamoException",),
    "compile_gradients": ("torch._dynamo.config",),
    "mark_as_stepped": ("stepped._opt_called",),
}


class KeepsClosure(BoringModel):
    closure: ClassVar[Closure]

    def optimizer_step(self, epoch: Any, batch_idx: Any, optimizer: Any, optimizer_closure: Any = None) -> None:
        type(self).closure = optimizer_closure
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


class RunsNothing(lightning_internals.OpenCLI):
    """A command line that only notes what it would run."""

    def instantiate_classes(self) -> None:
        self.ran: list[str] = []

    def run_subcommand(self, subcommand: str) -> None:
        self.ran.append(subcommand)


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the objects that have the names, after a fit of one batch."""
    folder, module = tmp_path_factory.mktemp("fit"), KeepsClosure()
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=CSVLogger(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=SimpleProfiler(),
    )
    trainer.fit(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer)
    for name in ("_inductor.cpp_builder", "_inductor.exc", "_dynamo.exc", "_dynamo.config"):  # torch imports them late
        importlib.import_module(f"torch.{name}")
    return {
        "trainer": trainer,
        "module": module,
        "data": LightningDataModule(),
        # its constructor needs the package mlflow
        "mlflow_logger": SimpleNamespace(
            **dict.fromkeys(re.findall(r"self\.(\w+) =", inspect.getsource(MLFlowLogger.__init__)))
        ),
        "closure": module.closure,
        "cli": RunsNothing(BoringModel, args=["fit"], save_config_callback=None, seed_everything_default=False),
        "average": StochasticWeightAveraging(0.1),
        "model_checkpoint": ModelCheckpoint(every_n_train_steps=3),
        "fabric_launcher": fabric_launcher,
        "launcher": subprocess_script,
        "torch": torch,
        "scaler": torch.amp.GradScaler("cpu"),
        "sequential_schedule": torch.optim.lr_scheduler.SequentialLR(optimizer, [constant, constant], [1]),
        "state_dict": module.state_dict(),
        "stepped": trainer.optimizers[0],
        "fused": torch.optim.SGD(module.parameters(), lr=0.1, fused=True),
    }


def assert_exists(owner: Any, path: str, package: str, user: str) -> None:
    name, *parts = path.split(".")
    for place, part in enumerate(parts):
        name += f".{part}"
        # a property may not be read now; operations of torch are not listed before they are read
        if part not in dir(owner) and not hasattr(owner, part):
            pytest.fail(f"{package} {version(package)} has no {name}, which {user} uses.")
        owner = getattr(owner, part) if place + 1 < len(parts) else owner


@pytest.mark.parametrize(("user", "path"), [(user, path) for user, paths in LIGHTNING.items() for path in paths])
def test_lightning_has_the_name(owners: dict[str, Any], user: str, path: str) -> None:
    assert_exists(owners[path.partition(".")[0]], path, "lightning", f"lightning_internals.{user}")


@pytest.mark.parametrize(("user", "path"), [(user, path) for user, paths in TORCH.items() for path in paths])
def test_torch_has_the_name(owners: dict[str, Any], user: str, path: str) -> None:
    assert_exists(owners[path.partition(".")[0]], path, "torch", f"torch_internals.{user}")


def private_names(file: Path) -> set[str]:
    """Return the names in a file that begin with one underscore, except those that it defines itself."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names |= {alias.name for node in imports for alias in node.names}
    names |= {part for node in imports for part in (node.module or "").split(".")}
    calls = [node for node in nodes if isinstance(node, ast.Call) and len(node.args) > 1]
    strings = [call.args[1] for call in calls if ast.unparse(call.func) in ("getattr", "hasattr", "setattr")]
    names |= {str(node.value) for node in strings if isinstance(node, ast.Constant)}
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    return {name for name in names - defined if name.startswith("_") and not name.startswith("__")}


PUBLIC = {"_asdict", "_replace", "_fields", "_exit"}  # of NamedTuple and os
ARGPARSE = {"_actions", "_action_groups", "_group_actions", "_option_string_actions"}


def test_no_other_module_uses_private_names() -> None:
    files = {path.relative_to(SOURCE).as_posix(): private_names(path) - PUBLIC for path in SOURCE.rglob("*.py")}
    found = {name: names for name, names in files.items() if names}
    assert found.keys() == {"lightning_internals.py", "torch_internals.py", "cli/help_texts.py"}
    assert found["cli/help_texts.py"] == ARGPARSE


@pytest.mark.parametrize(("module", "table"), [(lightning_internals, LIGHTNING), (torch_internals, TORCH)])
def test_each_private_name_is_in_the_table(module: Any, table: dict[str, tuple[str, ...]]) -> None:
    named = {part for paths in table.values() for path in paths for part in path.split(".")}
    imported = {"_python_dispatch", "_pytree"}  # without them the module itself can't be imported
    assert private_names(Path(module.__file__)) - named <= imported
    assert all(hasattr(module, user) for user in table)


def test_open_cli_runs_run_subcommand(owners: dict[str, Any]) -> None:
    cli = owners["cli"]
    assert cli.ran == ["fit"]
    assert "fit" in cli.subcommand_parsers


def test_the_profiler_sees_the_next_batch(owners: dict[str, Any]) -> None:
    assert lightning_internals.NEXT_BATCH_ACTION in owners["trainer"].profiler.recorded_durations


def test_the_saved_state_of_a_fit_loop_has_what_begin_next_epoch_changes(owners: dict[str, Any]) -> None:
    state = owners["trainer"].fit_loop.state_dict()
    lightning_internals.begin_next_epoch(state)
    assert state["epoch_progress"]["current"]["completed"] == 1
    assert state["epoch_loop.batch_progress"]["current"] == {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    assert state["epoch_loop.state_dict"]["_batches_that_stepped"] == 0


def test_step_inputs_are_the_arguments_of_training_step(owners: dict[str, Any]) -> None:
    assert list(lightning_internals.step_inputs(owners["closure"])) == ["batch", "batch_idx"]


def test_the_step_result_is_what_the_loop_gets(owners: dict[str, Any]) -> None:
    lightning_internals.set_step_result(owners["closure"], torch.tensor(2.0))
    assert owners["closure"].consume_result().loss == 2.0


def test_a_module_without_quick_hooks_sets_the_same_attribute() -> None:
    class Quick(lightning_internals.QuickHooksModule):
        pass

    for module in (LightningModule(), Quick()):
        module._current_fx_name = "training_step"
        assert vars(module)["_current_fx_name"] == "training_step"
