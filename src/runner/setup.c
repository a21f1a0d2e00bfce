/* The setup phase: the environment's script, or the repository's, in the walls, before the agent. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SETUP_SCRIPT_MAX ((size_t)1 << 20)
#define BASE_TREE_MAX ((size_t)128)

static void on_setup_output(struct runner *r, const char *data, size_t n)
{
	if (r->out_bytes < runner_limit(r, "output") && r->out_file >= 0 && file_write_all(r->out_file, data, n, NULL))
		log_warn("setup.log: not written");
	r->out_bytes += (int64_t)n;
}

static void setup_finished_event(struct runner *r, int status)
{
	struct js *data = js_object();
	js_set_str(data, "id", "setup");
	js_set_str(data, "step", "setup");
	js_set_int(data, "exit_code", status);
	js_set_str(data, "status", status == 0 ? "completed" : "failed");
	js_set_int(data, "ms", clock_mono_ms() - r->step.started_ms);
	AUTO_STRBUF struct strbuf tail = STRBUF_INIT;
	str_add_printable(&tail, strbuf_str(&r->tail), r->tail.len);
	js_set_str(data, "output", strbuf_str(&tail));
	runner_event(r, "command.finished", "runner", data);
}

static void on_setup_exit(struct runner *r, int status, const struct error *start_error)
{
	if (r->out_file >= 0)
		close(r->out_file);
	r->out_file = -1;
	r->out_bytes = 0;
	if (start_error) {
		workspace_fail(r, "setup_failed", start_error);
		return;
	}
	setup_finished_event(r, status);
	if (status != 0) {
		AUTO_STRBUF struct strbuf tail = STRBUF_INIT;
		str_add_printable(&tail, strbuf_str(&r->tail), r->tail.len);
		runner_verdict(r, PHASE_FAILED, "setup_failed", "the setup ended with status %d: %s", status, strbuf_str(&tail));
	}
	if (r->verdict.set) {
		steps_finish(r);
		return;
	}
	r->has_setup_layer = true;
	AUTO_FREE char *done = file_join(r->work_dir, "setup.done");
	struct error e = ERROR_INIT;
	if (file_replace(done, "", 0, 0600, FILE_NOSYNC, &e))
		log_warn("%s", e.text);
	if (r->plain)
		collect_plain_base(r);
	else
		agent_begin(r);
}

/* The environment's setup, else what the repository brings. A path inside the snapshot is opened without following links. */
static enum err_code find_setup(struct runner *r, struct error *e)
{
	static const char *const names[] = { ".signalbox/setup.sh", "setup.sh" };
	const char *given = js_str(js_get(r->spec, "environment"), "setup");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SETUP_SCRIPT_MAX);
	if (!str_empty(given))
		strbuf_adds(&text, given);
	AUTO_CLOSE int dir = open(r->checkout, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; !given && i < ARRAY_SIZE(names); i++) {
		AUTO_CLOSE int fd = -1;
		if (dir < 0 || file_open_beneath(dir, names[i], O_RDONLY, &fd, NULL))
			continue;
		enum err_code rc = file_read_fd(fd, SETUP_SCRIPT_MAX, &text, e);
		if (rc)
			return error_wrap(e, "read the repository's %s", names[i]);
		break;
	}
	if (!text.len)
		return ERR_OK;
	r->setup_script = file_join(r->work_dir, "setup.sh");
	return file_replace(r->setup_script, text.data, text.len, 0755, FILE_NOSYNC, e);
}

static enum err_code setup_begin(struct runner *r, struct error *e)
{
	static const char *const argv[] = { "/bin/bash", BOX_SETUP_INSIDE, NULL };
	bool host = str_eq(js_str(js_get(r->spec, "environment"), "setup_network"), "host");
	AUTO_FREE char *log = file_join(r->run_dir, "setup.log");
	struct js *data = js_object();
	js_set_str(data, "id", "setup");
	js_set_str(data, "step", "setup");
	js_set_str(data, "command", "setup.sh");
	js_set_str(data, "network", host ? "host" : "none");
	runner_move(r, PHASE_SETUP);
	runner_event(r, "command.started", "runner", data);
	r->out_file = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (r->out_file < 0)
		return error_errno(e, "open '%s'", log);
	box_layers(r, true);
	enum err_code rc = box_begin(r, "setup", argv, NULL, NULL, host, runner_limit(r, "setup_timeout"), "setup_timeout", e);
	r->step.on_output = r->step.on_error_output = on_setup_output;
	r->step.on_exit = on_setup_exit;
	return rc;
}

static bool setup_is_done(const struct runner *r)
{
	AUTO_FREE char *path = file_join(r->work_dir, "setup.done");
	return file_exists(path);
}

static void read_base_tree(struct runner *r)
{
	AUTO_FREE char *path = file_join(r->work_dir, "base_tree");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(BASE_TREE_MAX);
	if (file_read(path, BASE_TREE_MAX, &text, NULL) == ERR_OK && text.len)
		r->base_tree = strbuf_detach(&text);
}

void setup_or_agent(struct runner *r)
{
	struct error e = ERROR_INIT;
	if (setup_is_done(r)) { /* by an earlier run of this worker: its layer is whole */
		r->has_setup_layer = true;
		if (r->plain)
			read_base_tree(r);
		agent_begin(r);
		return;
	}
	if (find_setup(r, &e) || (r->setup_script && setup_begin(r, &e)))
		workspace_fail(r, "setup_failed", &e);
	else if (!r->setup_script)
		agent_begin(r);
}
