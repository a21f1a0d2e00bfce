/* The agent's phase: its prompt, its lines in and our events out, silence and floods, its end. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define NOTES_MAX ((size_t)256 << 10)

/* An agent that was told a secret may say it again. */
static struct js *without_secrets(const struct runner *r, struct js *data_taken)
{
	struct js *clean = inlet_clean_js(r, data_taken);
	js_free(data_taken);
	return clean;
}

static char *text_without_secrets(const struct runner *r, char *text_taken)
{
	char *clean = inlet_clean(r, text_taken);
	free(text_taken);
	return clean;
}

/* Its last words are kept in several places. */
static void scrub_outcome(const struct runner *r, struct agent_outcome *o)
{
	if (o->final)
		o->final = without_secrets(r, o->final);
	o->text = text_without_secrets(r, o->text);
	o->error = text_without_secrets(r, o->error);
}

static void sink_event(void *ctx, const char *type, struct js *data_taken)
{
	struct runner *r = ctx;
	if (r->dropped_bytes || r->record_broken) { /* over the output limit: counted, not kept */
		js_free(data_taken);
		return;
	}
	if (str_eq(type, "run.session"))
		result_save_session(r, js_str(data_taken, "session"));
	runner_event(r, type, "agent", without_secrets(r, data_taken));
	int64_t soon = r->last_beat_ms + RUNNER_BEAT_SOON_MS;
	if (r->next_beat_ms > soon) /* what it is doing has changed */
		r->next_beat_ms = soon;
}

static void sink_live(void *ctx, const char *type, struct js *data_taken)
{
	const struct runner *r = ctx;
	if (r->secrets.count) /* text in pieces hides a secret from whoever looks for it */
		js_free(data_taken);
	else
		runner_live(ctx, type, data_taken);
}

/* How the words went: taken into the turn, or left for the next one. */
static void sink_said(void *ctx, const char *message_id, const char *refused)
{
	struct runner *r = ctx;
	struct js *data = js_object();
	int64_t n = 0;
	if (str_to_i64(message_id, "message", 1, INT64_MAX, &n, NULL) == ERR_OK)
		js_set_int(data, "message", n);
	js_set_str(data, "refused", refused);
	runner_event(r, refused ? "message.refused" : "message.steered", "runner", data);
}

void agent_told(struct runner *r, const struct js *message)
{
	AUTO_FREE char *id = mem_printf("%lld", (long long)js_i64(message, "message", 0));
	bool running = r->agent && r->step.active && str_eq(r->step.name, "agent") && !r->step.interrupted;
	if (!running || !agent_say(r->agent, id, js_str_or(message, "text", "")))
		sink_said(r, id, "no turn of the agent is running");
}

void agent_end_turn(struct runner *r, const char *who)
{
	bool running = r->agent && r->step.active && str_eq(r->step.name, "agent") && !agent_settled(r->agent);
	if (r->turn_ends) /* asked again: it gets no more time for that */
		return;
	free(r->interrupted_by);
	r->interrupted_by = mem_strdup(who);
	r->turn_ends = true;
	if (running && agent_interrupt(r->agent))
		r->step.kill_at_ms = clock_mono_ms() + RUNNER_TURN_END_MS; /* it may not hear */
	else
		runner_verdict(r, PHASE_CANCELED, "interrupted", "interrupted by %s", who);
}

/* What could not be kept must not be told either: no event may say more than the raw output and the spool do. */
static void write_raw(struct runner *r, const char *data, size_t n)
{
	struct error e = ERROR_INIT;
	if (r->record_broken || r->out_file < 0 || !file_write_all(r->out_file, data, n, &e))
		return;
	runner_verdict(r, PHASE_FAILED, "disk_failed", "keep the agent's output: %s", e.text);
	r->record_broken = true;
}

/* With secrets about, the raw lines are kept one by one, with stars. */
static void keep_raw_line(struct runner *r, const char *line, size_t len)
{
	AUTO_STRBUF struct strbuf clean = STRBUF_INIT;
	size_t skip = r->raw_skip < len ? r->raw_skip : len;
	r->raw_skip = 0;
	if (!skip && inlet_is_piece(line, len))
		return;
	strbuf_add(&clean, line + skip, len - skip);
	scrub_text(&r->secrets, &clean);
	strbuf_addc(&clean, '\n');
	if (r->out_bytes < runner_limit(r, "output"))
		write_raw(r, clean.data, clean.len);
}

static void on_line(void *ctx, const char *line, size_t len, size_t full_len)
{
	struct runner *r = ctx;
	if (full_len > len) {
		struct js *data = js_object();
		js_set_str(data, "what", "line");
		js_set_int(data, "bytes", (int64_t)(full_len - len));
		runner_event(r, "agent.truncated", "runner", data);
	}
	if (r->secrets.count)
		keep_raw_line(r, line, len);
	if (!r->record_broken)
		agent_line(r->agent, line, len);
}

