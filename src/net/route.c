/* Which route a path means.  Patterns are taken apart once, at the start; a path is matched segment by segment as it came
 * (so that an encoded slash never separates) and only its parameters are decoded. */
#include "base/check.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http.h"
#include <string.h>

static size_t segment_len(const char *s)
{
	return strcspn(s, "/");
}

static struct segment segment_parse(const char *text, size_t len)
{
	if (len < 2 || text[0] != '{')
		return (struct segment){ SEGMENT_LITERAL, text, len };
	CHECK(text[len - 1] == '}');
	if (text[len - 2] == '*')
		return (struct segment){ SEGMENT_REST, text + 1, len - 3 };
	return (struct segment){ SEGMENT_ONE, text + 1, len - 2 };
}

static void pattern_parse(struct pattern *p, const struct http_route *route)
{
	size_t params = 0;
	p->route = route;
	const char *at = route->pattern;
	while (*at == '/') {
		at++;
		CHECK(!p->rest && p->n < HTTP_SEGMENTS_MAX);
		struct segment s = segment_parse(at, segment_len(at));
		p->rest = s.kind == SEGMENT_REST;
		params += s.kind != SEGMENT_LITERAL;
		p->segments[p->n++] = s;
		at += segment_len(at);
	}
	CHECK(p->n > 0 && params <= HTTP_PARAMS_MAX);
}

void routes_compile(struct http_server *s)
{
	while (s->cfg.routes[s->n_patterns].method)
		s->n_patterns++;
	s->patterns = mem_alloc(s->n_patterns * sizeof(struct pattern));
	for (size_t i = 0; i < s->n_patterns; i++)
		pattern_parse(&s->patterns[i], &s->cfg.routes[i]);
}

static bool literal_is(const struct segment *s, const char *raw, size_t len)
{
	if (len == s->len && memcmp(raw, s->text, len) == 0)
		return true;
	if (!memchr(raw, '%', len))
		return false;
	AUTO_STRBUF struct strbuf plain = STRBUF_INIT;
	return str_add_urldec(&plain, raw, len, false) && plain.len == s->len && memcmp(plain.data, s->text, s->len) == 0;
}

static bool pattern_matches(const struct pattern *p, const char *path, size_t segments)
{
	if (p->rest ? segments < p->n : segments != p->n)
		return false;
	for (size_t i = 0; i < p->n; i++) {
		const char *raw = path + 1;
		size_t len = segment_len(raw);
		switch (p->segments[i].kind) {
		case SEGMENT_LITERAL:
			if (!literal_is(&p->segments[i], raw, len))
				return false;
			break;
		case SEGMENT_ONE:
			if (len == 0)
				return false;
			break;
		case SEGMENT_REST:
			return *raw != '\0';
		}
		path = raw + len;
	}
	return true;
}

static bool param_add(struct http_request *r, const struct segment *s, const char *raw, size_t len)
{
	struct strbuf value = STRBUF_LIMIT(HTTP_HEADER_MEMORY);
	if (!str_add_urldec(&value, raw, len, false) || !str_is_utf8(strbuf_str(&value), value.len)) {
		strbuf_release(&value);
		return false;
	}
	r->params[r->n_params++] = (struct param){ s->text, s->len, strbuf_detach(&value) };
	return true;
}

static bool params_take(struct http_request *r, const struct pattern *p, const char *path)
{
	for (size_t i = 0; i < p->n; i++) {
		const char *raw = path + 1;
		size_t len = p->segments[i].kind == SEGMENT_REST ? strlen(raw) : segment_len(raw);
		if (p->segments[i].kind != SEGMENT_LITERAL && !param_add(r, &p->segments[i], raw, len))
			return false;
		path = raw + len;
	}
	return true;
}

static void allow_add(struct strbuf *allow, const char *method)
{
	if (allow->len)
		strbuf_adds(allow, ", ");
	strbuf_adds(allow, method);
	if (str_eq(method, "GET"))
		strbuf_adds(allow, ", HEAD");
}

/* "http://host/path" is as good as "/path" (RFC 9112, 3.2.2). */
static const char *path_start(const char *url)
{
	if (!str_starts(url, "http://") && !str_starts(url, "https://"))
		return url;
	const char *path = strchr(strchr(url, ':') + 3, '/');
	return path ? path : "/";
}

enum match route_find(struct http_request *r, struct strbuf *ret_allow)
{
	const char *path = path_start(r->path);
	const char *method = str_eq(r->method, "HEAD") ? "GET" : r->method;
	size_t segments = 0;
	for (const char *c = path; *c; c++)
		segments += *c == '/';
	if (*path != '/')
		return MATCH_NONE;
	for (size_t i = 0; i < r->server->n_patterns; i++) {
		const struct pattern *p = &r->server->patterns[i];
		if (!pattern_matches(p, path, segments))
			continue;
		if (str_eq(p->route->method, method)) {
			r->route = p->route;
			return params_take(r, p, path) ? MATCH_OK : MATCH_BAD;
		}
		allow_add(ret_allow, p->route->method);
	}
	return ret_allow->len ? MATCH_METHOD : MATCH_NONE;
}

size_t route_body_max(const struct http_route *route)
{
	return route->body_max == SIZE_MAX ? HTTP_BODY_MAX : route->body_max;
}
