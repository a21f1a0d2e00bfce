/* The server's requests as people are shown them (struct agent_ask's `data`). */
#include "agent/codex_ask.h"
#include "agent/codex_home.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define TITLE_MAX 160 /* bytes */

/* One line, cut between characters. */
static void set_title(struct js *data, const char *before, const char *text)
{
	AUTO_FREE char *all = mem_printf("%s%s", before, text ? text : "");
	size_t n = strcspn(all, "\n");
	if (n > TITLE_MAX)
		for (n = TITLE_MAX; n && ((unsigned char)all[n] & 0xC0) == 0x80;)
			n--;
	js_set(data, "title", js_string_n(all, n));
}

/* False: too big to be kept. */
static bool set_object(struct js *data, const char *key, const struct js *value)
{
	AUTO_FREE char *text = js_dump(value);
	if (strlen(text) > CODEX_OBJECT_MAX)
		return false;
	js_set(data, key, js_ref(value));
	return true;
}

bool codex_describe_command(struct codex *c UNUSED, const struct js *params, struct js *data)
{
	AUTO_FREE char *command = tell_as_typed(js_str_or(params, "command", ""));
	bool input = str_eq(js_str(params, "kind"), "writeStdin");
	const char *host = js_str(js_get(params, "networkApprovalContext"), "host");
	const char *reason = host && !js_str(params, "reason") ? host : js_str(params, "reason");
	if ((!command[0] && !reason) || strlen(command) > CODEX_OBJECT_MAX)
		return false; /* nobody allows what they do not see, and no rule may judge a piece of it */
	set_title(data, input ? "Type into a running command: " : host ? "Reach the network: " : "Run: ", command[0] ? command : reason);
	js_set_str(data, "command", command);
	if (input)
		js_set_bool(data, "stdin", true);
	js_set_str(data, "host", host);
	js_set_str(data, "cwd", js_str(params, "cwd"));
	agent_set_text(data, "reason", reason);
	return true;
}

static const char *inside_workspace(const char *path)
{
	return str_starts(path, CODEX_WORKSPACE "/") ? path + strlen(CODEX_WORKSPACE "/") : path;
}

static void add_lines(struct strbuf *out, char mark, const char *text)
{
	for (size_t n; *text; text += n) {
		n = strcspn(text, "\n");
		strbuf_addc(out, mark);
		strbuf_add(out, text, n);
		strbuf_addc(out, '\n');
		n += text[n] == '\n';
	}
}

static size_t count_lines(const char *text)
{
	size_t lines = 0;
	for (; *text; lines++) {
		size_t n = strcspn(text, "\n");
		text += n + (text[n] == '\n');
	}
	return lines;
}

/* Codex gives hunks for a changed file, and the whole text of a new or a deleted one. */
static void add_diff(struct strbuf *out, const char *path, const char *kind, const char *diff)
{
	bool add = str_eq(kind, "add"), del = str_eq(kind, "delete");
	strbuf_addf(out, "--- %s%s\n+++ %s%s\n", add ? "/dev/null" : "a/", add ? "" : path, del ? "/dev/null" : "b/", del ? "" : path);
	if (add)
		strbuf_addf(out, "@@ -0,0 +1,%zu @@\n", count_lines(diff));
	else if (del)
		strbuf_addf(out, "@@ -1,%zu +0,0 @@\n", count_lines(diff));
	if (add || del)
		add_lines(out, add ? '+' : '-', diff);
	else
		strbuf_adds(out, diff);
	if (out->len && out->data[out->len - 1] != '\n')
		strbuf_addc(out, '\n');
}

static void set_diff(struct js *data, const struct strbuf *diff)
{
	size_t n = diff->len < CODEX_DIFF_MAX ? diff->len : CODEX_DIFF_MAX;
	while (n < diff->len && n && ((unsigned char)diff->data[n] & 0xC0) == 0x80)
		n--;
	js_set(data, "diff", js_string_n(strbuf_str(diff), n));
	if (n < diff->len)
		js_set_int(data, "truncated", (int64_t)(diff->len - n));
}

/* All the files a patch touches are named: a rule may look at them. False when they are more than can be kept. */
bool codex_describe_patch(struct codex *c, const struct js *params, struct js *data)
{
	const struct js *changes = js_get(c->patches, js_str_or(params, "itemId", ""));
	AUTO_STRBUF struct strbuf names = STRBUF_INIT, diff = STRBUF_LIMIT(AGENT_LINE_MAX);
	AUTO_JS struct js *files = js_array();
	for (size_t i = 0; i < js_len(changes); i++) {
		const struct js *one = js_at(changes, i), *kind = js_get(one, "kind");
		const char *path = inside_workspace(js_str_or(one, "path", "?")), *moved = js_str(kind, "move_path");
		struct js *file = js_object();
		js_set_str(file, "path", path);
		js_set_str(file, "kind", js_str_or(kind, "type", "update"));
		js_push(files, file);
		strbuf_addf(&names, "%s%s", names.len ? ", " : "", path);
		add_diff(&diff, path, js_str_or(kind, "type", "update"), js_str_or(one, "diff", ""));
		if (!moved)
			continue;
		file = js_object();
		js_set_str(file, "path", inside_workspace(moved));
		js_set_str(file, "kind", "add");
		js_push(files, file);
	}
	const char *root = js_str(params, "grantRoot");
	set_title(data, names.len ? "Change " : root ? "Write below " : "Change files that Codex did not name", names.len ? strbuf_str(&names) : root);
	agent_set_text(data, "reason", js_str(params, "reason"));
	js_set_str(data, "root", root);
	set_diff(data, &diff);
	return set_object(data, "files", files);
}

