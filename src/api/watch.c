/* What a channel watches. */
#include "base/cleanup.h"
#include "api/ws.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WATCH_PAGE 64	   /* event lines taken at once */
#define CATCH_UP_TURN 64   /* pages of tasks that are behind, before the other connections' turn */
#define ALL HUB_ALL

/* One task. */
struct watch {
	char task[27];
	int64_t cursor;
	struct hub_sub *sub;
	bool greeted, behind, synced, over, ended;
};

struct watches {
	struct core *core;
	struct caller by;
	struct ws *ws;
	struct watch *list;
	size_t count;
	/* all tasks: */
	struct hub_sub *all;
	int64_t all_cursor;  /* in the ring of all */
	struct js *cursors;  /* id -> seq last sent; negative when the task has ended */
	char (*behind)[27];  /* tasks to be caught up from the database */
	size_t behind_count, behind_cap;
	struct js *hello;    /* not said yet */
	bool all_synced;
};

static void watch_wake(void *arg)
{
	struct watches *l = arg;
	ws_wake(l->ws);
}

static void say(struct watches *l, struct js *message_taken)
{
	AUTO_FREE char *text = js_dump(message_taken);
	js_free(message_taken);
	ws_send(l->ws, text, strlen(text));
}

static struct js *message_of(const char *type, const char *task)
{
	struct js *o = js_object();
	js_set_str(o, "type", type);
	js_set_str(o, "task", task);
	return o;
}

/* --- one task */

struct fill {
	struct watches *l;
	struct watch *w;
	int64_t cursor;
	bool blocked; /* no room for the rest of the page */
};

static void send_line(void *ctx, int64_t seq, const char *line)
{
	struct fill *f = ctx;
	if (f->blocked || !ws_has_room(f->l->ws)) {
		f->blocked = true;
		return;
	}
	ws_send(f->l->ws, line, strlen(line));
	f->cursor = seq;
	if (f->w && (core_line_is(line, "task.done\"") || core_line_begins_again(line)))
		f->w->over = !core_line_begins_again(line);
}

static void send_live(void *ctx, const char *line)
{
	struct watches *l = ctx;
	if (ws_has_room(l->ws)) /* live lines are dropped for slow readers */
		ws_send(l->ws, line, strlen(line));
}

static void greet(struct watches *l, struct watch *w, int64_t head)
{
	struct js *hello = message_of("hello", w->task);
	js_set_int(hello, "head", head);
	js_set_int(hello, "oldest", head ? 1 : 0);
	js_set_int(hello, "generation", core_generation(l->core, w->task));
	say(l, hello);
	w->greeted = true;
}

/* A page of the past. False when the task is gone or the database fails: the watch ends. */
static bool catch_up(struct watches *l, struct watch *w)
{
	struct fill f = { .l = l, .w = w, .cursor = w->cursor };
	int64_t head = 0;
	bool over = false;
	if (!w->greeted) {
		if (core_events(l->core, l->by, w->task, 0, 0, send_line, &f, &head, &over, NULL))
			return false;
		greet(l, w, head);
	}
	if (core_events(l->core, l->by, w->task, w->cursor, WATCH_PAGE, send_line, &f, &head, &over, NULL))
		return false;
	w->cursor = f.cursor;
	w->over = w->over || (over && w->cursor >= head);
	w->behind = f.blocked || w->cursor < head;
	return true;
}

static void finish(struct watches *l, struct watch *w)
{
	AUTO_JS struct js *task = NULL;
	struct js *end = message_of("end", w->task);
	if (core_task(l->core, l->by, w->task, NULL, &task, NULL) == ERR_OK) {
		js_set_str(end, "status", js_str(task, "status"));
		js_set(end, "reason", js_ref(js_get(task, "reason")));
	}
	say(l, end);
	w->ended = true;
}

