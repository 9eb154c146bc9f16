"""The states of torch's random generators, kept in checkpoints."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_amp.errors import warn

KEY = "random_states"


class RandomStates(Callback):
    """Keeps the states of the random generators of each process in checkpoints, so that dropout resumes to the bit.

    These are torch's generators of the CPU and of the device.

    The order of the images does not need them: it is a function of (seed, epoch).

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[RandomStates()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self.loaded: dict[str, torch.Tensor] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        device = trainer.strategy.root_device
        states = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        checkpoint[KEY] = {
            # a row per process; gathered on the device because NCCL gathers nothing else
            name: torch.as_tensor(pl_module.all_gather(state.to(device))).reshape(trainer.world_size, -1).cpu()
            for name, state in states.items()
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.loaded = checkpoint.get(KEY, {})
        for state in self.loaded.get("cpu", []):
            torch.Generator().set_state(state.clone())  # fails on an invalid state before anything runs
        before = len(self.loaded["cpu"]) if self.loaded else trainer.world_size
        if before != trainer.world_size:
            warn(
                f"the checkpoint is from {before} processes, and now there are {trainer.world_size}. "
                "The rest of the epoch trains on the images that are left, but in other batches, so the run does not "
                "resume exactly."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not earlier: the sanity check and others may draw random numbers before the first step
        for name, states in self.loaded.items():
            if len(states) == trainer.world_size:
                state = states[trainer.global_rank].clone()  # torch.set_rng_state crashes on a view (torch 2.15)
                if name == "cpu":
                    torch.set_rng_state(state)
                elif trainer.strategy.root_device.type == "cuda":
                    torch.cuda.set_rng_state(state, trainer.strategy.root_device)
