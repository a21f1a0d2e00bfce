/* OpenAPI 3.1 out of the tables: routes.c says what there is, docs.c what each takes and gives, schemas.json what the things look like. */
#include "api/docs.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PROBLEM "application/problem+json"

static struct js *schema_ref(const char *name)
{
	AUTO_FREE char *path = mem_printf("#/components/schemas/%s", name);
	struct js *o = js_object();
	js_set_str(o, "$ref", path);
	return o;
}

static struct js *component_ref(const char *kind, const char *name)
{
	AUTO_FREE char *path = mem_printf("#/components/%s/%s", kind, name);
	struct js *o = js_object();
	js_set_str(o, "$ref", path);
	return o;
}

/* {"<type>": {"schema": ...}}; a word with a slash is a content type of its own. */
static void add_content(struct js *content, const char *what)
{
	struct js *media = js_object();
	if (strchr(what, '/')) {
		struct js *text = js_object();
		js_set_str(text, "type", "string");
		js_set(media, "schema", text);
		js_set(content, what, media);
		return;
	}
	js_set(media, "schema", schema_ref(what));
	js_set(content, "application/json", media);
}

static struct js *parameter(const char *in, const char *name, bool required, const char *summary, const char *schema)
{
	struct error e = ERROR_INIT;
	struct js *o = js_object();
	struct js *type = js_parse(schema, strlen(schema), &e);
	CHECK(type); /* the table's own text */
	js_set_str(o, "name", name);
	js_set_str(o, "in", in);
	js_set_str(o, "description", summary);
	if (required)
		js_set_bool(o, "required", true);
	js_set(o, "schema", type);
	return o;
}

static void add_query(struct js *parameters, const char *list)
{
	const char *word;
	size_t len, n;
	while (api_doc_word(&list, &word, &len, &n)) {
		const struct query_doc *q = api_query_docs;
		while (q->name && !(strlen(q->name) == len && memcmp(q->name, word, len) == 0))
			q++;
		CHECK(q->name);
		AUTO_FREE char *name = mem_strndup(word, n);
		js_push(parameters, parameter("query", name, false, q->summary, q->schema));
	}
}

static const struct { const char *name, *summary; } path_parameters[] = {
	{ "task", "A task's id, the unique beginning of one, or a name" }, { "run", "A run's id" }, { "gate", "A gate's id" }, { "path", "A path below the artifacts" },
	{ "name", "prompt.txt, llm_response.txt, diff.patch or setup.log" }, { "token", "A token's id or name" },
	{ "secret", "git:HOST[:PORT][/PATH] or ssh:HOST[:PORT][/PATH]" },
	{ "upload", "An upload's id" },
};

static const char *path_summary(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(path_parameters); i++)
		if (str_eq(path_parameters[i].name, name))
			return path_parameters[i].summary;
	return "Which one";
}

/* "/a/{x}/{rest*}" -> "/a/{x}/{rest}", and its parameters. */
static char *add_path(struct js *parameters, const char *pattern)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	for (const char *p = pattern; *p; p++) {
		if (*p == '*')
			continue;
		strbuf_addc(&path, *p);
		if (*p != '{')
			continue;
		AUTO_FREE char *name = mem_strndup(p + 1, strcspn(p + 1, "*}"));
		js_push(parameters, parameter("path", name, true, path_summary(name), "{\"type\":\"string\",\"minLength\":1}"));
	}
	return strbuf_detach(&path);
}

static void add_answer(struct js *responses, const char *word, size_t len)
{
	AUTO_FREE char *text = mem_strndup(word, len);
	char *what = strchr(text, ' ');
	if (what)
		*what++ = 0;
	struct js *one = js_get(responses, text);
	if (!one) {
		one = js_object();
		js_set_str(one, "description", str_eq(text, "101") ? "The connection is a WebSocket now" : str_eq(text, "204") ? "Done" : str_eq(text, "503") ? "Not ready" : "What was asked for");
		js_set(responses, text, one);
	}
	if (!what)
		return;
	if (!js_get(one, "content"))
		js_set(one, "content", js_object());
	add_content(js_get(one, "content"), what);
}

