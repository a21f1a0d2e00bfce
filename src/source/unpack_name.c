/* What a name in an archive may be.  The rules are those of a directory's snapshot (what git takes, and what is ours is left out),
 * and stricter where a name could mean more than it says. */
#include "source/unpack.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <ctype.h>
#include <stdarg.h>
#include <string.h>

#define CODEX_TASKS ".codex/tasks" /* our own state files; never part of a source */
#define MAC_FORKS "__MACOSX"
#define RULE_MAX ((size_t)600)
#define GENERAL_HINT "pack the project's own files under relative names: git archive -o FILE HEAD, or tar czf FILE -C DIR ."

void unpack_add_shown(struct strbuf *out, const char *text, size_t max)
{
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	size_t n = strlen(text);

	while (n && (text[n - 1] == '\n' || text[n - 1] == '\r') && n <= max)
		n--;
	str_add_printable(&shown, text, n > max ? max : n);
	for (const char *at = strbuf_str(&shown); *at; at++)
		if (*at == '\n' || *at == '\t') /* printable to a terminal, but not within a line */
			strbuf_adds(out, *at == '\n' ? "\\n" : "\\t");
		else
			strbuf_addc(out, *at);
	if (n > max)
		strbuf_adds(out, "...");
}

enum err_code unpack_refuse(struct error *e, enum err_code code, const char *name, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	AUTO_STRBUF struct strbuf rule = STRBUF_INIT, shown_rule = STRBUF_INIT; /* it may name others */
	va_list ap;

	unpack_add_shown(&shown, name, UNPACK_SHOWN_MAX);
	va_start(ap, fmt);
	strbuf_vaddf(&rule, fmt, ap);
	va_end(ap);
	unpack_add_shown(&shown_rule, strbuf_str(&rule), RULE_MAX);
	error_set(e, code, "entry '%s' %s", strbuf_str(&shown), strbuf_str(&shown_rule));
	error_hint(e, "%s", GENERAL_HINT);
	return code;
}

/* Backslashes part names on other systems, and in the eyes of some programs here. */
static size_t part_len(const char *s)
{
	return strcspn(s, "/\\");
}

/* Code points that HFS+ does not see in a name: U+200C-200F, U+202A-202E, U+206A-206F, U+FEFF. */
static size_t invisible_len(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;

	if (u[0] == 0xe2 && u[1] == 0x80 && ((u[2] >= 0x8c && u[2] <= 0x8f) || (u[2] >= 0xaa && u[2] <= 0xae)))
		return 3;
	if (u[0] == 0xe2 && u[1] == 0x81 && u[2] >= 0xaa && u[2] <= 0xaf)
		return 3;
	return u[0] == 0xef && u[1] == 0xbb && u[2] == 0xbf ? 3 : 0;
}

/* What HFS+ and NTFS would make of a part: no invisible characters, no case, nothing from a colon on, no dots or spaces at the end. */
static void part_fold(const char *part, size_t n, struct strbuf *out)
{
	for (const char *at = part; at < part + n && *at != ':';) {
		size_t skip = invisible_len(at);

		if (!skip)
			strbuf_addc(out, (char)tolower((unsigned char)*at));
		at += skip ? skip : 1;
	}
	while (out->len && (out->data[out->len - 1] == '.' || out->data[out->len - 1] == ' '))
		out->data[--out->len] = '\0';
}

static bool part_is(const char *part, size_t n, const char *name)
{
	return n == strlen(name) && memcmp(part, name, n) == 0;
}

static bool looks_like_git(const char *part, size_t n)
{
	AUTO_STRBUF struct strbuf folded = STRBUF_INIT;

	if (n < 4)
		return false;
	part_fold(part, n, &folded);
	return str_eq(strbuf_str(&folded), ".git") || str_eq(strbuf_str(&folded), "git~1");
}

static enum err_code check_part(const char *name, const char *part, size_t n, struct error *e)
{
	if (part_is(part, n, ".."))
		return unpack_refuse(e, ERR_INVALID, name, "leads out: it has the part '..'");
	if (n > UNPACK_PART_MAX)
		return unpack_refuse(e, ERR_TOO_LARGE, name, "has a part of %zu bytes, at most %zu are allowed", n, UNPACK_PART_MAX);
	if (!part_is(part, n, ".git") && looks_like_git(part, n))
		return unpack_refuse(e, ERR_INVALID, name, "has a part that other systems take for '.git'");
	return ERR_OK;
}