static void watch_fill(struct watches *l, struct watch *w)
{
	while (w->behind && !w->ended && ws_has_room(l->ws))
		if (!catch_up(l, w))
			finish(l, w);
	if (w->behind || w->ended)
		return;
	struct fill f = { .l = l, .w = w, .cursor = w->cursor };
	int64_t before = w->cursor;
	hub_read(w->sub, w->cursor, WATCH_PAGE, send_line, &f, &w->behind);
	w->cursor = f.cursor;
	hub_read_live(w->sub, send_live, l);
	if (!w->synced && !w->behind && !f.blocked) {
		w->synced = true;
		say(l, message_of("sync", w->task));
	}
	if (w->over && !w->ended)
		finish(l, w);
	if (w->behind || f.cursor - before >= WATCH_PAGE)
		ws_wake(l->ws); /* there may be more; the others' turn first */
}

static void watch_drop(struct watches *l, size_t i)
{
	hub_unsubscribe(l->list[i].sub);
	l->list[i] = l->list[--l->count];
}

/* --- all tasks */

/* Where a line belongs: {"seq":N,...,"task":"ID",... */
static bool line_place(const char *line, int64_t *ret_seq, char ret_task[27])
{
	const char *at = strstr(line, "\"task\":\"");
	if (!str_starts(line, "{\"seq\":") || !at || strlen(at) < 8 + 26)
		return false;
	*ret_seq = strtoll(line + 7, NULL, 10);
	memcpy(ret_task, at + 8, 26);
	ret_task[26] = 0;
	return clock_is_id(ret_task);
}

static int64_t all_cursor_of(const struct watches *l, const char *task)
{
	int64_t v = js_i64(l->cursors, task, 0); /* who is not known yet has just begun */
	return v < 0 ? -v : v;
}

/* Ended tasks are kept too, since an event may still follow; when there are too many, the first of them are forgotten. */
static void all_cursor_set(struct watches *l, const char *task, int64_t seq, bool over)
{
	js_set_int(l->cursors, task, over ? -seq : seq);
	if (js_len(l->cursors) <= WATCH_CURSORS_MAX)
		return;
	for (struct js_iter it = js_iter(l->cursors); it.key; js_next(&it))
		if (js_num(it.value, 0) < 0) {
			AUTO_FREE char *key = mem_strdup(it.key);
			js_del(l->cursors, key);
			return;
		}
}

static void behind_add(struct watches *l, const char *task)
{
	if (l->behind_count == l->behind_cap) {
		l->behind_cap = l->behind_cap ? l->behind_cap * 2 : 16;
		l->behind = mem_grow(l->behind, l->behind_cap * sizeof(*l->behind));
	}
	snprintf(l->behind[l->behind_count++], sizeof(*l->behind), "%s", task);
}

static void all_line(void *ctx, int64_t n, const char *line)
{
	struct fill *f = ctx;
	struct watches *l = f->l;
	int64_t seq = 0;
	char task[27];
	if (f->blocked || !ws_has_room(l->ws)) {
		f->blocked = true;
		return;
	}
	f->cursor = n;
	if (!line || !line_place(line, &seq, task)) /* NULL: somebody else's */
		return;
	int64_t cursor = all_cursor_of(l, task);
	if (seq > cursor + 1) { /* commits overtook each other, or its beginning was not told */
		behind_add(l, task);
	} else if (seq == cursor + 1) {
		ws_send(l->ws, line, strlen(line));
		all_cursor_set(l, task, seq, core_line_is(line, "task.done\""));
	}
}

/* One page of one task that is behind; true when it is no more. */
static bool all_catch_up(struct watches *l, const char *task)
{
	int64_t head = 0, before = all_cursor_of(l, task);
	struct fill f = { .l = l, .cursor = before };
	bool over = false;
	if (core_events(l->core, l->by, task, before, WATCH_PAGE, send_line, &f, &head, &over, NULL)) {
		js_del(l->cursors, task); /* removed */
		return true;
	}
	all_cursor_set(l, task, f.cursor, over && f.cursor >= head);
	return !f.blocked && f.cursor >= head;
}

