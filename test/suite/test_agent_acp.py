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
