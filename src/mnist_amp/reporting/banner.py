"""The banner: the lines that are printed before a command runs."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from mnist_amp.data import ClassificationDataModule
from mnist_amp.reporting.tables import facts
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.training.precision import (
    advice,
    change_of_precision,
    described_precision,
    device_name,
    effective_precision,
    versions,
)
from mnist_amp.training.resumable_module import ResumableModule
from mnist_amp.wording import counted, described_class


class Banner(Callback):
    """Prints how the command will run: device, effective precision, versions, network, data, folder and given lines.

    Args:
        requested_precision: the Trainer's `precision`; None if a plugin decides it.
        lines: more lines, by name, such as `{"seed": "42"}`.
        checkpoint: the checkpoint that a fit resumes; it tells whether precision and loss scale change.
    """

    def __init__(
        self, requested_precision: str | None, lines: dict[str, str], checkpoint: dict[str, Any] | None = None
    ) -> None:
        self.requested_precision, self.lines, self.checkpoint = requested_precision, lines, checkpoint or {}

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        lines = {
            "device": device_name(trainer),
            "precision": self._precision(trainer),
            **({"advice": text} if (text := advice(trainer)) else {}),
            "versions": ", ".join(f"{package} {version}" for package, version in versions().items()),
            "network": f"{_network(pl_module)}, {sum(p.numel() for p in pl_module.parameters()):,} parameters",
            **_data(trainer),
            **({"processes": str(trainer.world_size)} if trainer.world_size > 1 else {}),
            **self.lines,
        }
        if stage == "fit" and isinstance(pl_module, ResumableModule) and pl_module.execution.steps != 1:
            lines["execution"] = pl_module.execution.describe(trainer)
        if stage == "fit" and isinstance(pl_module, ResumableModule) and pl_module.compilation is not None:
            lines["compiles"] = pl_module.compilation.describe(trainer)
        changed = [lines.get("changed"), change_of_precision(trainer, self.checkpoint)]
        if any(changed):
            lines["changed"] = ", ".join(filter(None, changed))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunFolder):
                lines["writes to"] = str(callback.path)
        print(facts(lines), flush=True)

    def _precision(self, trainer: Trainer) -> str:
        requested, effective = self.requested_precision, effective_precision(trainer)
        if requested in (None, effective):
            return described_precision(trainer)
        is_replaced = str(requested).startswith("16") and effective == "bf16-mixed"  # by Lightning, on a CPU
        reason = ", which is fp16 on a GPU and bfloat16 on a CPU" if is_replaced else ""
        return f"{described_precision(trainer)} (requested: {requested}{reason})"


def _data(trainer: Trainer) -> dict[str, str]:
    """Return the line of the data; none for a data module of another kind."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ClassificationDataModule):
        return {}
    name = data.hparams["folder"] or data.hparams["dataset"]
    extra = f" and {counted(len(data.extra), 'image')} of {data.hparams['extra_folder']}" if data.extra else ""
    shape = " x ".join(map(str, data.image_shape))
    return {"data": f"{name}{extra}, images of {shape} in {counted(data.num_classes, 'class')}"}


def _network(module: LightningModule) -> str:
    """Return the network with its settings; for a module of another kind, its class."""
    init = module.hparams.get("network")
    return type(module).__name__ if init is None else described_class(init)