/* The raw output is kept as it came, up to the limit. */
static void keep_raw(struct runner *r, const char *data, size_t n)
{
	int64_t room = runner_limit(r, "output") - r->out_bytes;
	size_t kept = room <= 0 ? 0 : (int64_t)n < room ? n : (size_t)room;
	if (kept && !r->secrets.count)
		write_raw(r, data, kept);
	r->out_bytes += (int64_t)kept;
	r->dropped_bytes += (int64_t)(n - kept);
}

void agent_touch(struct runner *r)
{
	if (!r->step.interrupted && !agent_settled(r->agent) && !r->waiting_since_ms)
		r->step.deadline_ms = clock_mono_ms() + runner_limit(r, "stall_timeout");
}

static void touch_stall(struct runner *r)
{
	r->last_line_ms = clock_mono_ms();
	agent_touch(r);
}

static void on_agent_output(struct runner *r, const char *data, size_t n)
{
	bool settled = agent_settled(r->agent);
	gates_heard(r);
	keep_raw(r, data, n);
	touch_stall(r);
	line_feed(&r->lines, data, n, on_line, r);
	agent_batch_end(r->agent);
	gates_delivered_by_prompt(r);
	if (!settled && agent_settled(r->agent) && !r->step.interrupted) {
		r->step.kill_at_ms = clock_mono_ms() + RUNNER_SETTLE_GRACE_MS;
		r->step.deadline_ms = 0;
		if (!r->inlet.len)
			inlet_close(r); /* EOF: it may end by itself */
	}
}

static void on_agent_error_output(struct runner *r, const char *data, size_t n)
{
	AUTO_STRBUF struct strbuf clean = STRBUF_INIT;
	touch_stall(r);
	strbuf_add(&clean, data, n);
	scrub_text(&r->secrets, &clean);
	if (r->err_bytes < RUNNER_STDERR_MAX && r->err_file >= 0 && file_write_all(r->err_file, clean.data, clean.len, NULL))
		log_warn("stderr.log: not written");
	r->err_bytes += (int64_t)n;
}

static void finish_files(struct runner *r)
{
	line_finish(&r->lines, on_line, r);
	line_release(&r->lines);
	if (r->out_file >= 0)
		close(r->out_file);
	if (r->err_file >= 0)
		close(r->err_file);
	if (r->requests_file >= 0)
		close(r->requests_file);
	r->out_file = r->err_file = r->requests_file = -1;
	if (r->dropped_bytes) {
		struct js *data = js_object();
		js_set_str(data, "what", "output");
		js_set_int(data, "bytes", r->dropped_bytes);
		js_set_int(data, "kept", r->out_bytes);
		runner_event(r, "agent.truncated", "runner", data);
		r->dropped_bytes = 0;
	}
}

static void judge(struct runner *r, bool oom)
{
	const struct agent_outcome *o = &r->outcome;
	if (o->status == AGENT_FAILED && (r->turn_ends || str_eq(o->reason, "interrupted")))
		runner_verdict(r, PHASE_CANCELED, "interrupted", "interrupted by %s", r->interrupted_by ? r->interrupted_by : "a person, at a gate");
	if (oom && o->status == AGENT_FAILED)
		runner_verdict(r, PHASE_FAILED, "out_of_memory", "the sandbox reached its memory limit of %lld MB", (long long)(runner_limit(r, "memory") >> 20));
	else if (o->status == AGENT_FAILED && (r->driven.lost || (r->driven.count && js_len(r->unheard))))
		runner_verdict(r, PHASE_FAILED, "agent_exited", "the agent died while it was asking a person; what drives it lived on");
	else if (o->status == AGENT_FAILED)
		runner_verdict(r, PHASE_FAILED, o->reason, "%s", o->error ? o->error : "the agent failed");
}

static void drop_session(struct runner *r)
{
	AUTO_FREE char *path = mem_printf("%s/agents/%s/session.json", js_str_or(r->spec, "task_dir", ""), js_str_or(r->spec, "worker", "main"));
	unlink(path);
}

static void on_agent_exit(struct runner *r, int status, const struct error *start_error)
{
	AUTO_FREE char *last = NULL;
	struct cgroup_usage usage = { 0 };
	finish_files(r);
	step_tail_line(r, &last);
	cgroup_usage(r->cgroup, &usage);
	r->agent_status = status;
	if (start_error)
		runner_verdict(r, PHASE_FAILED, "sandbox_failed", "%s", start_error->text);
	bool ended_by_us = agent_settled(r->agent) && r->step.interrupted;
	agent_finish(r->agent, ended_by_us ? -1 : status, last, &r->outcome);
	scrub_outcome(r, &r->outcome);
	bool unheard = str_eq(r->outcome.reason, "agent_exited") && !r->out_bytes;
	if ((unheard || str_eq(r->outcome.reason, "session_lost")) && js_str(r->spec, "agent_session"))
		drop_session(r); /* it could not be resumed: the next attempt starts clean */
	judge(r, usage.oom_killed);
	driven_unwatch(r); /* what comes now is our own work: no death of an agent's ends it */
	steps_finish(r);
}

