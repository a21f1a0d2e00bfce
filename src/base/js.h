/* JSON values behind one small facade (jansson inside js.c only, so that it can be replaced).
 * A struct js is one value, reference counted; a value may be shared between threads only while nobody writes it.
 * "taken" arguments pass their reference to the callee; getters return borrowed references.
 * Parsing is strict (RFC 8259, whole input, depth <= JS_DEPTH_MAX, no NUL in keys); a repeated member is allowed, the last
 * one wins, because agents do that. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JS_DEPTH_MAX 64

struct js;
enum js_type { JS_NULL, JS_BOOL, JS_INT, JS_REAL, JS_STRING, JS_ARRAY, JS_OBJECT };

/* NULL on error, `e` then says line, column and what was expected. */
MUST_USE struct js *js_parse(const char *text, size_t len, struct error *e);
MUST_USE struct js *js_load(const char *path, size_t max_bytes, struct error *e); /* parse a file */
struct js *js_ref(const struct js *v); /* NULL gives NULL */
void js_free(struct js *v);	 /* drops one reference; NULL is fine */
void js_cleanup(struct js **v);
#define AUTO_JS __attribute__((cleanup(js_cleanup)))

struct js *js_object(void);
struct js *js_array(void);
struct js *js_string(const char *s); /* NULL gives JSON null; invalid UTF-8 is replaced by U+FFFD */
struct js *js_string_n(const char *s, size_t n);
struct js *js_int(int64_t v);
struct js *js_real(double v);
struct js *js_bool(bool v);
struct js *js_null(void);
struct js *js_copy(const struct js *v); /* deep */

enum js_type js_type(const struct js *v); /* NULL is JS_NULL */
const char *js_type_name(enum js_type t);
bool js_equal(const struct js *a, const struct js *b);

/* Members: `o` may be NULL or not an object, then the answer is the default. */
struct js *js_get(const struct js *o, const char *key);
struct js *js_path(const struct js *o, const char *dotted); /* "model.providers.openai"; array index as a number */
const char *js_str(const struct js *o, const char *key);    /* NULL when absent or not a string */
const char *js_str_or(const struct js *o, const char *key, const char *def);
int64_t js_i64(const struct js *o, const char *key, int64_t def);
double js_f64(const struct js *o, const char *key, double def);
bool js_flag(const struct js *o, const char *key, bool def);
/* The value itself. */
const char *js_text(const struct js *v); /* NULL when not a string */
size_t js_text_len(const struct js *v);
int64_t js_num(const struct js *v, int64_t def);
double js_real_num(const struct js *v); /* 0 when not a real */
bool js_true(const struct js *v);

void js_set(struct js *o, const char *key, struct js *taken);
void js_set_str(struct js *o, const char *key, const char *s); /* NULL s: member is left out */
void js_set_int(struct js *o, const char *key, int64_t v);
void js_set_bool(struct js *o, const char *key, bool v);
void js_del(struct js *o, const char *key);
void js_merge(struct js *o, const struct js *from); /* shallow, `from` wins */

size_t js_len(const struct js *v); /* of an array or object, else 0 */
struct js *js_at(const struct js *array, size_t i);
void js_push(struct js *array, struct js *taken);
void js_push_str(struct js *array, const char *s);

/* for (struct js_iter it = js_iter(o); it.key; js_next(&it)) ... it.key, it.value; insertion order */
struct js_iter { const struct js *object; const char *key; struct js *value; void *pos; };
struct js_iter js_iter(const struct js *o);
void js_next(struct js_iter *it);

/* Compact, insertion order, one line. */
char *js_dump(const struct js *v); /* the caller frees */
void js_dump_to(const struct js *v, struct strbuf *out);
char *js_pretty(const struct js *v);

/* An object, member by member: into a tree (.tree), or at once as text (.text) when it is only to be written.  Keys are plain and come once each; NULL values
 * are null, and none is taken.  A member that is an object is ended before its owner goes on. */
struct js_put { struct js *tree; struct strbuf *text; bool begun; };
void js_put(struct js_put *p, const char *key, const struct js *v);
void js_put_map(struct js_put *p, const char *key, const struct js *v); /* NULL: {} */
void js_put_str(struct js_put *p, const char *key, const char *s);
void js_put_int(struct js_put *p, const char *key, int64_t v);
struct js_put js_put_object(struct js_put *p, const char *key);
void js_put_end(struct js_put *p);

/* Refuse members that are not in the NULL-ended list: "limits.memroy: unknown member, expected one of ...". */
MUST_USE enum err_code js_check_members(const struct js *o, const char *where, const char *const *allowed, struct error *e);
/* Typed members with errors that carry the path; absent leaves *ret as it was. */
MUST_USE enum err_code js_want_str(const struct js *o, const char *where, const char *key, const char **ret, struct error *e);
MUST_USE enum err_code js_want_i64(const struct js *o, const char *where, const char *key, int64_t min, int64_t max, int64_t *ret, struct error *e);
MUST_USE enum err_code js_want_bool(const struct js *o, const char *where, const char *key, bool *ret, struct error *e);