static enum err_code check_text(const char *name, struct error *e)
{
	size_t n = strlen(name);

	if (n == 0)
		return unpack_refuse(e, ERR_INVALID, name, "has an empty name");
	if (n > UNPACK_NAME_MAX)
		return unpack_refuse(e, ERR_TOO_LARGE, name, "has a name of %zu bytes, at most %zu are allowed", n, UNPACK_NAME_MAX);
	if (!str_is_utf8(name, n))
		return unpack_refuse(e, ERR_INVALID, name, "has a name that is not UTF-8");
	for (size_t i = 0; i < n; i++)
		if (iscntrl((unsigned char)name[i]))
			return unpack_refuse(e, ERR_INVALID, name, "has a control character in its name");
	if (name[0] == '/' || name[0] == '\\')
		return unpack_refuse(e, ERR_INVALID, name, "has an absolute name");
	if (isalpha((unsigned char)name[0]) && name[1] == ':')
		return unpack_refuse(e, ERR_INVALID, name, "begins with a drive letter");
	return ERR_OK;
}

static enum err_code clean(const char *name, struct strbuf *out, struct error *e)
{
	int depth = 0;

	for (const char *at = name; *at;) {
		size_t n = strcspn(at, "/");

		if (n && !part_is(at, n, ".")) {
			if (out->len)
				strbuf_addc(out, '/');
			strbuf_add(out, at, n);
			depth++;
		}
		at += n + (at[n] == '/');
	}
	return depth > UNPACK_DEPTH_MAX ? unpack_refuse(e, ERR_TOO_LARGE, name, "lies %d directories deep, at most %d are allowed", depth, UNPACK_DEPTH_MAX) : ERR_OK;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '/' || !path[n]);
}

static enum unpack_verdict judge(const char *path)
{
	if (!*path)
		return UNPACK_IS_TOP;
	if (is_below(path, MAC_FORKS))
		return UNPACK_LEAVE_MAC;
	for (const char *at = path; *at; at += part_len(at), at += *at != '\0')
		if (part_is(at, part_len(at), ".git"))
			return UNPACK_LEAVE_GIT;
	for (const char *at = path; at; at = strchr(at, '/'), at = at ? at + 1 : NULL)
		if (is_below(at, CODEX_TASKS))
			return UNPACK_LEAVE_OWN;
	return UNPACK_TAKE;
}

enum err_code unpack_name_check(const char *raw, char **ret_path, enum unpack_verdict *ret, struct error *e)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;

	TRY(check_text(raw, e));
	for (const char *at = raw; *at; at += part_len(at), at += *at != '\0')
		TRY(check_part(raw, at, part_len(at), e));
	TRY(clean(raw, &path, e));
	*ret = judge(strbuf_str(&path));
	*ret_path = strbuf_detach(&path);
	return ERR_OK;
}

enum err_code unpack_target_check(const char *path, const char *target, struct error *e)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t n = strlen(target);

	if (n == 0)
		return unpack_refuse(e, ERR_INVALID, path, "is a link to nothing");
	if (n > UNPACK_LINK_MAX)
		return unpack_refuse(e, ERR_TOO_LARGE, path, "is a link whose target has %zu bytes, at most %zu are allowed", n, UNPACK_LINK_MAX);
	if (!str_is_utf8(target, n))
		return unpack_refuse(e, ERR_INVALID, path, "is a link whose target is not UTF-8");
	for (size_t i = 0; i < n; i++)
		if (iscntrl((unsigned char)target[i]))
			return unpack_refuse(e, ERR_INVALID, path, "is a link with a control character in its target");
	if (target[0] == '/' || target[0] == '\\' || (isalpha((unsigned char)target[0]) && target[1] == ':'))
		return unpack_refuse(e, ERR_INVALID, path, "is a link that leads out: to an absolute name");
	AUTO_STRBUF struct strbuf folded = STRBUF_INIT;
	part_fold(name, strlen(name), &folded);
	if (str_eq(strbuf_str(&folded), ".gitmodules")) /* git refuses it too, in words of its own */
		return unpack_refuse(e, ERR_INVALID, path, "is a link in the place of a file that git reads");
	return ERR_OK;
}
