"""The words of --help, where Lightning has its docstrings on Trainers in general."""

from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

DESCRIPTION = (
    "Train SimpleNN on MNIST in mixed precision with PyTorch Lightning. "
    "Settings come from --config files, then from the environment (MNIST_AMP_TRAINER__MAX_EPOCHS=2 is "
    "--trainer.max_epochs 2), then from the command line; the later is the stronger."
)

SUMMARIES = {
    "fit": "Train on MNIST, or go on with a run.",
    "validate": "Score a run on the training images that it held out.",
    "test": "Score a run on the 10,000 test images.",
    "predict": "Write a run's predictions for the 10,000 test images, or for pictures of your own (--images).",
    "compare": "Measure what each precision does to time, memory and accuracy, and say which to use here.",
    "profile": "Measure where the time of a training step goes, and which precision each operation runs in.",
    "export": "Write a run's network to files that other programs take, each checked against the checkpoint.",
    "demo": "Serve a page on this machine: draw a digit, and see what a run reads in it, in each precision.",
}
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
        "  --help    Show this; mnist-amp COMMAND --help shows a command's options.",
        "  --version Show the version.",
    ]
)
TITLES = {
    "model": "Model",
    "data": "Data",
    "optimizer": "Optimizer",
    "lr_scheduler": "Learning-rate schedule",
    "trainer": "Trainer, with Lightning's own descriptions",
    "ckpt_path": "Checkpoint",
    "return_predictions": "Checkpoint",
}
START = "`best` or `last` of the newest run, a checkpoint file, or a run's folder (its {default} one)"
HELP = {
    "ckpt_path": f"Checkpoint to use: {START.format(default='best')}; by default `best`.",
    "verbose": "Print Lightning's own table of the figures, too.",
    "return_predictions": "Has no effect: the predictions are written to predictions.csv.",
    "weights_only": "Has no effect: a checkpoint is never allowed to run code.",
    "optimizer": "Optimizer of torch.optim, by name: --optimizer SGD --optimizer.lr 0.1",
    "lr_scheduler": "Learning-rate schedule, by name: --lr_scheduler StepLR --lr_scheduler.step_size 2",
    "config": "YAML file of settings, yours or a shipped one such as configs/guide.yaml; may be given several times.",
}


def option_names(parser: "LightningArgumentParser") -> list[str]:
    """Return the options of a parser, such as `--data.batch_size`. argparse has no public list of them."""
    return list(parser._option_string_actions)


def show_first(parser: "LightningArgumentParser") -> None:
    """Show the newest group of options first in --help. argparse has no public way to order the groups."""
    groups: Any = parser._action_groups
    groups.insert(0, groups.pop())


def describe(subparsers: dict[str, "LightningArgumentParser"]) -> None:
    """Give the parsers of the subcommands this project's words."""
    for name, subparser in subparsers.items():
        subparser.prog = f"mnist-amp {name}"
        subparser.usage = f"mnist-amp {name} [options]"
        subparser.description = SUMMARIES[name]
        for group in subparser._action_groups:
            first = group._group_actions[0].dest.partition(".")[0] if group._group_actions else ""
            if group.title != "Linked arguments":
                group.title = TITLES.get(first, group.title)
        for action in subparser._actions:
            action.help = HELP.get(action.dest, action.help)
            if action.dest == "ckpt_path" and name == "fit":
                action.help = f"Checkpoint to go on from: {START.format(default='last')}; by default, start anew."
