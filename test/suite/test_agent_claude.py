"""The real Claude Code through its adapter."""
import shutil

import pytest
from agent_site import DRIVE, ROOT, Model
from agent_stories import ALWAYS, Stories, text

CLAUDE = ROOT / "node_modules/@anthropic-ai/claude-code-linux-x64/claude"
pytestmark = [pytest.mark.skipif(not CLAUDE.exists(), reason="Claude Code is not installed (npm ci)"), pytest.mark.skipif(not DRIVE.exists(), reason="agent_drive is not built"),
              pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")]


@pytest.fixture(scope="module")
def model():
    one = Model("agents")
    yield one
    one.close()


class TestClaude(Stories):
    adapter = "claude"
    settings = {"path": str(CLAUDE)}

    @pytest.fixture
    def worker(self, model):
        one = self.worker_of(model)
        yield one
        one.close()