bool codex_describe_permission(struct codex *c UNUSED, const struct js *params, struct js *data)
{
	const struct js *wanted = js_get(params, "permissions");
	AUTO_FREE char *text = js_dump(wanted);
	if (js_type(wanted) != JS_OBJECT)
		return false;
	set_title(data, "More permissions: ", js_str_or(params, "reason", text));
	agent_set_text(data, "reason", js_str(params, "reason"));
	js_set_str(data, "cwd", js_str(params, "cwd"));
	return set_object(data, "permissions", wanted);
}

/* Options are texts or {label, description}. */
static struct js *plain_options(const struct js *given)
{
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(given) && i < CODEX_QUESTIONS_MAX; i++) {
		const struct js *one = js_at(given, i);
		const char *label = js_text(one) ? js_text(one) : js_str(one, "label");
		if (str_empty(label))
			continue;
		struct js *option = js_object();
		agent_set_text(option, "label", label);
		agent_set_text(option, "description", js_str(one, "description"));
		js_push(list, option);
	}
	return list;
}

static struct js *question_make(const char *id, const struct js *given, const char *free_key, bool free_text, const char *secret_key)
{
	struct js *q = js_object(), *options = plain_options(js_get(given, "options"));
	bool has_options = js_len(options) > 0;
	js_set_str(q, "id", id);
	agent_set_text(q, "header", js_str(given, "header"));
	agent_set_text(q, "text", js_str_or(given, "question", ""));
	if (has_options)
		js_set(q, "options", options);
	else
		js_free(options);
	js_set_bool(q, "free_text", !has_options || js_flag(given, free_key, free_text));
	js_set_bool(q, "secret", js_flag(given, secret_key, false));
	return q;
}

bool codex_describe_input(struct codex *c UNUSED, const struct js *params, struct js *data)
{
	const struct js *given = js_get(params, "questions");
	struct js *list = js_array();
	js_set(data, "questions", list);
	for (size_t i = 0; i < js_len(given); i++) {
		const struct js *one = js_at(given, i);
		if (!js_str(one, "id") || !js_str(one, "question") || i == CODEX_QUESTIONS_MAX)
			return false;
		js_push(list, question_make(js_str(one, "id"), one, "isOther", false, "isSecret"));
	}
	set_title(data, "", js_str(js_at(given, 0), "question"));
	return js_len(list) > 0;
}

bool codex_describe_askuser(struct codex *c UNUSED, const struct js *params, struct js *data)
{
	const struct js *given = js_get(params, "arguments");
	struct js *list = js_array();
	js_set(data, "questions", list);
	if (str_empty(js_str(given, "question")))
		return false;
	js_push(list, question_make(CODEX_ASKUSER_ANSWER, given, "free_text", true, "secret"));
	set_title(data, "", js_str(given, "question"));
	return true;
}

static bool has_word(const struct js *list, const char *word)
{
	for (size_t i = 0; i < js_len(list); i++)
		if (str_eq(js_text(js_at(list, i)), word))
			return true;
	return false;
}

/* A form that asks for nothing is a yes or no. */
static struct js *elicitation_choices(const struct js *params, bool content)
{
	struct js *choices = js_array();
	js_push_str(choices, content ? "answer" : "approve");
	if (!content && has_word(js_get(js_get(params, "_meta"), "persist"), "session"))
		js_push_str(choices, "approve_session");
	js_push_str(choices, "reject");
	js_push_str(choices, "abort");
	return choices;
}

/* Codex asks in the same form whether a tool may be called at all. */
bool codex_is_tool_approval(const struct js *params)
{
	return str_eq(js_str(js_get(params, "_meta"), "codex_approval_kind"), "mcp_tool_call");
}

bool codex_describe_elicitation(struct codex *c UNUSED, const struct js *params, struct js *data)
{
	const char *server = js_str_or(params, "serverName", "a tool server"), *message = js_str(params, "message");
	const struct js *schema = js_get(params, "requestedSchema"), *arguments = js_get(js_get(params, "_meta"), "tool_params");
	bool content = js_len(js_get(schema, "properties")) > 0;
	if (!message)
		return false;
	AUTO_FREE char *before = mem_printf("%s: ", server);
	set_title(data, before, message);
	agent_set_text(data, "server", server);
	agent_set_text(data, "message", message);
	agent_set_text(data, "url", js_str(params, "url"));
	js_set(data, "choices", elicitation_choices(params, content));
	return (!content || set_object(data, "schema", schema)) && (!codex_is_tool_approval(params) || set_object(data, "arguments", arguments));
}
