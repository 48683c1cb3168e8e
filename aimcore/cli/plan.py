"""``aimcore plan STUDY --nodes N --gpus 8 --gpu NAME``: memory, communication and time of a study on many GPUs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimcore.contracts.scales import SCALES

EXIT_NOTHING_FITS = 1


def add_plan_arguments(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "plan", help="plan a study on many GPUs: memory by ZeRO stage, micro-batch, communication, days",
        description="Print what each experiment of a study needs on GPUs that need not be here: parameters, FLOPs per "
        "step, memory of each process by ZeRO stage, the largest micro-batch that fits, what is sent per step, and the "
        "days at a given utilisation. Nothing is run.",
        epilog="exit status: 0 every experiment fits; 1 an experiment does not fit at any stage; 2 nothing was planned",
    )  # fmt: skip
    parser.add_argument("study", type=Path, metavar="STUDY_OR_RECIPE", help="a study (.py) or a recipe (.json, .yaml)")
    parser.add_argument("--scale", choices=SCALES, default="paper", help="scale of the study (default: paper)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="plan this experiment; repeatable")
    parser.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="PATH=VALUE",
        help="change a field of every recipe, as in aimcore run; repeatable",
    )  # fmt: skip
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="GPUs of each machine (default: 8)")
    parser.add_argument(
        "--gpu", default="h100-80gb", metavar="NAME", help="their type (default: h100-80gb); an unknown name lists all"
    )
    parser.add_argument(
        "--utilisation", type=float, default=0.4, metavar="SHARE",
        help="fraction of the GPUs' peak that the run achieves (default: 0.4)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(function=_plan)


def _plan(options: argparse.Namespace) -> int:
    from aimcore.engine.gpus import gpu_named
    from aimcore.engine.plan import Cluster

    cluster = Cluster(
        gpu=gpu_named(options.gpu), nodes=options.nodes, gpus_per_node=options.gpus, utilisation=options.utilisation
    )
    return plan_command(options, cluster)


def plan_command(options: argparse.Namespace, cluster: Any) -> int:
    """Print the plans of the study's experiments.

    Returns:
        0 if every experiment fits at some stage, else 1.

    Raises:
        AimcoreError: the study cannot be loaded, or an experiment cannot be divided over the GPUs.
    """
    from aimcore.engine.plan import plans_of
    from aimcore.io.terminal import Terminal
    from aimcore.report.plan_table import plain, print_plans
    from aimcore.running.study_files import changed, load_study, selected

    study = changed(selected(load_study(options.study, options.scale), options.only), options.changes)
    plans = plans_of(study.experiments, cluster)
    if options.json:
        Terminal().print_data(plain(study, plans, cluster))
    else:
        print_plans(study, plans, cluster, Terminal())
    return 0 if all(plan.fits for plan in plans.values()) else EXIT_NOTHING_FITS
