/* Filling an answer up to what a JSON schema asks for (type, properties, required, enum, anyOf; nothing more). */
#include "model/schema.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

static struct js *schema_empty(const struct js *schema, int depth);

static void schema_fill(const struct js *schema, struct js *object, int depth)
{
	for (struct js_iter it = js_iter(js_get(schema, "properties")); it.key != NULL; js_next(&it))
		if (js_get(object, it.key) == NULL)
			js_set(object, it.key, schema_empty(it.value, depth + 1));
}

/* The type to use: of several, the first, but null where that is allowed. */
static const char *schema_type(const struct js *schema)
{
	const struct js *type = js_get(schema, "type");

	for (size_t i = 0; i < js_len(type); i++)
		if (str_eq(js_text(js_at(type, i)), "null"))
			return "null";
	if (js_type(type) == JS_ARRAY)
		type = js_at(type, 0);
	return js_text(type) != NULL ? js_text(type) : "null";
}

static struct js *schema_empty(const struct js *schema, int depth)
{
	const char *type = schema_type(schema);
	struct js *o;

	if (js_len(js_get(schema, "enum")) > 0)
		return js_copy(js_at(js_get(schema, "enum"), 0));
	if (js_len(js_get(schema, "anyOf")) > 0 && depth < SCHEMA_DEPTH_MAX)
		return schema_empty(js_at(js_get(schema, "anyOf"), 0), depth + 1);
	if (str_eq(type, "string"))
		return js_string("");
	if (str_eq(type, "integer") || str_eq(type, "number"))
		return js_int(0);
	if (str_eq(type, "boolean"))
		return js_bool(false);
	if (str_eq(type, "array"))
		return js_array();
	if (!str_eq(type, "object") || depth >= SCHEMA_DEPTH_MAX)
		return js_null();
	o = js_object();
	schema_fill(schema, o, depth);
	return o;
}

char *schema_answer(const struct js *schema, const struct js *value)
{
	AUTO_JS struct js *o = NULL;

	if (js_type(value) != JS_OBJECT && schema == NULL)
		return mem_strdup(js_text(value));
	if (js_type(value) == JS_OBJECT) {
		o = js_copy(value);
	} else {
		o = js_object();
		if (js_path(schema, "properties.status") != NULL)
			js_set_str(o, "status", "success");
		js_set_str(o, "summary", js_text(value));
	}
	schema_fill(schema, o, 0);
	return js_dump(o);
}
