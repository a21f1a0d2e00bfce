/* The agent's stdin when it talks: lines wait here until the pipe takes them, and are kept in requests.jsonl, without people's secrets. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SECRET_STARS "***"

enum err_code inlet_open(struct runner *r, struct error *e)
{
	AUTO_FREE char *path = file_join(r->run_dir, "runtime/requests.jsonl");
	if (!r->launch.talks)
		return ERR_OK;
	r->requests_file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	return r->requests_file < 0 ? error_errno(e, "open '%s'", path) : ERR_OK;
}

static void cut(struct strbuf *line, const char *secret)
{
	size_t n = strlen(secret);
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const char *at = strbuf_str(line), *found;
	while (n && (found = strstr(at, secret))) {
		strbuf_add(&out, at, (size_t)(found - at));
		strbuf_adds(&out, SECRET_STARS);
		at = found + n;
	}
	if (at == strbuf_str(line))
		return;
	strbuf_adds(&out, at);
	strbuf_reset(line);
	strbuf_add(line, out.data, out.len);
}

bool inlet_scrub(const struct runner *r, struct strbuf *line)
{
	size_t before = line->len;
	bool found = false;
	for (size_t i = 0; i < js_len(r->secrets); i++) {
		const char *secret = js_text(js_at(r->secrets, i));
		found = found || strstr(strbuf_str(line), secret);
		cut(line, secret);
	}
	return found || line->len != before;
}

/* As it is, and as JSON writes it once and twice (a tool's output within a message within a line). */
void inlet_add_secret(struct runner *r, const struct js *gate_data, const struct js *decision)
{
	const struct js *questions = js_get(gate_data, "questions");
	if (!r->secrets)
		r->secrets = js_array();
	if (!js_len(r->secrets))
		r->raw_skip = r->lines.buf.len;
	for (size_t i = 0; i < js_len(questions); i++) {
		const struct js *q = js_at(questions, i), *texts = js_get(js_get(decision, "answers"), js_str_or(q, "id", ""));
		for (size_t n = 0; js_flag(q, "secret", false) && n < js_len(texts); n++) {
			AUTO_FREE char *text = mem_strdup(js_text(js_at(texts, n)) ? js_text(js_at(texts, n)) : "");
			for (int level = 0; level < 3 && text[0]; level++) {
				js_push_str(r->secrets, text);
				AUTO_JS struct js *v = js_string(text);
				AUTO_FREE char *quoted = js_dump(v);
				free(text);
				text = mem_strndup(quoted + 1, strlen(quoted) - 2);
			}
		}
	}
}

static void keep_request(struct runner *r, const char *line, size_t len)
{
	AUTO_STRBUF struct strbuf kept = STRBUF_INIT;
	struct error e = ERROR_INIT;
	strbuf_add(&kept, line, len);
	inlet_scrub(r, &kept);
	strbuf_addc(&kept, '\n');
	if (r->requests_file >= 0 && file_write_all(r->requests_file, kept.data, kept.len, &e)) {
		log_warn("requests.jsonl: %s", e.text);
		close(r->requests_file);
		r->requests_file = -1;
	}
}

void inlet_send(void *runner, const char *line, size_t len)
{
	struct runner *r = runner;
	keep_request(r, line, len);
	if (r->inlet.len + len + 1 > RUNNER_SEND_MAX) {
		runner_verdict(r, PHASE_FAILED, "agent_stuck", "the agent does not read its stdin: %zu MiB wait for it", RUNNER_SEND_MAX >> 20);
		return;
	}
	strbuf_add(&r->inlet, line, len);
	strbuf_addc(&r->inlet, '\n');
	inlet_write(r);
}

void inlet_write(struct runner *r)
{
	struct step *s = &r->step;
	while (s->in_fd >= 0 && r->inlet.len) {
		ssize_t n = write(s->in_fd, r->inlet.data, r->inlet.len);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) { /* it is ending; its exit tells how */
			inlet_close(r);
			return;
		}
		strbuf_cut(&r->inlet, (size_t)n);
	}
}

void inlet_close(struct runner *r)
{
	if (r->step.in_fd >= 0)
		close(r->step.in_fd);
	r->step.in_fd = -1;
	strbuf_reset(&r->inlet);
}