static enum err_code save_artifact(struct runner *r, const char *name, const char *text, struct error *e)
{
	AUTO_FREE char *path = mem_printf("%s/artifacts/%s", r->run_dir, name);
	return file_replace(path, text, strlen(text), 0644, FILE_NOSYNC, e);
}

/* What people wrote for the agent goes along with the request. */
static enum err_code make_prompt(struct runner *r, struct error *e)
{
	const char *request = js_str_or(r->spec, "prompt", "");
	AUTO_FREE char *notes_path = file_join(js_str_or(r->spec, "task_dir", ""), "shared/human-notes.md");
	AUTO_STRBUF struct strbuf notes = STRBUF_LIMIT(NOTES_MAX);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	enum err_code rc = file_read(notes_path, NOTES_MAX, &notes, e);
	if (rc && rc != ERR_NOT_FOUND)
		return rc;
	const struct js *previous = js_get(r->spec, "previous");
	gates_tell_decided(r, &text);
	if (js_str(previous, "error") && js_i64(r->spec, "attempt", 1) > 1)
		strbuf_addf(&text, "Your previous attempt ended early: %s.\n%s\n\n", js_str(previous, "error"),
			js_str(r->spec, "agent_session") ? "The workspace is as you left it. Go on with the request:" : "Start anew with the request:");
	strbuf_adds(&text, request);
	if (notes.len && str_is_utf8(notes.data, notes.len))
		strbuf_addf(&text, "\n\nNotes from the people you work for:\n%s", notes.data);
	rc = save_artifact(r, "prompt.txt", strbuf_str(&text), e);
	/* A fake's script and a shell's command line are programs, not prose: no notes in them. */
	const char *adapter = js_str_or(js_get(r->spec, "agent"), "adapter", "");
	bool prose = !str_eq(adapter, "command") && !str_eq(adapter, "fake");
	r->prompt = prose ? strbuf_detach(&text) : mem_strdup(request);
	return rc;
}

static enum err_code open_files(struct runner *r, struct error *e)
{
	AUTO_FREE char *out = file_join(r->run_dir, "runtime/events.jsonl");
	AUTO_FREE char *err = file_join(r->run_dir, "runtime/stderr.log");
	r->out_file = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	r->err_file = open(err, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	r->out_bytes = r->err_bytes = r->dropped_bytes = 0;
	line_init(&r->lines, AGENT_LINE_MAX);
	return r->out_file < 0 || r->err_file < 0 ? error_errno(e, "open '%s'", r->out_file < 0 ? out : err) : ERR_OK;
}

static enum err_code make_agent(struct runner *r, struct error *e)
{
	const struct agent_sink sink = { .event = sink_event, .live = sink_live, .send = inlet_send, .ask = gates_ask, .withdraw = gates_withdraw, .said = sink_said,
		.ctx = r };
	r->model_url = mem_printf("http://127.0.0.1:%lld/v1", (long long)js_i64(js_get(r->spec, "gateway"), "port", 0));
	struct agent_run run = { .agent = js_get(r->spec, "agent"), .home = r->home, .prompt = r->prompt, .model_url = r->model_url,
		.model_token = r->gateway_token, .session_id = js_str(r->spec, "agent_session"), .approvals = policy_agent_mode(r->policy) };
	enum err_code rc = agent_new(&run, &sink, &r->agent, e);
	return rc ? rc : agent_prepare(r->agent, &r->launch, e);
}

static void started_event(struct runner *r)
{
	struct js *data = js_object();
	js_set_int(data, "n", r->epoch);
	js_set_int(data, "turn", js_i64(r->spec, "turn", 1));
	js_set_int(data, "attempt", js_i64(r->spec, "attempt", 1));
	js_set_int(data, "pid", (int64_t)getpid());
	js_set_str(data, "adapter", js_str(js_get(r->spec, "agent"), "adapter"));
	js_set_str(data, "model", js_str(js_get(r->spec, "agent"), "model"));
	runner_event(r, "run.started", "runner", data);
}

void agent_begin(struct runner *r)
{
	struct error e = ERROR_INIT;
	enum err_code rc = gates_open(r, &e);
	if (!rc)
		rc = make_prompt(r, &e);
	if (!rc)
		rc = open_files(r, &e);
	if (!rc)
		rc = make_agent(r, &e);
	if (!rc)
		rc = inlet_open(r, &e);
	runner_move(r, PHASE_RUNNING);
	started_event(r);
	box_layers(r, false);
	if (!rc)
		rc = box_begin(r, "agent", (const char *const *)r->launch.argv, r->launch.env, r->launch.stdin_path, false, runner_limit(r, "stall_timeout"),
			"stall_timeout", &e);
	if (rc) {
		runner_verdict(r, PHASE_FAILED, "agent_start_failed", "%s%s%s", e.text, e.hint[0] ? "; " : "", e.hint);
		steps_finish(r);
		return;
	}
	r->agent_ran = true;
	r->agent_started_ms = clock_mono_ms();
	r->step.on_output = on_agent_output;
	r->step.on_error_output = on_agent_error_output;
	r->step.on_exit = on_agent_exit;
	agent_started(r->agent);
	gates_delivered_by_prompt(r);
}
