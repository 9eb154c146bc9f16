"""What is said before anything runs."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from mnist_amp.callbacks.run_folder import RunFolder
from mnist_amp.precision import device_name, effective_precision, versions
from mnist_amp.report import facts


class Banner(Callback):
    """Says what really runs: device, effective precision, versions, model, seed, where it starts from and writes to.

    Args:
        requested_precision: what the Trainer was asked for; None where a plugin says it.
        seed: of seed_everything; None where it was not called.
        checkpoint: the file that the run starts from and how far it is, if any.
        run: the run's folder, if it has one.
    """

    def __init__(
        self,
        requested_precision: str | None,
        seed: int | None,
        checkpoint: str | None = None,
        run: RunFolder | None = None,
    ) -> None:
        self.requested_precision, self.seed, self.checkpoint, self.run = requested_precision, seed, checkpoint, run

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        lines = {
            "device": device_name(trainer),
            "precision": self._precision(trainer),
            "versions": ", ".join(f"{package} {version}" for package, version in versions().items()),
            "model": f"{type(pl_module).__name__}, {sum(p.numel() for p in pl_module.parameters()):,} parameters",
            "seed": "none, the run can't be repeated" if self.seed is None else str(self.seed),
        }
        if self.checkpoint:
            lines["checkpoint"] = self.checkpoint
        if self.run:
            lines["writes to"] = str(self.run.path)
        print(facts(lines), flush=True)

    def _precision(self, trainer: Trainer) -> str:
        effective = effective_precision(trainer)
        if self.requested_precision in (None, effective):
            return effective
        return f"{effective} (asked for: {self.requested_precision}, which is fp16 on a GPU and bfloat16 on a CPU)"
