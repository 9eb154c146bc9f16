"""Signals to a command that has nothing to save."""

import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class DefaultSignals(Callback):
    """Has SIGTERM and Ctrl-C end a command at once; with Lightning's handlers it ends with exit status 0 or 1."""

    def __init__(self) -> None:
        self.before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not earlier: Lightning sets its own after `setup`
        for signum in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self.before.setdefault(signum, signal.signal(signum, signal.SIG_DFL))

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
