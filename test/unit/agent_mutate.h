/* A recorded line in which one member is something else. */
#pragma once
#include "base/js.h"

static inline struct js *replacement(int kind)
{
	switch (kind) {
	case 0: return js_null();
	case 1: return js_bool(true);
	case 2: return js_int(-1);
	case 3: return js_real(1.5);
	case 4: return js_string("");
	case 5: return js_array();
	case 6: return js_object();
	default: return NULL; /* left out */
	}
}
#define REPLACEMENTS 8

/* A copy in which the n-th member, counted through all depths, is another thing; *n is left >= 0 when there are fewer. */
static inline struct js *mutate(const struct js *v, int *n, int kind)
{
	if (js_type(v) == JS_ARRAY) {
		struct js *list = js_array();
		for (size_t i = 0; i < js_len(v); i++)
			js_push(list, mutate(js_at(v, i), n, kind));
		return list;
	}
	if (js_type(v) != JS_OBJECT)
		return js_copy(v);
	struct js *o = js_object();
	for (struct js_iter it = js_iter(v); it.key; js_next(&it)) {
		struct js *value = (*n)-- == 0 ? replacement(kind) : mutate(it.value, n, kind);
		if (value)
			js_set(o, it.key, value);
	}
	return o;
}
