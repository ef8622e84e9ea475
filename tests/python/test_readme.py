"""The README's queries give the output that the README shows.

`UPDATE_README=1 pytest tests/python/test_readme.py` writes the outputs anew.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from warehouse import REPO

README = REPO / "README.md"
QUERY = re.compile(r"```sql\n(?P<query>.*?)```\n(?P<shown>\n(?:\|[^\n]*\n)+)?", re.DOTALL)


def wavehouse(arguments: list[str]) -> str:
    """Run the command of this environment; return what it prints."""
    command = [str(Path(sys.executable).with_name("wavehouse")), *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=REPO).stdout


def test_every_query_gives_the_output_shown(sample_warehouse):
    def answer(query: str) -> str:
        return wavehouse(
            ["sql", "--db", str(sample_warehouse.file), "--format", "markdown", query]
        ).strip()

    text = README.read_text()
    fresh = QUERY.sub(
        lambda found: f"```sql\n{found['query']}```\n\n{answer(found['query'])}\n", text
    )
    if os.environ.get("UPDATE_README"):
        README.write_text(fresh)
    assert len(QUERY.findall(fresh)) == 35
    assert fresh == text
