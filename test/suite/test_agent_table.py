"""The table of doc/agents.md says what the adapters say."""
import json
import subprocess

import pytest
from agent_site import DRIVE, ROOT

pytestmark = pytest.mark.skipif(not DRIVE.exists(), reason="agent_drive is not built")


def said():
    done = subprocess.run([str(DRIVE), "--capabilities"], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def rows():
    text = (ROOT / "doc/agents.md").read_text().split("<!-- table: tools/agents-table -->\n")[1].split("<!-- end of table -->")[0]
    head, _, *lines = [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
    return {line[0]: dict(zip(head[1:], line[1:])) for line in lines}


def test_the_docs_table_is_the_adapters_own():
    assert rows() == {one["name"]: {k: "yes" if v else "-" for k, v in one.items() if k != "name"} for one in said()}, "tools/agents-table --write makes it anew"


def test_the_table_is_made_from_claims_and_runs(tmp_path):
    (tmp_path / "said.json").write_text(json.dumps(said()))
    case = '<testcase classname="test_agent_claude.TestClaude" name="{}">{}</testcase>'
    (tmp_path / "seen.xml").write_text("<testsuite>" + case.format("test_what_is_approved_is_done_and_told", "") + case.format("test_usage_is_told", "<failure/>") + "</testsuite>")
    done = subprocess.run([str(ROOT / "tools/agents-table"), tmp_path / "said.json", tmp_path / "seen.xml"], capture_output=True, text=True, timeout=120)
    row = next(line for line in done.stdout.splitlines() if line.startswith("| `claude` "))
    assert done.returncode == 1 and row == "| `claude` | yes | **yes** | yes | yes | yes | yes | BROKEN |"
