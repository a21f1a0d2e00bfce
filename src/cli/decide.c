/* approve, reject, answer: what people decide. A secret is never taken from the words of a command: others can see those. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/ask_prompt.h"
#include "cli/interrupt.h"
#include "cli/text.h"
#include <string.h>

#define ANSWER_MAX ((size_t)64 << 10)
#define CONTENT_MAX ((size_t)256 << 10)

const struct opt approve_options[] = {
	{ "session", 0, OPT_FLAG, NULL, "the same again needs no question for the rest of the run" },
	{ "note", 0, OPT_STRING, "TEXT", "words for the agent and the record" },
	{ .name = NULL },
};
const struct opt reject_options[] = {
	{ "abort", 0, OPT_FLAG, NULL, "end the agent's turn instead of letting it go on without" },
	{ "note", 0, OPT_STRING, "TEXT", "words for the agent and the record" },
	{ .name = NULL },
};
const struct opt answer_options[] = {
	{ "option", 'o', OPT_INT, "N", "the Nth option of the question" },
	{ "set", 0, OPT_LIST, "QUESTION=TEXT", "the answer to one of several questions, by its id or number" },
	{ "json-content", 0, OPT_STRING, "FILE|-", "an object: what a form asks for, or answers by the questions' ids" },
	{ .name = NULL },
};

static enum err_code tell(struct cli *c, const struct js *gate)
{
	if (c->json)
		cli_json(c, gate);
	else
		cli_say(c, "signalbox: gate %s is %s; task %s goes on", ask_id(gate), js_str_or(gate, "state", "settled"), ask_task(gate));
	return ERR_OK;
}

static enum err_code send(struct cli *c, const struct js *gate, const struct js *body, struct error *e)
{
	AUTO_JS struct js *after = NULL;
	enum err_code rc = ask_decide(c, gate, body, &after, e);
	return rc ? rc : tell(c, after);
}

/* approve and reject. */
static enum err_code decide(struct cli *c, const char *decision, const char *scope, const char *note, struct error *e)
{
	AUTO_JS struct js *gate = NULL;
	AUTO_JS struct js *body = js_object();
	enum err_code rc = ask_find(c, c->args[0], &gate, e);
	js_set_str(body, "decision", decision);
	js_set_str(body, "scope", scope);
	js_set_str(body, "note", note);
	return rc ? rc : send(c, gate, body, e);
}

enum err_code cmd_approve(struct cli *c, struct error *e)
{
	return decide(c, "approve", cli_flag(c, "session") ? "session" : NULL, cli_opt_text(c, "note"), e);
}

enum err_code cmd_reject(struct cli *c, struct error *e)
{
	const char *note = cli_opt_text(c, "note");
	if (note && c->arg_count > 1)
		return error_set(e, ERR_USAGE, "takes WHY or --note, not both");
	return decide(c, cli_flag(c, "abort") ? "abort" : "reject", NULL, note ? note : c->arg_count > 1 ? c->args[1] : NULL, e);
}

/* ---- answer */

struct reply {
	struct cli *c;
	const struct js *gate;
	struct js *answers; /* by the questions' ids */
};

static enum err_code refuse_secret(const struct reply *r, const struct js *question, struct error *e)
{
	error_set(e, ERR_USAGE, "'%.80s' is secret, and the words of a command can be seen by others and are kept by your shell", js_str_or(question, "id", "?"));
	error_hint(e, "signalbox answer %s (asks without showing it), or: ... | signalbox answer %s -", ask_id(r->gate), ask_id(r->gate));
	return ERR_USAGE;
}

static const struct js *find_question(const struct reply *r, const char *word)
{
	const struct js *questions = ask_questions(r->gate);
	int64_t n = 0;
	for (size_t i = 0; i < js_len(questions); i++)
		if (str_eq(js_str(js_at(questions, i), "id"), word))
			return js_at(questions, i);
	if (js_len(questions) && !str_to_i64(word, "question", 1, (int64_t)js_len(questions), &n, NULL))
		return js_at(questions, (size_t)n - 1);
	return NULL;
}

