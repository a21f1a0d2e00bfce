/* What is acceptable of a task's own words. */
#include "core/task_check.h"
#include "base/clock.h"
#include "base/str.h"
#include <string.h>

#define LABELS_MAX 32
#define LABEL_TEXT_MAX 256

enum err_code task_check_strings(const struct js *map, const char *where, size_t max, struct error *e)
{
	if (map && js_type(map) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected an object, got %s", where, js_type_name(js_type(map)));
	if (js_len(map) > max)
		return error_set(e, ERR_TOO_LARGE, "%s: %zu entries, at most %zu are allowed", where, js_len(map), max);
	for (struct js_iter it = js_iter(map); it.key; js_next(&it)) {
		if (!js_text(it.value))
			return error_set(e, ERR_INVALID, "%s.%s: expected a string, got %s", where, it.key, js_type_name(js_type(it.value)));
		if (str_empty(it.key) || strchr(it.key, '='))
			return error_set(e, ERR_INVALID, "%s: '%s' is not a usable name", where, it.key);
	}
	return ERR_OK;
}

enum err_code task_check_labels(const struct js *labels, struct error *e)
{
	enum err_code rc = task_check_strings(labels, "labels", LABELS_MAX, e);
	for (struct js_iter it = js_iter(labels); !rc && it.key; js_next(&it))
		if (strlen(it.key) > LABEL_TEXT_MAX || js_text_len(it.value) > LABEL_TEXT_MAX)
			rc = error_set(e, ERR_TOO_LARGE, "labels.%.40s: longer than %d bytes", it.key, LABEL_TEXT_MAX);
	return rc;
}

enum err_code task_check_name(const char *name, struct error *e)
{
	if (!str_is_name(name))
		return error_set(e, ERR_INVALID, "name '%.80s': expected a letter or digit, then up to 63 of letters, digits, '.', '_' and '-'", name);
	if (clock_is_id(name))
		return error_set(e, ERR_INVALID, "name '%s' looks like a generated id", name);
	return ERR_OK;
}
