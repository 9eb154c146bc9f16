"""What is said before anything runs."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from mnist_amp.reporting.text import facts
from mnist_amp.runs.run_folder import RunFolder
from mnist_amp.training.precision import (
    change_of_precision,
    described_precision,
    device_name,
    effective_precision,
    versions,
)
from mnist_amp.training.resumable_module import ResumableModule


class Banner(Callback):
    """Says what really runs: device, effective precision, versions, model, where it writes, and what it is told to say.

    Args:
        requested_precision: what the Trainer was asked for; None where a plugin says it.
        lines: what else to say, by name.
        checkpoint: that a fit goes on from, for what becomes of its loss scale.
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
            "versions": ", ".join(f"{package} {version}" for package, version in versions().items()),
            "model": f"{type(pl_module).__name__}, {sum(p.numel() for p in pl_module.parameters()):,} parameters",
            **self.lines,
        }
        if stage == "fit" and isinstance(pl_module, ResumableModule) and pl_module.execution.steps > 1:
            lines["execution"] = pl_module.execution.describe(trainer)
        changed = [lines.get("changed"), change_of_precision(trainer, self.checkpoint)]
        if any(changed):
            lines["changed"] = ", ".join(filter(None, changed))
        for run in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(run, RunFolder):
                lines["writes to"] = str(run.path)
        print(facts(lines), flush=True)

    def _precision(self, trainer: Trainer) -> str:
        effective = effective_precision(trainer)
        if self.requested_precision in (None, effective):
            return described_precision(trainer)
        return f"{effective} (asked for: {self.requested_precision}, which is fp16 on a GPU and bfloat16 on a CPU)"