/* It fell out of the ring: each task that lives, and each that did, may have gone on. */
static void all_again(struct watches *l)
{
	AUTO_JS struct js *heads = js_object();
	l->all_cursor = hub_head(l->all);
	if (core_heads(l->core, l->by, NULL, heads, NULL)) {
		ws_close(l->ws, WS_TRY_LATER, "lagged");
		return;
	}
	l->behind_count = 0;
	for (struct js_iter it = js_iter(l->cursors); it.key; js_next(&it))
		if (js_num(it.value, 0) >= 0 && !js_get(heads, it.key))
			behind_add(l, it.key);
	for (struct js_iter it = js_iter(heads); it.key; js_next(&it))
		if (all_cursor_of(l, it.key) < js_num(it.value, 0))
			behind_add(l, it.key);
}

static void all_greet(struct watches *l)
{
	if (l->hello)
		say(l, TAKE_PTR(l->hello));
}

static void all_fill(struct watches *l)
{
	bool gap = false;
	all_greet(l);
	for (int i = 0; i < CATCH_UP_TURN && l->behind_count && ws_has_room(l->ws); i++)
		l->behind_count -= all_catch_up(l, l->behind[l->behind_count - 1]);
	if (l->behind_count) {
		if (ws_has_room(l->ws))
			ws_wake(l->ws);
		return;
	}
	if (!l->all_synced) {
		l->all_synced = true;
		say(l, message_of("sync", ALL));
	}
	struct fill f = { .l = l, .cursor = l->all_cursor };
	int64_t before = l->all_cursor;
	hub_read(l->all, l->all_cursor, WATCH_PAGE, all_line, &f, &gap);
	l->all_cursor = f.cursor;
	hub_read_live(l->all, send_live, l);
	if (gap)
		all_again(l);
	if (gap || l->behind_count || f.cursor - before >= WATCH_PAGE)
		ws_wake(l->ws); /* there may be more; the others' turn first */
}

void watches_fill(struct watches *l)
{
	for (size_t i = l->count; i-- > 0;) {
		watch_fill(l, &l->list[i]);
		if (l->list[i].ended)
			watch_drop(l, i);
	}
	if (l->all)
		all_fill(l);
}

/* --- subscribing */

static enum err_code check_after(const struct js *after, struct error *e)
{
	if (js_type(after) == JS_INT && js_num(after, -1) >= 0)
		return ERR_OK;
	if (js_type(after) != JS_NULL && js_type(after) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "after: expected a number of at least 0, or an object of them");
	if (js_len(after) > WATCH_CURSORS_MAX)
		return error_set(e, ERR_LIMIT, "after: %zu entries, at most %d are allowed", js_len(after), WATCH_CURSORS_MAX);
	for (struct js_iter it = js_iter(after); it.key; js_next(&it))
		if (js_type(it.value) != JS_INT || js_num(it.value, -1) < 0)
			return error_set(e, ERR_INVALID, "after.%.80s: expected a number of at least 0", it.key);
	return ERR_OK;
}

static enum err_code check_list(const struct js *tasks, struct error *e)
{
	if (js_type(tasks) != JS_ARRAY || !js_len(tasks))
		return error_set(e, ERR_INVALID, "tasks: expected a list of names and ids, or [\"*\"]");
	if (js_len(tasks) > WATCHES_MAX)
		return error_set(e, ERR_LIMIT, "tasks: %zu entries, at most %d are allowed", js_len(tasks), WATCHES_MAX);
	for (size_t i = 0; i < js_len(tasks); i++)
		if (!js_text(js_at(tasks, i)))
			return error_set(e, ERR_INVALID, "tasks[%zu]: expected a string, got %s", i, js_type_name(js_type(js_at(tasks, i))));
	return ERR_OK;
}

static bool is_all(const struct js *tasks)
{
	return js_len(tasks) == 1 && str_eq(js_text(js_at(tasks, 0)), ALL);
}

