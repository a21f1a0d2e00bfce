/* What is handed in: the agent's words labelled as claims, beside what we saw. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <string.h>

#define FILES_IN_RESULT_MAX 2000 /* the patch has them all */
#define PATHS_IN_RESULT_MAX ((size_t)64 << 10) /* bytes of their names: the result must fit an event, whatever an agent calls its files */
#define LIST_IN_RESULT_MAX ((size_t)64 << 10)  /* bytes of questions, of next actions */
#define SUMMARY_TEXT_MAX ((size_t)16 << 10)

static void copy_text(struct js *o, const char *key, const char *text)
{
	if (!text)
		return;
	size_t n = strlen(text);
	if (n > SUMMARY_TEXT_MAX)
		for (n = SUMMARY_TEXT_MAX; n && ((unsigned char)text[n] & 0xC0) == 0x80;)
			n--;
	js_set(o, key, js_string_n(text, n));
}

static struct js *some_texts(const struct js *list)
{
	struct js *out = js_array();
	size_t bytes = 0;
	for (size_t i = 0; i < js_len(list) && (bytes += js_text_len(js_at(list, i)) + 1) <= LIST_IN_RESULT_MAX; i++)
		js_push(out, js_ref(js_at(list, i)));
	return out;
}

static void add_final(struct runner *r, struct js *o)
{
	static const char *const words[] = { [AGENT_SUCCESS] = "success", [AGENT_BLOCKED] = "blocked", [AGENT_FAILED] = "failed" };
	const struct js *final = r->outcome.final;
	js_set_str(o, "outcome", r->verdict.phase != PHASE_SUCCEEDED ? "failed" : words[r->outcome.status]);
	copy_text(o, "summary", final ? js_str(final, "summary") : r->outcome.text);
	js_set(o, "questions", some_texts(js_get(final, "questions")));
	js_set(o, "next_actions", some_texts(js_get(final, "nextActions")));
	struct js *claims = js_object();
	if (final) {
		js_set_int(claims, "tests_run", js_i64(final, "testsRun", 0));
		js_set_int(claims, "tests_passed", js_i64(final, "testsPassed", 0));
	}
	js_set(o, "claims", claims);
}

static void add_changes(struct runner *r, struct js *o)
{
	static const char *const kept[] = { "added", "deleted", "tree", "skipped", "own", NULL };
	const struct js *files = js_get(r->changes, "files");
	struct js *list = js_array();
	size_t names = 0;
	for (size_t i = 0; i < js_len(files) && i < FILES_IN_RESULT_MAX && names < PATHS_IN_RESULT_MAX; i++) {
		names += strlen(js_str_or(js_at(files, i), "path", "")) + strlen(js_str_or(js_at(files, i), "old_path", ""));
		js_push(list, js_ref(js_at(files, i)));
	}
	js_set(o, "files", list);
	js_set_int(o, "files_changed", (int64_t)js_len(files));
	for (const char *const *k = kept; *k; k++)
		if (js_get(r->changes, *k))
			js_set(o, *k, js_ref(js_get(r->changes, *k)));
	js_set_int(o, "patch_bytes", js_i64(r->changes, "bytes", 0));
}

static void add_walls(struct runner *r, struct js *o)
{
	struct js *walls = js_object();
	js_set_str(walls, "layers", r->plain ? "plain" : "overlay");
	js_set_str(walls, "confinement", sandbox_confinement_name(cgroup_kind(r->cgroup)));
	js_set_str(walls, "why", cgroup_why(r->cgroup));
	js_set(o, "walls", r->has_workspace ? walls : js_null());
	if (!r->has_workspace)
		js_free(walls);
	struct cgroup_usage usage = { 0 };
	if (r->cgroup) {
		cgroup_usage(r->cgroup, &usage);
		js_set_int(o, "memory_peak", usage.memory_peak);
		js_set_int(o, "cpu_ms", usage.cpu_us / 1000);
	}
}

static void save(struct runner *r, const char *name, const char *text)
{
	AUTO_FREE char *path = mem_printf("%s/artifacts/%s", r->run_dir, name);
	struct error e = ERROR_INIT;
	if (file_replace(path, text, strlen(text), 0644, FILE_SYNC, &e))
		log_warn("%s", e.text);
}

static void save_artifacts(struct runner *r)
{
	if (r->outcome.final) {
		AUTO_FREE char *text = js_pretty(r->outcome.final);
		save(r, "final.json", text);
	}
	if (r->outcome.text)
		save(r, "llm_response.txt", r->outcome.text);
}

void result_save_session(struct runner *r, const char *session)
{
	AUTO_JS struct js *o = js_object();
	AUTO_FREE char *path = mem_printf("%s/agents/%s/session.json", js_str_or(r->spec, "task_dir", ""), js_str_or(r->spec, "worker", "main"));
	struct error e = ERROR_INIT;
	js_set_str(o, "adapter", js_str(js_get(r->spec, "agent"), "adapter"));
	js_set_str(o, "session", session);
	js_set_str(o, "home", r->home);
	AUTO_FREE char *text = js_pretty(o);
	if (file_replace(path, text, strlen(text), 0644, FILE_SYNC, &e))
		log_warn("%s", e.text);
}

void result_hand_in(struct runner *r)
{
	struct error e = ERROR_INIT;
	runner_verdict(r, PHASE_SUCCEEDED, NULL, "%s", "");
	gates_close(r);
	struct js *o = js_object(), *event = js_object();
	add_final(r, o);
	add_changes(r, o);
	add_walls(r, o);
	js_set(o, "verify", r->verify ? js_ref(r->verify) : js_null());
	js_set(o, "exit_code", r->agent_ran ? js_int(r->agent_status) : js_null());
	save_artifacts(r);
	js_set_str(event, "phase", phase_name(r->verdict.phase));
	js_set_str(event, "reason", r->verdict.reason);
	js_set_str(event, "error", r->verdict.phase == PHASE_CANCELED ? NULL : r->verdict.error);
	js_set(event, "result", js_ref(o));
	/* Nothing of the run lives when its end is said. */
	cgroup_kill(r->cgroup);
	runner_event(r, "run.result", "runner", event);
	if (spool_sync(r->spool, &e))
		log_error("%s", e.text);
	r->result = o;
	r->result_spooled = true;
	r->phase = str_eq(js_str(o, "outcome"), "blocked") ? PHASE_WAITING_HUMAN : r->verdict.phase;
	beat_write(r);
	workspace_save(r);
}
