/* What a request's head must be before anybody looks at what it says.  Where two readers of one message could disagree on its parts or its
 * end, nobody behind a proxy is safe: such a request is refused and its connection closed, since nothing behind it can be trusted.
 *
 * MHD before 1.0 is lenient here: it takes a folded line for part of the header's NAME, ends a value at a NUL, takes "Name :" for another
 * name, and does not look at a second Host.  It parses in place, so the head is still in memory as it came, with its separators made NUL:
 * a byte in it that belongs to nothing that MHD tells us of was hidden from us. */
#include "base/str.h"
#include "net/http.h"
#include <string.h>
#include <strings.h>

#define TOKEN_CHARS "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

struct head {
	const char *start, *end; /* in MHD's memory */
	size_t told;		 /* bytes of it that MHD has told us of */
	size_t lengths, codings, hosts;
	bool folded, bad_name, bad_value;
};

/* Within MHD's memory for a connection, so that there is room left for the reply's head. */
static size_t head_size(const struct http_request *r)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	return info ? info->header_size : 0;
}

static bool is_text(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
			return false;
	return true;
}

static bool is_inside(const struct head *h, const char *s, size_t n)
{
	return (uintptr_t)s >= (uintptr_t)h->start && (uintptr_t)s + n <= (uintptr_t)h->end;
}

static enum MHD_Result look_at_header(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_len, const char *value, size_t value_len)
{
	(void)kind;
	struct head *h = arg;
	h->lengths += strcasecmp(name, "Content-Length") == 0;
	h->codings += strcasecmp(name, "Transfer-Encoding") == 0;
	h->hosts += strcasecmp(name, "Host") == 0;
	h->bad_name = h->bad_name || name_len == 0 || strspn(name, TOKEN_CHARS) != name_len;
	h->bad_value = h->bad_value || (value && !is_text(value, value_len));
	/* "Name: value", in this order and next to each other */
	if (!value || !is_inside(h, name, name_len) || !is_inside(h, value, value_len) || value <= name + name_len)
		h->folded = true;
	else
		h->told += (size_t)(value - name) - 1 + value_len;
	return MHD_YES;
}

static enum MHD_Result look_at_argument(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_len, const char *value, size_t value_len)
{
	(void)kind, (void)name, (void)value;
	struct head *h = arg;
	h->told += name_len + value_len;
	return MHD_YES;
}

/* Nothing in the head was hidden from us. */
static bool is_whole(const struct head *h)
{
	size_t bytes = 0;
	if (!str_starts(MHD_get_version(), "0.")) /* parses more strictly, and not in place */
		return true;
	for (const char *c = h->start; c < h->end; c++)
		bytes += *c != '\0';
	return !h->folded && bytes == h->told;
}

static bool refuse(struct http_request *r, const char *why)
{
	error_set(request_refuse(r, 400), ERR_INVALID, "%s", why);
	return false;
}

static bool check_framing(struct http_request *r, const struct head *h)
{
	const char *coding = http_header(r, "Transfer-Encoding"), *length = http_header(r, "Content-Length");
	if (h->codings && h->lengths)
		return refuse(r, "the request has both Transfer-Encoding and Content-Length");
	if (h->codings > 1 || h->lengths > 1)
		return refuse(r, "the request gives its length twice");
	if (coding && strcasecmp(coding, "chunked") != 0) {
		error_set(request_refuse(r, 501), ERR_UNSUPPORTED, "the transfer coding '%s' is not known", coding);
		return false;
	}
	if (length && str_to_i64(length, "Content-Length", 0, INT64_MAX, &(int64_t){ 0 }, NULL))
		return refuse(r, "the Content-Length is not a length");
	return true;
}

/* "http://host/path" is as good as "/path" when it names the host that Host names (RFC 9112, 3.2.2). */
static bool check_target(struct http_request *r)
{
	size_t scheme = str_starts(r->path, "http://") ? 7 : str_starts(r->path, "https://") ? 8 : 0;
	const char *authority = r->path + scheme, *host = http_header(r, "Host");
	size_t n = strcspn(authority, "/");
	if (scheme && (!host || strlen(host) != n || strncasecmp(authority, host, n) != 0))
		return refuse(r, "the request's target names another host than its Host header");
	return true;
}

static bool check(struct http_request *r, struct head *h)
{
	if (h->bad_name)
		return refuse(r, "the request has a header whose name is not one");
	if (h->bad_value)
		return refuse(r, "the request has a header with control characters");
	if (!is_whole(h))
		return refuse(r, "the request's head has folded lines, NULs or stray spaces");
	if (h->hosts > 1)
		return refuse(r, "the request names its host twice");
	return check_framing(r, h) && check_target(r);
}

void head_check(struct http_request *r, const char *version)
{
	size_t size = head_size(r);
	struct head h = { .start = r->method, .end = r->method + size, .told = strlen(r->method) + strlen(r->path) + strlen(version) };
	MHD_get_connection_values_n(r->connection, MHD_HEADER_KIND, look_at_header, &h);
	MHD_get_connection_values_n(r->connection, MHD_GET_ARGUMENT_KIND, look_at_argument, &h);
	r->unsafe = !check(r, &h);
	if (r->unsafe)
		http_reply_header(r, "Connection", "close");
	else if (size > HTTP_HEAD_MAX)
		error_set(request_refuse(r, 431), ERR_LIMIT, "the head of the request has %zu bytes, more than the limit of %zu", size, HTTP_HEAD_MAX);
}
