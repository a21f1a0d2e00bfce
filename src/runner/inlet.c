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

#define CUT_TEXT_LEAST 128 /* bytes: no shorter one was cut */
#define PIECE_HEAD 512	   /* bytes of a line in which its kind stands */

enum err_code inlet_open(struct runner *r, struct error *e)
{
	AUTO_FREE char *path = file_join(r->run_dir, "runtime/requests.jsonl");
	if (!r->launch.talks)
		return ERR_OK;
	r->requests_file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	return r->requests_file < 0 ? error_errno(e, "open '%s'", path) : ERR_OK;
}

void inlet_hide(struct runner *r, const struct js *texts)
{
	struct error e = ERROR_INIT;
	if (!r->secrets.count && js_len(texts))
		r->raw_skip = r->lines.buf.len;
	if (scrub_add_all(&r->secrets, texts, &e))
		runner_verdict(r, PHASE_FAILED, "too_many_secrets", "%s", e.text);
}

void inlet_add_secret(struct runner *r, const struct js *gate_data, const struct js *decision)
{
	const struct js *questions = js_get(gate_data, "questions");
	for (size_t i = 0; i < js_len(questions); i++)
		if (js_flag(js_at(questions, i), "secret", false))
			inlet_hide(r, js_get(js_get(decision, "answers"), js_str_or(js_at(questions, i), "id", "")));
}

char *inlet_clean(const struct runner *r, const char *text)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	if (!text || !r->secrets.count)
		return mem_strdup(text);
	strbuf_adds(&b, text);
	scrub_text(&r->secrets, &b);
	scrub_cut_end(&r->secrets, &b);
	return strbuf_detach(&b);
}

/* Adapters cut long texts: the rest of a secret at the end of one is no secret to look for any more. */
struct js *inlet_clean_js(const struct runner *r, const struct js *v)
{
	struct js *clean = scrub_js(&r->secrets, v);
	if (!r->secrets.count || (!js_get(clean, "truncated") && js_text_len(js_get(clean, "title")) < CUT_TEXT_LEAST))
		return clean;
	struct js *whole = js_object();
	for (struct js_iter it = js_iter(clean); it.key; js_next(&it)) {
		AUTO_FREE char *text = js_text_len(it.value) < CUT_TEXT_LEAST ? NULL : inlet_clean(r, js_text(it.value));
		js_set(whole, it.key, text ? js_string(text) : js_ref(it.value));
	}
	js_free(clean);
	return whole;
}

/* Text as it streams, in which a secret would lie in pieces. The whole comes in a line of its own. */
bool inlet_is_piece(const char *line, size_t len)
{
	static const char *const marks[] = { "elta\"", "_chunk\"" };
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
		if (memmem(line, len < PIECE_HEAD ? len : PIECE_HEAD, marks[i], strlen(marks[i])))
			return true;
	return false;
}

static void keep_request(struct runner *r, const char *line, size_t len)
{
	AUTO_STRBUF struct strbuf kept = STRBUF_INIT;
	struct error e = ERROR_INIT;
	strbuf_add(&kept, line, len);
	scrub_text(&r->secrets, &kept);
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