static struct watch *watch_find(struct watches *l, const char *id)
{
	for (size_t i = 0; i < l->count; i++)
		if (str_eq(l->list[i].task, id))
			return &l->list[i];
	return NULL;
}

/* The cursor of one: by the word it was asked for with, or by its id. */
static int64_t cursor_of(const struct js *after, const char *word, const char *id)
{
	return js_type(after) == JS_INT ? js_num(after, 0) : js_i64(after, word, js_i64(after, id, 0));
}

/* Fills one new watch, subscribed to nothing yet. */
static enum err_code watch_prepare(struct watches *l, struct watch *new, size_t made, const char *word, const struct js *after, struct error *e)
{
	struct watch *w = &new[made];
	int64_t head = 0;
	bool over = false;
	enum err_code rc = core_resolve(l->core, l->by, word, NULL, w->task, e);
	bool twice = !rc && watch_find(l, w->task);
	for (size_t i = 0; !rc && i < made; i++)
		twice = twice || str_eq(new[i].task, w->task);
	if (twice)
		return error_set(e, ERR_CONFLICT, "task %s is subscribed to already", word);
	w->cursor = rc ? 0 : cursor_of(after, word, w->task);
	w->behind = true;
	if (!rc)
		rc = core_events(l->core, l->by, w->task, 0, 0, NULL, NULL, &head, &over, e);
	if (!rc && w->cursor > head)
		return error_set(e, ERR_GONE, "after: task %s has %lld events, %lld is past its end", word, (long long)head, (long long)w->cursor);
	return rc;
}

/* A cursor for a task that is not asked for is a mistake that would lose events. */
static enum err_code check_cursors(const struct js *tasks, const struct watch *new, const struct js *after, struct error *e)
{
	for (struct js_iter it = js_iter(after); it.key; js_next(&it)) {
		bool known = false;
		for (size_t i = 0; i < js_len(tasks) && !known; i++)
			known = str_eq(it.key, js_text(js_at(tasks, i))) || str_eq(it.key, new[i].task);
		if (!known)
			return error_set(e, ERR_INVALID, "after.%.80s: it is not in tasks", it.key);
	}
	return ERR_OK;
}

static enum err_code add_some(struct watches *l, const struct js *tasks, const struct js *after, struct js *reply, struct error *e)
{
	size_t n = js_len(tasks);
	if (l->count + n > WATCHES_MAX)
		return error_set(e, ERR_LIMIT, "%zu tasks are watched already, at most %d can be", l->count, WATCHES_MAX);
	l->list = mem_grow(l->list, (l->count + n) * sizeof(*l->list));
	struct watch *new = l->list + l->count;
	memset(new, 0, n * sizeof(*new));
	for (size_t i = 0; i < n; i++) {
		enum err_code rc = watch_prepare(l, new, i, js_text(js_at(tasks, i)), after, e);
		if (rc)
			return rc;
	}
	enum err_code rc = check_cursors(tasks, new, after, e);
	if (rc)
		return rc;
	struct js *ids = js_array();
	for (size_t i = 0; i < n; i++) {
		new[i].sub = hub_subscribe(core_hub(l->core), new[i].task, watch_wake, l);
		js_push_str(ids, new[i].task);
	}
	l->count += n;
	js_set(reply, "tasks", ids);
	ws_wake(l->ws);
	return ERR_OK;
}

static const char *youngest_of(const struct js *after)
{
	const char *youngest = NULL;
	for (struct js_iter it = js_iter(after); it.key; js_next(&it))
		if (clock_is_id(it.key) && (!youngest || strcmp(it.key, youngest) > 0))
			youngest = it.key;
	return youngest;
}

/* With cursors: those tasks from there; younger ones, which came (and went) while the client was away, from their beginning.
 * Without: from now on; with 0: all that live, from their beginning. */
