"""Instead of `mnist-amp fit` in tests of the sweep, in an instant.

The accuracy of an epoch is `optimizer.lr` times the number of epochs, plus an eighth for each seed after 42. Above a
rate of 1 it fails; below 0 it is refused. The option WAIT of the environment is a time in seconds after each epoch.
"""

import os
import sys
import time
from pathlib import Path
from typing import NoReturn


def refuse(message: str) -> NoReturn:
    sys.stderr.write(f"mnist-amp: error: {message}\n")
    sys.exit(2)


def main() -> None:
    options = dict(option[2:].split("=", 1) for option in sys.argv[1:] if "=" in option)
    logs = Path(options["trainer.default_root_dir"], "lightning_logs")
    if options.get("ckpt_path") == "last":
        refuse("nothing is left to train.")
    rate, epochs = float(options["optimizer.lr"]), int(options["trainer.max_epochs"])
    seed = int(options.get("seed_everything", 42))
    if rate < 0:
        refuse("the rate is negative.")
    if rate > 1 and epochs > 1:
        sys.exit("mnist-amp: error: the loss is not finite.")
    run = logs / f"version_{len(list(logs.glob('*')))}"
    (run / "checkpoints").mkdir(parents=True)
    own = f"trainer:\n  default_root_dir: {logs}\nckpt_path: null\n"
    (run / "config.yaml").write_text(f"# made by a test\nseed_everything: {seed}\n{own}lr: {rate}\n")
    with (run / "metrics.csv").open("w", buffering=1) as metrics:
        metrics.write("epoch,step,train_loss,val_accuracy\n")
        for epoch in range(epochs):
            metrics.write(f"{epoch},{epoch},,{rate * (epoch + 1) + (seed - 42) / 8}\n{epoch},{epoch},{1 - epoch},\n")
            (run / "checkpoints" / "last.ckpt").touch()
            time.sleep(float(os.environ.get("WAIT", 0)))
    (run / "model.pth").touch()


if __name__ == "__main__":
    main()