static void add_ids(struct strbuf *out, const struct reply *r, bool open)
{
	const struct js *questions = ask_questions(r->gate);
	for (size_t i = 0; i < js_len(questions); i++) {
		const char *id = js_str_or(js_at(questions, i), "id", "?");
		if (open && js_get(r->answers, id))
			continue;
		strbuf_adds(out, out->len ? ", " : "");
		text_add_line(out, id);
	}
}

static enum err_code take_set(struct reply *r, const char *pair, struct error *e)
{
	size_t n = strcspn(pair, "=");
	AUTO_FREE char *word = mem_strndup(pair, n);
	const struct js *question = find_question(r, word);
	if (!pair[n])
		return error_set(e, ERR_USAGE, "--set takes QUESTION=TEXT");
	if (!question) {
		AUTO_STRBUF struct strbuf ids = STRBUF_INIT, shown = STRBUF_INIT;
		add_ids(&ids, r, false);
		text_add_line(&shown, word);
		return error_set(e, ERR_USAGE, "gate %s has no question '%s'; it has %s", ask_id(r->gate), strbuf_str(&shown), ids.len ? strbuf_str(&ids) : "none");
	}
	return ask_is_secret(question) ? refuse_secret(r, question, e) : ask_take_text(question, pair + n + 1, r->answers, e);
}

/* The one question that has no answer yet. */
static enum err_code the_open_one(const struct reply *r, const struct js **ret, struct error *e)
{
	const struct js *questions = ask_questions(r->gate);
	AUTO_STRBUF struct strbuf ids = STRBUF_INIT;
	size_t open = 0;
	for (size_t i = 0; i < js_len(questions); i++)
		if (!js_get(r->answers, js_str_or(js_at(questions, i), "id", "?"))) {
			*ret = js_at(questions, i);
			open++;
		}
	if (open == 1)
		return ERR_OK;
	add_ids(&ids, r, true);
	if (!open)
		error_set(e, ERR_USAGE, "gate %s has no question left for these words", ask_id(r->gate));
	else
		error_set(e, ERR_USAGE, "gate %s has %zu questions without an answer: %s", ask_id(r->gate), open, strbuf_str(&ids));
	error_hint(e, "signalbox answer %s --set QUESTION=TEXT ...", ask_id(r->gate));
	return ERR_USAGE;
}

static enum err_code read_stdin(struct strbuf *text, struct error *e)
{
	if (file_read_fd(STDIN_FILENO, ANSWER_MAX, text, e))
		return error_wrap(e, "read the answer");
	while (text->len && (text->data[text->len - 1] == '\n' || text->data[text->len - 1] == '\r'))
		text->data[--text->len] = 0;
	if (!text->len || strlen(text->data) != text->len)
		return error_set(e, ERR_USAGE, text->len ? "the answer on standard input is not text" : "standard input gives no answer");
	return ERR_OK;
}

static enum err_code take_option(struct reply *r, const struct js *question, struct error *e)
{
	const struct js *options = js_get(question, "options");
	int64_t n = cli_opt(r->c, "option")->number;
	if (n < 1 || n > (int64_t)js_len(options))
		return error_set(e, ERR_USAGE, "the question has %zu options, and no number %lld", js_len(options), (long long)n);
	struct js *list = js_array();
	js_push_str(list, js_str(js_at(options, (size_t)n - 1), "label"));
	js_set(r->answers, js_str_or(question, "id", "?"), list);
	return ERR_OK;
}

/* TEXT, - or --option: for the one question that is left. */
static enum err_code take_words(struct reply *r, const char *text, struct error *e)
{
	AUTO_STRBUF struct strbuf typed = STRBUF_LIMIT(ANSWER_MAX + 1);
	const struct js *question = NULL;
	enum err_code rc = the_open_one(r, &question, e);
	if (rc)
		return rc;
	if (cli_opt(r->c, "option")->set)
		return take_option(r, question, e);
	if (!str_eq(text, "-"))
		return ask_is_secret(question) ? refuse_secret(r, question, e) : ask_take_text(question, text, r->answers, e);
	rc = read_stdin(&typed, e);
	if (!rc)
		rc = ask_take_text(question, strbuf_str(&typed), r->answers, e);
	if (typed.data)
		explicit_bzero(typed.data, typed.cap);
	return rc;
}