static void all_cursors(struct watches *l, const struct js *heads, const struct js *after, const char *youngest)
{
	for (struct js_iter it = js_iter(after); it.key; js_next(&it))
		if (clock_is_id(it.key)) {
			js_set_int(l->cursors, it.key, js_num(it.value, 0));
			behind_add(l, it.key);
		}
	for (struct js_iter it = js_iter(heads); it.key; js_next(&it)) {
		bool whole = js_type(after) == JS_INT || (youngest && strcmp(it.key, youngest) > 0);
		if (js_get(l->cursors, it.key))
			continue;
		js_set_int(l->cursors, it.key, whole ? 0 : js_num(it.value, 0));
		if (whole)
			behind_add(l, it.key);
	}
}

static void all_stop(struct watches *l)
{
	hub_unsubscribe(l->all);
	js_free(l->cursors);
	js_free(l->hello);
	l->all = NULL;
	l->cursors = l->hello = NULL;
	l->behind_count = 0;
}

static enum err_code add_all(struct watches *l, const struct js *after, struct js *reply, struct error *e)
{
	if (l->all)
		return error_set(e, ERR_CONFLICT, "all tasks are subscribed to already");
	if (js_type(after) == JS_INT && js_num(after, 0) != 0)
		return error_set(e, ERR_INVALID, "after: for all tasks give 0, or an object of id and number");
	AUTO_JS struct js *heads = js_object();
	const char *youngest = youngest_of(after);
	l->all = hub_subscribe_all(core_hub(l->core), l->by.project, watch_wake, l); /* first, so that nothing falls between */
	l->all_cursor = hub_head(l->all);
	l->all_synced = false;
	l->cursors = js_object();
	enum err_code rc = core_heads(l->core, l->by, youngest, heads, e);
	if (rc) {
		all_stop(l);
		return rc;
	}
	all_cursors(l, heads, after, youngest);
	l->hello = message_of("hello", ALL);
	js_set(l->hello, "heads", js_ref(heads));
	js_set(reply, "tasks", js_array());
	js_push_str(js_get(reply, "tasks"), ALL);
	return ERR_OK;
}

enum err_code watches_add(struct watches *l, const struct js *tasks, const struct js *after, struct js *reply, struct error *e)
{
	enum err_code rc = check_list(tasks, e);
	if (!rc)
		rc = check_after(after, e);
	if (rc)
		return rc;
	return is_all(tasks) ? add_all(l, after, reply, e) : add_some(l, tasks, after, reply, e);
}

static enum err_code remove_all(struct watches *l, struct error *e)
{
	if (!l->all)
		return error_set(e, ERR_NOT_FOUND, "all tasks are not subscribed to");
	all_stop(l);
	return ERR_OK;
}

enum err_code watches_remove(struct watches *l, const struct js *tasks, struct js *reply, struct error *e)
{
	char ids[WATCHES_MAX][27];
	enum err_code rc = check_list(tasks, e);
	if (rc || is_all(tasks))
		return rc ? rc : remove_all(l, e);
	for (size_t i = 0; i < js_len(tasks); i++) {
		const char *word = js_text(js_at(tasks, i));
		rc = core_resolve(l->core, l->by, word, NULL, ids[i], e);
		if (!rc && !watch_find(l, ids[i]))
			rc = error_set(e, ERR_NOT_FOUND, "task %s is not subscribed to", word);
		if (rc)
			return rc;
	}
	js_set(reply, "tasks", js_array());
	for (size_t i = 0; i < js_len(tasks); i++) {
		struct watch *w = watch_find(l, ids[i]);
		if (w)
			watch_drop(l, (size_t)(w - l->list));
		js_push_str(js_get(reply, "tasks"), ids[i]);
	}
	return ERR_OK;
}

struct watches *watches_new(struct core *c, struct caller by, struct ws *w)
{
	struct watches *l = NEW(struct watches);
	l->core = c;
	l->by = by;
	l->ws = w;
	return l;
}

void watches_free(struct watches *l)
{
	if (!l)
		return;
	while (l->count)
		watch_drop(l, l->count - 1);
	if (l->all)
		all_stop(l);
	free(l->behind);
	free(l->list);
	free(l);
}
