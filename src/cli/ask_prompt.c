/* Questions at the terminal. */
#include "cli/ask_prompt.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/keyboard.h"
#include "cli/text.h"
#include <string.h>

#define PROMPT_DIFF_LINES 40

/* What one typed line can be. */
struct typing {
	struct ask_prompt *p;
	struct strbuf line;
	enum typed how;
};

bool ask_can(const struct cli *c)
{
	return keyboard_is_there() && c->err.tty && !c->json && !c->quiet;
}

static void print(const struct cli *c, enum colour colour, const char *text)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	term_add(&c->err, &out, colour, text);
	term_write(&c->err, &out);
}

static bool was_settled(void *ctx)
{
	struct ask_prompt *p = ctx;
	struct js *now = NULL;
	if (ask_get(p->c, ask_id(p->gate), &now, NULL) || ask_is_open(now)) {
		js_free(now);
		return false;
	}
	js_free(p->settled);
	p->settled = now;
	return true;
}

static bool type_line(struct typing *t, bool secret)
{
	struct keyboard k = { .term = &t->p->c->err, .prompt = "> ", .secret = secret, .interrupted = t->p->interrupted, .stop = was_settled, .ctx = t->p };
	t->how = keyboard_line(&k, &t->line);
	if (secret || t->how == TYPED_END || t->how == TYPED_INTERRUPTED)
		print(t->p->c, COLOUR_NONE, "\n");
	if (t->how == TYPED_STOPPED)
		print(t->p->c, COLOUR_NONE, "\r\033[K");
	return t->how == TYPED_LINE;
}

/* ---- replies that every gate may take */

static const struct {
	const char *choice, *letter, *words;
} letters[] = {
	{ "approve", "y", "yes" }, { "approve_session", "s", "yes, and the same for the rest of this run" }, { "reject", "n", "no; it goes on without" }, { "abort", "a", "no; its turn ends" },
};

static struct js *body_of(const char *choice, const char *note)
{
	struct js *body = js_object();
	bool session = str_eq(choice, "approve_session");
	js_set_str(body, "decision", session ? "approve" : choice);
	if (session)
		js_set_str(body, "scope", "session");
	if (!str_empty(note))
		js_set_str(body, "note", note);
	return body;
}

/* "n too risky" is a reply and its note; with `slash` before the letter, where free text is possible too. NULL: it is no such reply. */
static struct js *reply_of(const struct js *gate, const char *line, bool slash)
{
	if (slash && *line++ != '/')
		return NULL;
	size_t n = strcspn(line, " ");
	for (size_t i = 0; n && i < ARRAY_SIZE(letters); i++)
		if (ask_takes(gate, letters[i].choice) && ((n == 1 && line[0] == letters[i].letter[0]) || (strlen(letters[i].choice) == n && strncmp(letters[i].choice, line, n) == 0)))
			return body_of(letters[i].choice, line + n + strspn(line + n, " "));
	return NULL;
}

static void say_letters(const struct ask_prompt *p, bool slash, bool secret)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(letters); i++)
		if (ask_takes(p->gate, letters[i].choice))
			strbuf_addf(&out, "  %s%s  %s\n", slash ? "/" : "", letters[i].letter, letters[i].words);
	strbuf_addf(&out, "  %sCtrl-D leaves it for later.\n", secret ? "" : "Words behind a letter are told to the agent; ");
	print(p->c, COLOUR_DIM, strbuf_str(&out));
}

static enum err_code ask_letter(struct typing *t, struct js **ret_body, struct error *e UNUSED)
{
	say_letters(t->p, false, false);
	while (!*ret_body && type_line(t, false)) {
		*ret_body = reply_of(t->p->gate, strbuf_str(&t->line), false);
		if (!*ret_body)
			print(t->p->c, COLOUR_YELLOW, "one of the letters above\n");
	}
	return ERR_OK;
}

/* ---- questions */

