/* A patch for agents that have no apply_patch: each file's part as a Write, or as a Read and an Edit for each hunk.  Only the last call
 * counts as a step, so that a scenario counts alike whichever tools are offered. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/toolcall.h"
#include <string.h>

#define ADD "*** Add File: "
#define UPDATE "*** Update File: "
#define PATCH_CALLS_MAX 32

struct edits {
	const struct turn *turn;
	struct js *calls;
	char *path;	    /* of the present file, absolute */
	bool adds, open;    /* adds: a new file; open: there is something in old or new_text */
	bool refused;	    /* something that file tools cannot do */
	struct strbuf old_text, new_text;
};

static void call_add(struct edits *x, const char *tool, struct js *arguments_taken)
{
	js_set_str(arguments_taken, "file_path", x->path);
	js_push(x->calls, toolcall_function(tool, arguments_taken));
	x->refused = x->refused || js_len(x->calls) > PATCH_CALLS_MAX;
}

static void hunk_end(struct edits *x)
{
	struct js *o;

	if (!x->open)
		return;
	o = js_object();
	if (x->adds) {
		js_set_str(o, "content", strbuf_str(&x->new_text));
	} else {
		js_set_str(o, "old_string", strbuf_str(&x->old_text));
		js_set_str(o, "new_string", strbuf_str(&x->new_text));
	}
	call_add(x, x->adds ? "Write" : "Edit", o);
	strbuf_reset(&x->old_text);
	strbuf_reset(&x->new_text);
	x->open = false;
}

static void file_begin(struct edits *x, const char *name, size_t len, bool adds)
{
	free(x->path);
	x->path = mem_printf("%s/%.*s", x->turn->directory, (int)len, name);
	x->adds = adds;
	if (!adds)
		call_add(x, "Read", js_object());
}

static void text_line(struct edits *x, const char *line, size_t len)
{
	if (line[0] != '+') {
		strbuf_add(&x->old_text, line + 1, len - 1);
		strbuf_addc(&x->old_text, '\n');
	}
	if (line[0] != '-') {
		strbuf_add(&x->new_text, line + 1, len - 1);
		strbuf_addc(&x->new_text, '\n');
	}
	x->open = true;
}

static void patch_line(struct edits *x, const char *line, size_t len)
{
	bool marks = len >= 2 && memcmp(line, "@@", 2) == 0;

	if (marks || (len >= 3 && memcmp(line, "***", 3) == 0))
		hunk_end(x);
	if (str_starts(line, ADD))
		file_begin(x, line + strlen(ADD), len - strlen(ADD), true);
	else if (str_starts(line, UPDATE))
		file_begin(x, line + strlen(UPDATE), len - strlen(UPDATE), false);
	else if (str_starts(line, "*** Delete File: ") || str_starts(line, "*** Move to: "))
		x->refused = true;
	else if (x->path != NULL && len > 0 && !marks && strchr("+- ", line[0]) != NULL)
		text_line(x, line, len);
}

struct js *toolcall_edits(const struct turn *t, const char *patch)
{
	struct edits x = { .turn = t, .calls = js_array() };
	bool good;

	if (t->directory != NULL) {
		for (const char *line = patch; *line != '\0';) {
			size_t len = strcspn(line, "\n");

			patch_line(&x, line, len);
			line += len + (line[len] == '\n');
		}
		hunk_end(&x);
	}
	good = !x.refused && js_len(x.calls) > 0;
	for (size_t i = 0; i + 1 < js_len(x.calls); i++)
		toolcall_mark(js_at(x.calls, i), TURN_POLL_PREFIX);
	free(x.path);
	strbuf_release(&x.old_text);
	strbuf_release(&x.new_text);
	if (good)
		return x.calls;
	js_free(x.calls);
	return NULL;
}
