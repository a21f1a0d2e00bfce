"""What every agent that can be spoken with must do, told once: the scenario file `agents` drives all of them, as far as each can."""
import json
import subprocess

import pytest
from agent_site import TURN_S, Turn, Worker

ALWAYS = ("--approvals", "always")
ON_REQUEST = ("--approvals", "on-request")


def text(worker, name):
    path = worker.workspace / name
    return path.read_text() if path.exists() else None


class Stories:
    """Tests of one adapter; a subclass names it and what it cannot do."""
    adapter = None
    settings = {}
    asks_for_commands = True  # some ask only for what changes files
    after_refusal = "success"  # some end their turn
    patches_of_a_session = 1   # that are asked for when the first is approved for all of it
    steers = True
    questions = True

    def worker_of(self, model):
        return Worker(model, self.adapter)

    def turn(self, worker, prompt, *options, **more):
        return worker.turn(prompt, *options, agent=self.settings, **more)

    def watched(self, worker, prompt, *options, on, **more):
        """A turn whose lines are looked at as they come."""
        lines = []
        with subprocess.Popen(worker.argv(prompt, "--timeout", f"{TURN_S}s", *options, agent=self.settings, **more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                lines.append(json.loads(line))
                on(lines[-1])
        assert child.returncode == 0
        return Turn(lines, worker.workspace)

    def test_what_is_approved_is_done_and_told(self, worker):
        turn = self.turn(worker, "[agents approve]", *ALWAYS, decide="approve")
        assert turn.outcome["outcome"] == "success" and turn.outcome["final"]["summary"] == "Everything was decided.", turn.outcome
        assert [a["ask"] for a in turn.asks] == ["command"] * self.asks_for_commands + ["patch", "patch"]
        assert text(worker, "added.txt") == "one line\nthree\n"
        added, changed = [a["data"] for a in turn.asks if a["ask"] == "patch"]
        assert added["files"] == [{"path": "added.txt", "kind": "add"}] and "+one line\n+two\n" in added["diff"]
        assert changed["files"] == [{"path": "added.txt", "kind": "update"}] and " one line\n-two\n+three\n" in changed["diff"]
        assert all("approve" in a["data"]["choices"] and "reject" in a["data"]["choices"] and a["data"]["title"] for a in turn.asks)
        assert [c["changes"] for c in turn.data("file.changed")] == [[{"path": "/workspace/added.txt", "kind": kind}] for kind in ("add", "update")]
        if self.asks_for_commands:
            assert turn.asks[0]["data"]["command"] == "echo made > made.txt; exit 3" and turn.asks[0]["data"]["title"].startswith("Run: echo made")
        assert len({a["request"] for a in turn.asks}) == len(turn.asks)

    def test_a_command_is_told_as_started_when_it_was_approved_and_not_before(self, worker):
        turn = self.turn(worker, "[agents approve]", *ALWAYS, decide="approve")
        story = [name for name in turn.story() if name.startswith(("ask command", "command"))]
        if self.asks_for_commands:  # else its own walls have stopped it, and it says nothing of that
            assert story == ["ask command", "command.started", "command.finished"]
            assert turn.data("command.finished")[0]["exit_code"] == 3 and text(worker, "made.txt") == "made\n"

    def test_commands_are_told(self, worker):
        turn = self.turn(worker, "[agents approve]")
        assert [name for name in turn.story() if name.startswith("command")] == ["command.started", "command.finished"]
        done = turn.data("command.finished")[0]
        assert (done["command"], done["exit_code"], done["status"]) == ("echo made > made.txt; exit 3", 3, "failed") and turn.running == ["echo made > made.txt; exit 3", ""]

    def test_what_is_refused_is_not_done_and_the_agent_goes_on(self, worker):
        for words in ("reject", "expire"):
            turn = self.turn(worker, "[agents reject]", *ALWAYS, decide=words)
            assert turn.outcome["outcome"] == self.after_refusal and text(worker, "added.txt") is None, turn.outcome

    def test_what_is_approved_for_the_session_is_not_asked_again(self, worker):
        turn = self.turn(worker, "[agents approve]", *ON_REQUEST, decide="approve session")
        assert turn.outcome["outcome"] == "success" and text(worker, "added.txt") == "one line\nthree\n"
        assert [a["ask"] for a in turn.asks].count("patch") == self.patches_of_a_session

    def test_the_plan_is_told_with_ids_that_stay(self, worker):
        turn = self.turn(worker, "[agents approve]", *ALWAYS, decide="approve")
        assert turn.data("todo.snapshot") == [{"items": [{"id": "1", "text": "Make a file", "status": "in_progress"}, {"id": "2", "text": "Change it", "status": "pending"}]}]
        assert [(u["id"], u["status"]) for u in turn.data("todo.update")] == [("1", "completed"), ("2", "in_progress"), ("2", "completed")]

    def test_thoughts_and_words_are_told(self, worker):
        turn = self.turn(worker, "[agents approve]", *ALWAYS, decide="approve")
        assert [r["text"] for r in turn.data("reasoning.done")] == ["There are two steps."]
        assert turn.data("message.done")[0]["text"] == "First the plan."

    def test_usage_is_told(self, worker):
        usage = self.turn(worker, "[agents approve]", *ALWAYS, decide="approve").data("run.turn")[0]["usage"]
        assert usage["input_tokens"] >= 1000 and usage["output_tokens"] > 0 and usage["cached_input_tokens"] == 400

    def test_without_approvals_nothing_is_asked(self, worker):
        turn = self.turn(worker, "[agents approve]", decide="hold")
        assert turn.outcome["outcome"] == "success", turn.outcome
        assert not turn.asks and text(worker, "added.txt") == "one line\nthree\n" and text(worker, "made.txt") == "made\n"

    def test_a_rule_may_decide_while_it_is_being_asked(self, worker):
        turn = self.turn(worker, "[agents approve]", *ALWAYS, decide="now approve")
        assert turn.outcome["outcome"] == "success" and text(worker, "added.txt") == "one line\nthree\n"

    def test_a_second_decision_changes_nothing(self, worker):
        turn = self.turn(worker, "[agents reject]", *ALWAYS, decide="twice approve")
        assert turn.outcome["outcome"] == "success" and text(worker, "added.txt") == "never\n"

    def test_an_abort_ends_the_turn(self, worker):
        turn = self.turn(worker, "[agents reject]", *ALWAYS, decide="abort")
        assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "interrupted") and text(worker, "added.txt") is None
        assert "a person ended the turn" in turn.outcome["error"]

    def test_a_cancel_ends_the_turn(self, worker):
        turn = self.turn(worker, "[agents reject]", *ALWAYS, decide="cancel")
        assert turn.outcome["outcome"] == "failed" and text(worker, "added.txt") is None

    def test_a_running_command_is_interrupted(self, worker):
        turn = self.turn(worker, "[agents interrupt]", "--interrupt", "command.started")
        assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "interrupted"), turn.outcome
        assert turn.data("run.turn")[-1]["status"] == "interrupted"

    def test_an_interrupt_takes_open_requests_back(self, worker):
        turn = self.turn(worker, "[agents reject]", *ALWAYS, "--interrupt", "ask", decide="hold")
        assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "interrupted"), turn.outcome
        assert [line["withdraw"] for line in turn.lines if "withdraw" in line] == [turn.asks[0]["request"]]

    def test_a_session_goes_on_in_another_process(self, worker):
        first = self.turn(worker, "[agents remember]")
        before = len(worker.model.asked())
        second = self.turn(worker, "[agents again]", "--session", first.outcome["session"])
        assert second.outcome["outcome"] == "success" and second.outcome["final"]["summary"] == "Again.", second.outcome
        assert second.outcome["session"] == first.outcome["session"]
        assert any("[agents remember]" in asked and "[agents again]" in asked for asked in map(str, worker.model.asked()[before:]))  # not the last: a title may be asked for beside
        assert [m for m in second.data("message.done") if "Remembered" in m["text"]] == []

    def test_a_session_that_is_not_there_is_said_to_be_lost(self, worker):
        turn = self.turn(worker, "[agents again]", "--session", "11111111-2222-4333-8444-555555555555")
        assert turn.outcome["outcome"] == "failed" and turn.outcome["reason"] in ("session_lost", "agent_exited"), turn.outcome

    def test_a_message_reaches_the_running_turn(self, worker):
        sent = lambda line: "sent" in line and "[agents steered]" in line["line"] or "said" in line
        turn = self.watched(worker, "[agents steer]", "--say", "command.started: look at [agents steered] now", on=lambda line: sent(line) and (worker.workspace / "go.txt").touch())
        assert turn.outcome["outcome"] == "success", turn.outcome
        said = [line for line in turn.lines if "said" in line]
        assert len(said) == 1
        if self.steers:
            assert said[0].get("refused") is None and turn.outcome["final"]["summary"] == "It was steered.", (said, turn.outcome)

    def test_a_question_is_answered_by_an_option(self, worker):
        if not self.questions:
            pytest.skip("it has no way to ask")
        turn = self.turn(worker, "[agents question]", decide="answer: blue")
        assert turn.outcome["outcome"] == "success" and turn.outcome["final"]["summary"] == "The door is blue.", turn.outcome
        question = turn.asks[0]["data"]["questions"][0]
        assert turn.asks[0]["ask"] == "question" and question["text"] == "Which colour shall the door have?" and question["header"] == "Door"
        assert [o["label"] for o in question["options"]] == ["red", "blue"] and question["free_text"] is True

    def test_a_question_is_answered_in_own_words(self, worker):
        if not self.questions:
            pytest.skip("it has no way to ask")
        turn = self.turn(worker, "[agents question-free]", decide="answer: Rumpelstilzchen")
        assert turn.outcome["outcome"] == "success" and turn.outcome["final"]["summary"] == "It has a name.", turn.outcome

    def test_a_question_that_nobody_answers_lets_the_agent_go_on(self, worker):
        for words in ("reject", "expire") if self.questions else ():
            turn = self.turn(worker, "[agents question-refused]", decide=words)
            assert turn.outcome["outcome"] == "success" and turn.outcome["final"]["summary"] == "It went on.", turn.outcome

    def test_a_blocked_agent_says_what_it_needs(self, worker):
        turn = self.turn(worker, "[agents blocked]")
        assert turn.outcome["outcome"] == "blocked" and turn.outcome["final"]["questions"] == ["Left or right?"], turn.outcome

    def test_a_failing_model_is_named(self, worker):
        turn = self.turn(worker, "[agents model-fails]")
        assert turn.outcome["outcome"] == "failed" and "this model is broken" in turn.outcome["error"], turn.outcome

    def test_a_process_that_dies_is_a_failure(self, worker):
        turn = self.turn(worker, "[agents interrupt]", "--kill", "command.started")
        assert (turn.outcome["outcome"], turn.outcome["reason"]) == ("failed", "agent_exited"), turn.outcome