static void show_question(const struct ask_prompt *p, const struct js *question, size_t number)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const struct js *options = js_get(question, "options");
	bool free_text = js_flag(question, "free_text", false) || !js_len(options);
	ask_add_question(&out, question, number);
	print(p->c, COLOUR_NONE, strbuf_str(&out));
	if (ask_is_secret(question))
		print(p->c, COLOUR_DIM, js_len(options) && free_text ? "  What you type is not shown, and taken to the letter: no numbers of options.\n" : "  What you type is not shown.\n");
	else if (js_len(options))
		print(p->c, COLOUR_DIM, ask_takes_several(question) ? free_text ? "  Numbers, as 1,3, or your own words.\n" : "  Numbers, as 1,3.\n" : free_text ? "  A number, or your own words.\n" : "  A number.\n");
}

/* One question until there is an answer to it, or a reply to the whole gate, or no more typing. */
static enum err_code ask_one(struct typing *t, const struct js *question, size_t number, struct js *answers, struct js **ret_body, struct error *e)
{
	show_question(t->p, question, number);
	while (type_line(t, ask_is_secret(question))) {
		const char *line = strbuf_str(&t->line);
		*ret_body = ask_is_secret(question) && strlen(line) != 2 ? NULL : reply_of(t->p->gate, line, true); /* a note could be what was meant to be secret */
		if (*ret_body)
			return ERR_OK;
		if (!*line)
			continue;
		enum err_code rc = ask_take_text(question, line, answers, e);
		if (!rc)
			return ERR_OK;
		print(t->p->c, COLOUR_YELLOW, e->text);
		print(t->p->c, COLOUR_NONE, "\n");
		error_clear(e);
	}
	return ERR_OK;
}

static bool has_secret(const struct js *questions)
{
	for (size_t i = 0; i < js_len(questions); i++)
		if (ask_is_secret(js_at(questions, i)))
			return true;
	return false;
}

static enum err_code ask_questions_all(struct typing *t, struct js **ret_body, struct error *e)
{
	const struct js *questions = ask_questions(t->p->gate);
	AUTO_JS struct js *answers = t->p->given ? js_copy(t->p->given) : js_object();
	enum err_code rc = ERR_OK;
	say_letters(t->p, true, has_secret(questions));
	for (size_t i = 0; i < js_len(questions) && !rc && !*ret_body; i++) {
		if (js_get(answers, js_str_or(js_at(questions, i), "id", "?")))
			continue;
		rc = ask_one(t, js_at(questions, i), js_len(questions) > 1 ? i + 1 : 0, answers, ret_body, e);
		if (t->how != TYPED_LINE)
			return rc;
	}
	if (!rc && !*ret_body) {
		*ret_body = body_of("answer", NULL);
		js_set(*ret_body, "answer", js_ref(answers));
	}
	return rc;
}

/* ---- elicitations */

static bool is_required(const struct js *schema, const char *name)
{
	const struct js *required = js_get(schema, "required");
	for (size_t i = 0; i < js_len(required); i++)
		if (str_eq(js_text(js_at(required, i)), name))
			return true;
	return false;
}

static void show_member(const struct ask_prompt *p, const char *name, const struct js *schema, bool required)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const struct js *options = js_get(schema, "enum");
	strbuf_adds(&out, "    ");
	text_add_line(&out, js_str_or(schema, "title", name));
	strbuf_addf(&out, " (%s%s)", js_len(options) ? "a number" : str_eq(js_str(schema, "type"), "boolean") ? "yes or no" : js_str_or(schema, "type", "text"), required ? "" : ", may be empty");
	if (js_str(schema, "description")) {
		strbuf_adds(&out, ": ");
		text_add_line(&out, js_str(schema, "description"));
	}
	for (size_t i = 0; i < js_len(options); i++) {
		strbuf_addf(&out, "\n      %zu) ", i + 1);
		text_add_line(&out, js_text(js_at(options, i)) ? js_text(js_at(options, i)) : "?");
	}
	strbuf_addc(&out, '\n');
	print(p->c, COLOUR_NONE, strbuf_str(&out));
}

static void ask_member(struct typing *t, const char *name, const struct js *schema, bool required, struct js *content, struct js **ret_body)
{
	struct error e = ERROR_INIT;
	show_member(t->p, name, schema, required);
	while (type_line(t, false)) {
		const char *line = strbuf_str(&t->line);
		*ret_body = reply_of(t->p->gate, line, true);
		if (*ret_body || (!*line && !required) || (*line && !ask_take_value(name, schema, line, content, &e)))
			return;
		print(t->p->c, COLOUR_YELLOW, *line ? e.text : "it is needed");
		print(t->p->c, COLOUR_NONE, "\n");
	}
}