static enum err_code send_answers(struct reply *r, const struct js *answer, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	js_set_str(body, "decision", "answer");
	js_set(body, "answer", js_ref(answer));
	return send(r->c, r->gate, body, e);
}

static enum err_code send_content(struct reply *r, const char *path, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(CONTENT_MAX);
	enum err_code rc = str_eq(path, "-") ? file_read_fd(STDIN_FILENO, CONTENT_MAX, &text, e) : file_read(path, CONTENT_MAX, &text, e);
	if (rc)
		return error_wrap(e, "--json-content");
	AUTO_JS struct js *content = js_parse(strbuf_str(&text), text.len, e);
	if (text.data)
		explicit_bzero(text.data, text.cap);
	if (!content)
		return error_wrap(e, "--json-content");
	return send_answers(r, content, e);
}

/* At the terminal: what is left. */
static enum err_code ask_rest(struct reply *r, struct error *e)
{
	struct ask_prompt p = { .c = r->c, .gate = r->gate, .interrupted = interrupt_watch(), .given = r->answers };
	enum ask_end end = ASK_LEFT;
	enum err_code rc = ask_person(&p, &end, e);
	AUTO_JS struct js *settled = p.settled;
	if (rc)
		return rc;
	if (end == ASK_SETTLED)
		return tell(r->c, settled);
	if (end == ASK_ELSEWHERE)
		return error_set(e, ERR_CONFLICT, "gate %s was settled by somebody else meanwhile", ask_id(r->gate));
	cli_say(r->c, "signalbox: gate %s still waits", ask_id(r->gate));
	r->c->exit_status = EXIT_HUMAN;
	return ERR_OK;
}

static enum err_code no_words(const struct reply *r, struct error *e)
{
	error_set(e, ERR_USAGE, "needs an answer, and there is no terminal to ask at");
	error_hint(e, js_len(ask_questions(r->gate)) ? "signalbox answer %s TEXT" : "signalbox answer %s --json-content FILE", ask_id(r->gate));
	return ERR_USAGE;
}

static bool has_open(const struct reply *r)
{
	AUTO_STRBUF struct strbuf ids = STRBUF_INIT;
	add_ids(&ids, r, true);
	return ids.len > 0 || !js_len(ask_questions(r->gate));
}

static enum err_code answer(struct reply *r, struct error *e)
{
	const char *text = r->c->arg_count > 1 ? r->c->args[1] : NULL, *content = cli_opt_text(r->c, "json-content");
	const struct opt_value *set = cli_opt(r->c, "set");
	bool words = text || cli_opt(r->c, "option")->set;
	enum err_code rc = ERR_OK;
	if ((text && cli_opt(r->c, "option")->set) || (content && (words || set->set)))
		return error_set(e, ERR_USAGE, "takes one of TEXT, --option and --json-content");
	if (content)
		return send_content(r, content, e);
	for (int i = 0; i < set->list_len && !rc; i++)
		rc = take_set(r, set->list[i], e);
	if (!rc && words)
		rc = take_words(r, text, e);
	if (rc)
		return rc;
	if (!has_open(r))
		return send_answers(r, r->answers, e);
	return ask_is_open(r->gate) && ask_can(r->c) ? ask_rest(r, e) : no_words(r, e);
}

enum err_code cmd_answer(struct cli *c, struct error *e)
{
	AUTO_JS struct js *gate = NULL;
	AUTO_JS struct js *answers = js_object();
	enum err_code rc = ask_find(c, c->args[0], &gate, e);
	struct reply r = { .c = c, .gate = gate, .answers = answers };
	if (!rc && !js_len(ask_questions(gate)) && !str_eq(js_str(gate, "kind"), "elicitation")) {
		error_set(e, ERR_USAGE, "gate %s is no question", ask_id(gate));
		error_hint(e, "signalbox approve %s, or signalbox reject %s", ask_id(gate), ask_id(gate));
		return ERR_USAGE;
	}
	return rc ? rc : answer(&r, e);
}
