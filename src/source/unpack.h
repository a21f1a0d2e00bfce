/* signalbox-unpack: an archive in, a `git fast-import` stream out; the only program that parses archives.
 *
 *   fetch --> signalbox-unpack LIMITS   0: the archive (a file)   1: the stream   3: what is to be said, one JSON line
 *                 |-- pipe --> git fast-import --> one tree in a store
 *
 * It has no use for files, network, rights or a second process, and gives all of them up before it looks at the first byte
 * (unpack_walls.c).  Names from the archive never touch a file system: they are checked here, and become names in a git tree.
 * All is settled at the end, when every name and every link is known; until then the stream is worth nothing (`feature done`).
 *
 * The last line on 3: {"done":{"files","bytes","top":NAME|null,"has_git","has_attributes","has_ignore","left_out":N,"first_left_out":NAME|null}}
 * or {"error":{"code","text","hint"}}. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include "base/strbuf.h"
#include "source/try.h"
#include <stdbool.h>
#include <stdint.h>

#define UNPACK_REPORT_FD 3
#define UNPACK_NAME_MAX ((size_t)4096)	       /* bytes of an entry's name; git itself goes no further */
#define UNPACK_PART_MAX ((size_t)255)	       /* bytes of a part of it; what file systems take */
#define UNPACK_DEPTH_MAX 128		       /* parts of a name */
#define UNPACK_NAMES_MAX ((size_t)256 << 20)   /* bytes of all names and link targets */
#define UNPACK_LINK_MAX ((size_t)4095)	       /* bytes of a link's target */
#define UNPACK_HOPS_MAX 40		       /* links on the way of a link: what the kernel follows */
#define UNPACK_STEPS_MAX 8000000	       /* parts of link targets that are walked, all links together */
#define UNPACK_RATIO_FREE ((int64_t)64 << 20)  /* bytes that any archive may grow to, however small it is */
#define UNPACK_ENTRIES_PER_FILE 4	       /* entries read for each file allowed: directories and what is left out count too */
#define UNPACK_MEMORY_MAX ((uint64_t)1 << 30)  /* bytes of address space: what a hostile dictionary may ask for */
#define UNPACK_CPU_S 540
#define UNPACK_SHOWN_MAX ((size_t)160)	       /* bytes of a name in an error */

struct unpack_limits {
	int64_t files, bytes, file_bytes, ratio;
	bool keep_top; /* a single top-level directory stays */
};

enum unpack_kind { UNPACK_DIR, UNPACK_FILE, UNPACK_LINK, UNPACK_HARD };

struct unpack_entry {
	char *path;   /* clean: relative, no empty, "." or ".." part */
	char *target; /* of a link, as it is; of a hard link, clean */
	enum unpack_kind kind;
	bool executable;
	uint32_t mark;	/* of the blob, in the stream */
	uint32_t order; /* in the archive */
	int64_t size;
};

struct unpack_list {
	struct unpack_entry *v;
	size_t n, cap, names_bytes;
	char *top; /* after settling: the directory that was taken off, or NULL */
	int64_t bytes;
	size_t files;
};

/* unpack_name.c: rules on one name and on one link's target, by themselves. */
enum unpack_verdict { UNPACK_TAKE, UNPACK_LEAVE_GIT, UNPACK_LEAVE_OWN, UNPACK_LEAVE_MAC, UNPACK_IS_TOP };
/* *ret_path: without "./" and doubled slashes. UNPACK_LEAVE_*: it is not part of a source; UNPACK_IS_TOP: "." itself. */
MUST_USE enum err_code unpack_name_check(const char *raw, char **ret_path, enum unpack_verdict *ret, struct error *e);
MUST_USE enum err_code unpack_target_check(const char *path, const char *target, struct error *e);
/* Text from an archive, for people: on one line, cut at `max`. */
void unpack_add_shown(struct strbuf *out, const char *text, size_t max);
/* "entry 'NAME' RULE", with a hint. */
enum err_code unpack_refuse(struct error *e, enum err_code code, const char *name, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* unpack_list.c: rules on all of them together. */
MUST_USE enum err_code unpack_list_add(struct unpack_list *l, struct unpack_entry *taken, struct error *e);
MUST_USE enum err_code unpack_list_settle(struct unpack_list *l, const struct unpack_limits *limits, struct error *e);
bool unpack_list_has_name(const struct unpack_list *l, const char *name); /* as the last part of any path */
void unpack_list_release(struct unpack_list *l);

/* unpack_walls.c: no files, no network, no rights, no further process, from now on. */
MUST_USE enum err_code unpack_walls_close(struct error *e);