static enum err_code ask_content(struct typing *t, struct js **ret_body, struct error *e UNUSED)
{
	const struct js *schema = js_get(js_get(t->p->gate, "data"), "schema");
	AUTO_JS struct js *content = js_object();
	say_letters(t->p, true, false);
	for (struct js_iter it = js_iter(js_get(schema, "properties")); it.key && !*ret_body; js_next(&it)) {
		ask_member(t, it.key, it.value, is_required(schema, it.key), content, ret_body);
		if (t->how != TYPED_LINE)
			return ERR_OK;
	}
	if (!*ret_body) {
		*ret_body = body_of("answer", NULL);
		js_set(*ret_body, "answer", js_ref(content));
	}
	return ERR_OK;
}

/* ---- one gate */

static void show_gate(const struct ask_prompt *p)
{
	static const struct {
		const char *kind, *words;
	} kinds[] = { { "command", "wants to run" }, { "patch", "wants to change files" }, { "permission", "wants to be allowed more" }, { "elicitation", "wants to know" } };
	const char *words = "asks";
	AUTO_STRBUF struct strbuf head = STRBUF_INIT, matter = STRBUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kinds[i].kind, js_str(p->gate, "kind")))
			words = kinds[i].words;
	strbuf_addf(&head, "? the agent %s", words);
	if (js_str(p->gate, "deadline_at")) {
		strbuf_adds(&head, ", until ");
		text_add_line(&head, js_str(p->gate, "deadline_at"));
	}
	strbuf_addc(&head, '\n');
	print(p->c, COLOUR_YELLOW, strbuf_str(&head));
	ask_add_matter(&matter, p->gate, PROMPT_DIFF_LINES);
	print(p->c, COLOUR_NONE, strbuf_str(&matter));
}

static enum ask_end end_of(const struct typing *t)
{
	return t->how == TYPED_INTERRUPTED ? ASK_INTERRUPTED : t->how == TYPED_STOPPED ? ASK_ELSEWHERE : ASK_LEFT;
}

static void say_elsewhere(const struct ask_prompt *p)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	ask_add_settled(&out, p->settled);
	strbuf_addc(&out, '\n');
	print(p->c, COLOUR_YELLOW, strbuf_str(&out));
}

/* One round of typing and sending; *ret_again when what was typed does not fit. */
static enum err_code ask_round(struct ask_prompt *p, enum ask_end *ret, bool *ret_again, struct error *e)
{
	struct typing t = { .p = p };
	struct js *typed = NULL;
	enum err_code rc = js_len(ask_questions(p->gate)) ? ask_questions_all(&t, &typed, e)
		: str_eq(js_str(p->gate, "kind"), "elicitation") && ask_takes(p->gate, "answer") ? ask_content(&t, &typed, e) : ask_letter(&t, &typed, e);
	AUTO_JS struct js *body = typed;
	if (t.line.data)
		explicit_bzero(t.line.data, t.line.cap);
	strbuf_release(&t.line);
	*ret = end_of(&t);
	if (rc || !body)
		return rc;
	js_free(p->settled);
	p->settled = NULL;
	rc = ask_decide(p->c, p->gate, body, &p->settled, e);
	*ret = ASK_SETTLED;
	*ret_again = rc == ERR_UNPROCESSABLE || rc == ERR_INVALID;
	if (rc == ERR_CONFLICT && was_settled(p)) {
		*ret = ASK_ELSEWHERE;
		error_clear(e);
		rc = ERR_OK;
	}
	return rc;
}

enum err_code ask_person(struct ask_prompt *p, enum ask_end *ret, struct error *e)
{
	bool again = true;
	enum err_code rc = ERR_OK;
	show_gate(p);
	while (again) {
		again = false;
		rc = ask_round(p, ret, &again, e);
		if (!again)
			break;
		AUTO_STRBUF struct strbuf why = STRBUF_INIT;
		text_add_line(&why, e->text);
		strbuf_addc(&why, '\n');
		print(p->c, COLOUR_YELLOW, strbuf_str(&why));
		error_clear(e);
	}
	if (!rc && *ret == ASK_ELSEWHERE)
		say_elsewhere(p);
	return rc;
}
