"""Test accuracy of networks on MNIST, and on a folder of other images, over seeds.

    python benchmarks/networks.py --folder FOLDER

FOLDER is taken by `--data.folder`; the results in docs/ are for the four archives of Fashion-MNIST. Trains and tests
with `mnist-amp` in a temporary folder, as a user does. Prints the table, and saves it with the environment to
docs/results/networks.json and networks.md. About 40 minutes on 2 CPU cores with instructions for bfloat16.
"""

import argparse
import datetime
import json
from pathlib import Path

import accuracy
from machine import RESULTS

NETWORKS = ("SimpleNN", "CNN")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="images besides MNIST")
    parser.add_argument("--name", default="Fashion-MNIST", help="of the images in the folder")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to save the results in")
    args = parser.parse_args()
    data = {"MNIST": ""} | ({} if args.folder is None else {args.name: f" --data.folder {args.folder.absolute()}"})
    runs = []
    for name, option in data.items():
        for network in args.networks:
            for seed in args.seeds:
                run = accuracy.fit_and_test(f"fit --network {network}{option}", seed)
                runs.append(run | {"recipe": f"{network} on {name}"})
                print(f"seed {seed}, {network} on {name}: {run['accuracy']:.2%}", flush=True)
    record = {"date": datetime.date.today().isoformat(), "runs": runs}
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "networks.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (args.results / "networks.md").write_text(accuracy.table(record), encoding="utf-8")
    print(accuracy.table(record))


if __name__ == "__main__":
    main()
