"""The real ACP agents of Codex and of Claude through the adapter."""
import shutil

import pytest
from agent_site import DRIVE, ROOT, Model
from agent_stories import ALWAYS, Stories, text

MODULES = ROOT / "node_modules/@agentclientprotocol"
CODEX_ACP, CLAUDE_ACP = MODULES / "codex-acp/dist/index.js", MODULES / "claude-agent-acp/dist/index.js"
pytestmark = [pytest.mark.skipif(not CODEX_ACP.exists() or not CLAUDE_ACP.exists(), reason="the ACP agents are not installed (npm ci)"),
              pytest.mark.skipif(not DRIVE.exists(), reason="agent_drive is not built"), pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")]


@pytest.fixture(scope="module")
def model():
    one = Model("agents")
    yield one
    one.close()


class Acp(Stories):
    @pytest.fixture
    def worker(self, model):
        one = self.worker_of(model)
        yield one
        one.close()


class TestCodexAcp(Acp):
    adapter = "codex-acp"
    settings = {"path": str(CODEX_ACP)}
    asks_for_commands = False
    questions = False


class TestClaudeAcp(Acp):
    adapter = "claude-acp"
    settings = {"path": str(CLAUDE_ACP)}


class TestAnyAcp:
    """An agent that is only a command line to us: what the protocol promises."""
    adapter = "acp"
    settings = {"command": [str(CLAUDE_ACP)], "env": {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_ENABLE_TASKS": "0", "CLAUDE_CODE_ENABLE_TODO_TOOLS": "1", "ENABLE_TOOL_SEARCH": "0"}}
    asks_for_commands = True
    worker, worker_of, turn = Acp.worker, Stories.worker_of, Stories.turn
    test_what_is_approved_is_done_and_told = Stories.test_what_is_approved_is_done_and_told
    test_the_plan_is_told_with_ids_that_stay = Stories.test_the_plan_is_told_with_ids_that_stay
    test_a_running_command_is_interrupted = Stories.test_a_running_command_is_interrupted
