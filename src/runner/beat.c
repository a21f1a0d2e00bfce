/* The heartbeat: three clocks and what the run is at, in state.json (and beside the user's repository), every 10 s and at each change. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/statefile.h"
#include "runner/runner.h"
#include <string.h>
#include <unistd.h>

static char *progress_of(const struct runner *r)
{
	const char *agent = r->agent ? agent_progress(r->agent) : "";
	return inlet_clean(r, r->phase == PHASE_RUNNING && agent[0] ? agent : phase_name(r->phase));
}

static void set_age(struct js *o, const char *key, int64_t since_mono_ms)
{
	char text[RFC3339_SIZE];
	if (!since_mono_ms)
		return;
	clock_rfc3339(clock_wall_ms() - (clock_mono_ms() - since_mono_ms), text);
	js_set_str(o, key, text);
}

/* One cause with its evidence: what a person would want to know who asks "what is it doing?". */
static void add_cause(const struct runner *r, struct js *o)
{
	const char *cause = phase_name(r->phase), *command = NULL;
	bool running = (r->phase == PHASE_RUNNING || r->phase == PHASE_WAITING_HUMAN) && r->agent && r->step.active;
	int64_t since = r->last_line_ms ? r->last_line_ms : r->agent_started_ms;
	if (running) {
		command = agent_open_command(r->agent);
		cause = command || !agent_uses_model(r->agent) ? "running" : "waiting on model";
		if (r->waiting_since_ms) {
			cause = "waiting on human";
			since = r->waiting_since_ms;
		}
		if (r->verdict.set && str_eq(r->verdict.reason, "stall_timeout"))
			cause = "stalled";
	}
	js_set_str(o, "cause", cause);
	AUTO_FREE char *shown = inlet_clean(r, command);
	js_set_str(o, "command", shown);
	if (running && since)
		js_set_int(o, "since_ms", clock_mono_ms() - since);
	if (running && r->pulse.at_ms) {
		js_set_int(o, "processes", r->pulse.processes);
		js_set_int(o, "cpu_ms", r->pulse.cpu_ms);
		js_set_int(o, "busiest_pid", r->pulse.pid);
		js_set_str(o, "busiest", r->pulse.name);
	}
}

struct js *beat_make(struct runner *r)
{
	struct js *o = js_object();
	char now[RFC3339_SIZE];
	clock_rfc3339(clock_wall_ms(), now);
	js_set_str(o, "alive", now);
	set_age(o, "last_byte", r->last_line_ms ? r->last_line_ms : r->agent_started_ms);
	set_age(o, "last_progress", r->pulse.busy_at_ms > r->last_line_ms ? r->pulse.busy_at_ms : r->last_line_ms);
	add_cause(r, o);
	js_set_str(o, "phase", phase_name(r->phase));
	AUTO_FREE char *progress = progress_of(r);
	js_set_str(o, "progress", progress);
	js_set_int(o, "output_bytes", r->out_bytes);
	return o;
}

static void write_mirror(struct runner *r, const struct statefile *s, const char *lock)
{
	const struct js *mirror = js_get(r->spec, "mirror");
	struct error e = ERROR_INIT;
	if (!js_str(mirror, "dir") || r->was_root) /* a root server writes it: we are, or will be, somebody who may not */
		return;
	if (statefile_prepare_mirror(js_str(mirror, "dir"), &e) || statefile_write(js_str(mirror, "dir"), js_str(mirror, "name"), lock, s, &e))
		log_debug("%s", e.text);
}

void beat_write(struct runner *r)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *progress = progress_of(r);
	struct statefile s = { .task_id = r->task_id, .session_id = js_str_or(r->spec, "session_id", ""), .status = statefile_status(phase_status(r->phase)),
		.progress = progress, .error = r->verdict.error, .start_ms = js_i64(r->spec, "started_at", 0), .run = r->epoch };
	AUTO_JS struct js *beat = beat_make(r);
	AUTO_FREE char *lock = mem_printf("%s/agents/%s/state.lock", js_str_or(r->spec, "task_dir", ""), js_str_or(r->spec, "worker", "main"));
	s.beat = beat;
	AUTO_JS struct js *result = NULL;
	if (phase_is_terminal(r->phase)) { /* durable in the spool by now; the server may be away for long */
		s.completed_ms = clock_wall_ms();
		s.result = result = statefile_result(r->result);
		s.error = r->phase == PHASE_CANCELED ? "canceled" : r->verdict.error;
	}
	if (statefile_write(r->run_dir, "state.json", lock, &s, &e))
		log_warn("%s", e.text);
	write_mirror(r, &s, lock);
	link_want_beat(r);
}
