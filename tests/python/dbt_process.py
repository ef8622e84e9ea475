"""dbt in a process forked from one that has imported it: a third of the CPU time of a short run."""

import multiprocessing
import os
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

# A server forks the processes: it has no threads, whatever the tests' process has.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "dbt.cli.main", "dbt.adapters.duckdb.impl"])


def _run(arguments: list[str], folder: Path, environment: dict[str, str], output: str) -> None:
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import cli

    try:
        cli(arguments, prog_name="dbt")  # leaves by sys.exit with dbt's status
    finally:
        # what dbt does when its interpreter ends, which that of a forked process does not
        DuckDBConnectionManager.close_all_connections()


def run_dbt(arguments: list[str], folder: Path, environment: dict[str, str]) -> CompletedProcess:
    """Run dbt as from a shell in `folder`; all that it prints is in stdout."""
    with tempfile.NamedTemporaryFile(prefix="dbt-", suffix=".log") as output:
        process = _processes.Process(
            target=_run, args=(arguments, folder, environment, output.name)
        )
        process.start()
        process.join()
        return CompletedProcess(arguments, process.exitcode, Path(output.name).read_text())
