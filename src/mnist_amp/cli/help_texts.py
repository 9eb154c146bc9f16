"""The texts of --help, instead of Lightning's docstrings about Trainers in general."""

from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

DESCRIPTION = (
    "Train a network on images in mixed precision with PyTorch Lightning: SimpleNN on MNIST, or your own (--network, "
    "--data.dataset, --data.folder). Every setting has a default. Override it in a "
    "config file (--config FILE), in the environment (MNIST_AMP_TRAINER__MAX_EPOCHS=2), or on the command line "
    "(--trainer.max_epochs 2). The command line overrides the environment, and the environment overrides config files."
)

SUMMARIES = {
    "fit": "Train a network, or resume a run.",
    "validate": "Evaluate a run on its validation images.",
    "test": "Evaluate a run on the test images.",
    "predict": "Write a run's predictions for the test images, or for your own images (--images).",
    "compare": "Measure time, memory and accuracy in each precision, and recommend one for this machine.",
    "profile": "Measure how long each part of a training step takes, and the precision of each operation.",
    "export": "Write a run's network to files for other programs, each checked against the checkpoint.",
    "demo": "Serve a local page: draw a digit, and see what a run's network reads in each precision.",
}
OWN_MODULE = " For a LightningModule of your own: --model my_package.MyModule --data my_package.MyDataModule."
OVERVIEW = "\n".join(
    [
        "usage: mnist-amp COMMAND [options]",
        "",
        fill(DESCRIPTION, 100),
        "",
        "commands:",
        *(f"  {name:<10}{summary}" for name, summary in SUMMARIES.items()),
        "",
        "options:",
        "  --help    Show this help. mnist-amp COMMAND --help shows the options of a command.",
        "  --version Show the version.",
        "",
        "Begin with `mnist-amp fit`, and then `mnist-amp test`.",
    ]
)
TITLES = {
    "network": "Network",
    "model": "Model",
    "data": "Data",
    "optimizer": "Optimizer",
    "lr_scheduler": "Learning-rate schedule",
    "trainer": "Trainer, with Lightning's own descriptions",
    "checkpoint": "Checkpoints",
    "scaler": "Gradient scaler of fp16",
    "ckpt_path": "Checkpoint",
    "return_predictions": "Checkpoint",
}
CHECKPOINT = "`best` or `last` of the newest run, a checkpoint file, or a run's folder (its `{default}`)"
HELP = {
    "ckpt_path": f"Checkpoint to use: {CHECKPOINT.format(default='best')}. Default: `best`.",
    "verbose": "Also print Lightning's own table of the metrics.",
    "return_predictions": "Has no effect: the predictions are written to predictions.csv.",
    "weights_only": "Has no effect: a checkpoint can never run code.",
    "network": "Network, by name: SimpleNN, CNN, ViT or WideMLP, with its parameters as in --network.hidden_dim 256; a "
    "function such as torchvision.models.resnet18; or a class of your own, as in my_package.MyNet.",
    "model": "Your LightningModule, by name, with its parameters as in --model.width 64.",
    "data": "Your LightningDataModule, by name, with its parameters as in --data.batch_size 32.",
    "optimizer": "Optimizer of torch.optim, by name: --optimizer SGD --optimizer.lr 0.1",
    "lr_scheduler": "Learning-rate schedule, by name: --lr_scheduler StepLR --lr_scheduler.step_size 2",
    "config": "YAML file of settings: your own, or one of the package such as guide.yaml. May be given several times; "
    "later files override earlier ones.",
    "print_config": "Print all settings, with those of the other arguments, as YAML and exit. skip_default leaves out "
    "the defaults, skip_unset the settings that are null.",
}


def option_names(parser: "LightningArgumentParser") -> list[str]:
    """Return the options of a parser, such as `--data.batch_size`, without those that a link sets.

    argparse has no public list of them.
    """
    return [name for name, action in parser._option_string_actions.items() if type(action).__name__ != "ActionLink"]


def show_first(parser: "LightningArgumentParser") -> None:
    """Show the newest group of options first in --help. argparse has no public way to order the groups."""
    groups: Any = parser._action_groups
    groups.insert(0, groups.pop())


def describe(subparsers: dict[str, "LightningArgumentParser"]) -> None:
    """Set the texts of the parsers, by command."""
    for name, subparser in subparsers.items():
        subparser.prog = f"mnist-amp {name}"
        subparser.usage = f"mnist-amp {name} [options]"
        subparser.description = f"{SUMMARIES[name]}{OWN_MODULE if name in ('compare', 'profile') else ''}"
        for group in subparser._action_groups:
            first = group._group_actions[0].dest.partition(".")[0] if group._group_actions else ""
            if group.title != "Linked arguments":
                group.title = TITLES.get(first, group.title)
        for action in subparser._actions:
            action.help = HELP.get(action.dest, action.help)
            if action.dest in ("network", "model", "data"):
                # instead of every class that is imported, in 600 lines
                action.extra_help = lambda: ""  # type: ignore[attr-defined]
            if isinstance(action.metavar, str):  # the parser reads no file for these
                action.metavar = action.metavar.removeprefix("CONFIG | ")
            if action.dest == "ckpt_path" and name == "fit":
                action.help = f"Checkpoint to resume from: {CHECKPOINT.format(default='last')}. Default: none."