/* The problems that a route can answer with. */
static void add_problems(struct js *responses, const struct http_route *route, const struct api_doc *d)
{
	static const struct { const char *status; bool always; const char *name; } problems[] = {
		{ "400", true, "Invalid" }, { "401", false, "Unauthenticated" }, { "403", true, "Denied" }, { "404", false, "NotFound" }, { "409", false, "Conflict" },
		{ "413", false, "TooLarge" }, { "415", false, "UnsupportedMediaType" }, { "422", false, "Unprocessable" }, { "429", true, "Limit" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(problems); i++) {
		const char *s = problems[i].status;
		bool body = route->body_max > 0;
		bool has = problems[i].always || (str_eq(s, "401") && route->flags != ROUTE_OPEN) || (str_eq(s, "404") && strchr(route->pattern, '{')) ||
			(str_eq(s, "409") && !str_eq(route->method, "GET")) || (body && (str_eq(s, "413") || str_eq(s, "415"))) ||
			(str_eq(s, "422") && d->flags & DOC_IDEMPOTENT);
		if (has)
			js_set(responses, s, component_ref("responses", problems[i].name));
	}
	js_set(responses, "default", component_ref("responses", "Problem"));
}

static struct js *make_responses(const struct http_route *route, const struct api_doc *d)
{
	struct js *responses = js_object();
	for (const char *p = d->answers; *p;) {
		size_t n = strcspn(p, ",");
		add_answer(responses, p, n);
		p += n;
		p += strspn(p, ", ");
	}
	add_problems(responses, route, d);
	return responses;
}

static struct js *make_request(const struct api_doc *d)
{
	struct js *o = js_object(), *content = js_object();
	add_content(content, d->request);
	if (d->flags & DOC_MERGE)
		js_set(content, "application/merge-patch+json", js_ref(js_get(content, "application/json")));
	/* What holds nothing need not be sent. */
	js_set_bool(o, "required", !str_eq(d->request, "Nothing"));
	js_set(o, "content", content);
	return o;
}

static struct js *make_operation(const struct http_route *route, const struct api_doc *d, struct js *parameters)
{
	struct js *o = js_object(), *tags = js_array();
	add_query(parameters, d->query);
	if (d->flags & DOC_IDEMPOTENT)
		js_push(parameters, component_ref("parameters", "IdempotencyKey"));
	js_push_str(tags, d->tag);
	js_set_str(o, "operationId", d->id);
	js_set(o, "tags", tags);
	js_set_str(o, "summary", route->summary);
	AUTO_FREE char *text = mem_printf("%s.%s%s%s", route->summary, d->details ? " " : "", d->details ? d->details : "",
		route->flags == ROUTE_OWNER ? " For the server's owner, by its socket." : route->flags == ROUTE_SERVER ? " Not for the tokens of a project other than the default one." : "");
	js_set_str(o, "description", text);
	js_set_str(o, "x-scope", api_scope_name(route->flags));
	if (js_len(parameters))
		js_set(o, "parameters", js_ref(parameters));
	if (d->request)
		js_set(o, "requestBody", make_request(d));
	js_set(o, "responses", make_responses(route, d));
	if (route->flags == ROUTE_OPEN)
		js_set(o, "security", js_array());
	return o;
}

static void add_route(struct js *paths, const struct http_route *route)
{
	const struct api_doc *d = api_doc_of(route);
	AUTO_JS struct js *parameters = js_array();
	char method[16];
	if (!d)
		return;
	AUTO_FREE char *path = add_path(parameters, route->pattern);
	size_t n = 0;
	for (; route->method[n] && n + 1 < sizeof(method); n++)
		method[n] = (char)(route->method[n] | 0x20);
	method[n] = 0;
	if (!js_get(paths, path))
		js_set(paths, path, js_object());
	js_set(js_get(paths, path), method, make_operation(route, d, parameters));
}

char *api_openapi(void)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *doc = js_parse(api_schemas_json, api_schemas_json_len, &e);
	CHECK(doc); /* the build's own file */
	struct js *paths = js_object();
	js_set_str(js_get(doc, "info"), "version", SIGNALBOX_VERSION);
	js_set(doc, "paths", paths);
	for (const struct http_route *route = api_routes; route->method; route++)
		add_route(paths, route);
	return js_dump(doc);
}
