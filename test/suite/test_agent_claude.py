"""The real Claude Code through its adapter."""
import shutil
import subprocess

import pytest
from agent_site import DRIVE, ROOT, Model
from agent_stories import ALWAYS, ON_REQUEST, Stories, text

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

    def test_the_words_of_a_refusal_reach_the_agent(self, worker):
        turn = self.turn(worker, "[agents note]", *ALWAYS, decide="reject: not this one")
        assert turn.outcome["final"]["summary"] == "It was told." and text(worker, "made.txt") is None
        assert turn.data("command.finished")[0]["status"] == "declined" and not turn.data("command.started")

    def test_on_request_asks_for_what_claude_code_would_ask_at_a_terminal(self, worker):
        assert not self.turn(worker, "[agents look]", *ON_REQUEST, decide="hold").asks
        assert [a["ask"] for a in self.turn(worker, "[agents look]", *ALWAYS, decide="approve").asks] == ["command"]
        assert [a["ask"] for a in self.turn(worker, "[agents note]", *ON_REQUEST, decide="reject: not this one").asks] == ["command"]

    def test_in_plan_mode_the_plan_is_the_answer(self, worker):
        turn = worker.turn("[agents plan-mode]", *ALWAYS, agent={**self.settings, "mode": "plan"}, decide="hold")
        assert turn.outcome["outcome"] == "success" and turn.outcome["final"]["summary"] == "First this, then that.", turn.outcome

    def test_the_projects_own_settings_do_not_spare_questions_where_everything_is_asked(self, worker):
        (worker.workspace / ".claude").mkdir()
        (worker.workspace / ".claude/settings.json").write_text('{"permissions": {"allow": ["Bash", "Edit", "Write"]}}')
        assert [a["ask"] for a in self.turn(worker, "[agents look]", *ALWAYS, decide="approve").asks] == ["command"]

    def test_a_program_that_is_too_old_is_refused(self, worker, tmp_path):
        old = tmp_path / "claude"
        old.write_text("#!/bin/sh\n")
        old.chmod(0o755)
        (tmp_path / "package.json").write_text('{"version": "1.0.99"}')
        done = subprocess.run(worker.argv("x", agent={"path": str(old)}), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode != 0 and "1.0.99" in done.stderr and "too old" in done.stderr
