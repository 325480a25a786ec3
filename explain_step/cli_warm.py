"""The command ``warm``."""

from __future__ import annotations

import time

import click

from explain_step.cli_base import NO, YES, common, print_json


@click.command()
@common
def warm(*, as_json: bool, tracking_uri: str | None, verbose: bool) -> int:
    """Compile the engines of trees and kernels now and keep them on disk, so that the first explanation does not wait.

    For the build of a container image. Exit 1: Numba is not installed (extra ``fast``); explanations of tree
    models and kernel machines then use NumPy.
    """
    del tracking_uri, verbose
    from explain_step.explainers import product_games, tree_compiled

    if not tree_compiled.available():
        if as_json:
            print_json({"compiled": False, "reason": "numba is not installed"})
        else:
            click.echo(
                "Numba is not installed: pip install 'explain-step[fast]'. Trees and kernel machines use NumPy."
            )
        return NO
    start = time.perf_counter()
    tree_compiled.warm()
    product_games.warm()
    seconds = round(time.perf_counter() - start, 1)
    if as_json:
        print_json({"compiled": True, "seconds": seconds})
    else:
        click.echo(f"The engines are compiled and kept on disk ({seconds} s).")
    return YES
