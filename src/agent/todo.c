/* An agent's plan, told as todos whose ids stay.  Agents only ever show their whole list, and reword, insert and drop steps as they like: a step
 * is taken for the one it was when its text is the same, or else when it is at the same place. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define TODOS_MAX 200			 /* steps of one list; what is behind them is not told */
#define TODO_TEXT_MAX ((size_t)1 << 10) /* bytes of one step */

static const char *known_status(const char *status)
{
	static const char *const known[] = { "pending", "in_progress", "completed" };
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_eq(known[i], status))
			return known[i];
	return "pending";
}

static struct js *step_make(const struct js *given)
{
	struct js *step = js_object();
	const char *text = js_str_or(given, "text", "");
	size_t n = strlen(text);
	if (n > TODO_TEXT_MAX)
		for (n = TODO_TEXT_MAX; n && ((unsigned char)text[n] & 0xC0) == 0x80;)
			n--;
	js_set(step, "text", js_string_n(text, n));
	js_set_str(step, "status", known_status(js_str(given, "status")));
	return step;
}

static bool id_is_used(const struct js *steps, const char *id)
{
	for (size_t i = 0; i < js_len(steps); i++)
		if (str_eq(js_str(js_at(steps, i), "id"), id))
			return true;
	return false;
}

/* The old step with this text whose id is still free, the one at the same place first. */
static const char *id_by_text(const struct js *old, const struct js *steps, size_t place, const char *text)
{
	const struct js *here = js_at(old, place);
	if (str_eq(js_str(here, "text"), text) && !id_is_used(steps, js_str(here, "id")))
		return js_str(here, "id");
	for (size_t i = 0; i < js_len(old); i++)
		if (str_eq(js_str(js_at(old, i), "text"), text) && !id_is_used(steps, js_str(js_at(old, i), "id")))
			return js_str(js_at(old, i), "id");
	return NULL;
}

static void give_ids(struct agent *a, struct js *steps)
{
	for (size_t i = 0; i < js_len(steps); i++)
		js_set_str(js_at(steps, i), "id", id_by_text(a->todos, steps, i, js_str(js_at(steps, i), "text")));
	for (size_t i = 0; i < js_len(steps); i++) {
		const char *here = js_str(js_at(a->todos, i), "id");
		if (js_str(js_at(steps, i), "id"))
			continue;
		AUTO_FREE char *fresh = here && !id_is_used(steps, here) ? NULL : mem_printf("%lld", (long long)++a->todo_last);
		js_set_str(js_at(steps, i), "id", fresh ? fresh : here);
	}
}

static bool same_steps(const struct js *old, const struct js *steps)
{
	if (!old || js_len(old) != js_len(steps))
		return false;
	for (size_t i = 0; i < js_len(steps); i++)
		if (!str_eq(js_str(js_at(old, i), "id"), js_str(js_at(steps, i), "id")) || !str_eq(js_str(js_at(old, i), "text"), js_str(js_at(steps, i), "text")))
			return false;
	return true;
}

static void tell_updates(struct agent *a, const struct js *steps)
{
	for (size_t i = 0; i < js_len(steps); i++) {
		const struct js *step = js_at(steps, i);
		const char *was = js_str(js_at(a->todos, i), "status");
		if (str_eq(was, js_str(step, "status")))
			continue;
		struct js *o = js_copy(step);
		js_set_str(o, "was", was);
		agent_emit(a, "todo.update", o);
	}
}

void agent_todos(struct agent *a, struct js *list_taken)
{
	AUTO_JS struct js *list = list_taken;
	struct js *steps = js_array();
	for (size_t i = 0; i < js_len(list) && i < TODOS_MAX; i++)
		js_push(steps, step_make(js_at(list, i)));
	give_ids(a, steps);
	if (same_steps(a->todos, steps)) {
		tell_updates(a, steps);
	} else {
		struct js *o = js_object();
		js_set(o, "items", js_copy(steps));
		agent_emit(a, "todo.snapshot", o);
	}
	js_free(a->todos);
	a->todos = steps;
}
