from mnist_amp import cli
from mnist_amp.measure import CommandCLI
def compare(cli: "CompareCLI", precisions: list[str] | None = None) -> None:
    """Do it.

    Args:
        precisions: which
    """
    print(precisions, cli.fit_settings())
class CompareCLI(CommandCLI):
    name = "compare"
    function = compare
def run(args):
    cli.prepare()
    CompareCLI(args)
