/* Gates as files: the question, the decision that is linked into place once, the inbox. */
#include "core/gatefile.h"
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GATES_MODE 0711
#define DONE_NAME_MAX 200 /* bytes of a name that are kept in done/: a suffix has to fit */

static enum err_code open_in(const char *task_dir, const char *rel, int *ret_fd, struct error *e)
{
	AUTO_CLOSE int dir = open(task_dir, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return error_errno(e, "open '%s'", task_dir);
	return file_open_beneath(dir, rel, O_RDONLY | O_DIRECTORY, ret_fd, e);
}

static enum err_code make_dir(int at, const char *name, uid_t uid, gid_t gid, int *ret_fd, struct error *e)
{
	AUTO_CLOSE int fd = -1;
	if (mkdirat(at, name, GATES_MODE) < 0 && errno != EEXIST)
		return error_errno(e, "make '%s'", name);
	enum err_code rc = file_open_beneath(at, name, O_RDONLY | O_DIRECTORY, &fd, e);
	if (!rc && uid != (uid_t)-1 && fchown(fd, uid, gid) < 0)
		rc = error_errno(e, "give '%s' to uid %u", name, (unsigned)uid);
	if (!rc && ret_fd)
		*ret_fd = TAKE_FD(fd);
	return rc;
}

enum err_code gatefile_dirs(const char *task_dir, uid_t uid, gid_t gid, struct error *e)
{
	AUTO_CLOSE int dir = open(task_dir, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	AUTO_CLOSE int inbox = -1;
	if (dir < 0)
		return error_errno(e, "open '%s'", task_dir);
	enum err_code rc = make_dir(dir, "gates", uid, gid, NULL, e);
	if (!rc)
		rc = make_dir(dir, "inbox", uid, gid, &inbox, e);
	return rc ? rc : make_dir(inbox, "done", uid, gid, NULL, e);
}

static void add_form(const struct js *gate, struct strbuf *out)
{
	const struct js *data = js_get(gate, "data"), *choices = js_get(data, "choices"), *questions = js_get(data, "questions");
	const char *id = js_str_or(gate, "id", "?");
	strbuf_addf(out, "\n# To decide: copy this form into ../inbox/%s.yaml, without the '# ', and keep one decision.\n", id);
	strbuf_adds(out, "# It is taken by the server, or by the run itself when no server is there, and moved to ../inbox/done/.\n");
	for (size_t i = 0; i < js_len(choices); i++) {
		const char *word = js_text(js_at(choices, i));
		if (str_eq(word, "approve_session"))
			strbuf_adds(out, "# decision: approve\n# scope: session\n");
		else if (!str_eq(word, "answer"))
			strbuf_addf(out, "# decision: %s\n", word ? word : "?");
	}
	if (js_len(questions) || str_eq(js_str(gate, "kind"), "elicitation"))
		strbuf_adds(out, "# decision: answer\n# answer:\n");
	for (size_t i = 0; i < js_len(questions); i++)
		strbuf_addf(out, "#   %s: \"...\"\n", js_str_or(js_at(questions, i), "id", "?"));
	strbuf_adds(out, "# note: \"\"\n");
}

enum err_code gatefile_write(const char *task_dir, const struct js *gate, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *name = mem_printf("%s.yaml", js_str_or(gate, "id", ""));
	yaml_dump(gate, &text);
	add_form(gate, &text);
	enum err_code rc = open_in(task_dir, "gates", &dir, e);
	return rc ? rc : file_replace_at(dir, name, text.data, text.len, 0644, FILE_SYNC, e);
}

static enum err_code read_decision(int dir, const char *name, struct js **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(GATEFILE_MAX);
	enum err_code rc = file_read_at(dir, name, GATEFILE_MAX, &text, e);
	if (rc)
		return rc;
	AUTO_JS struct js *decision = js_parse(strbuf_str(&text), text.len, e);
	if (!decision)
		return error_wrap(e, "read 'gates/%s'", name);
	if (!decision_state(js_str_or(decision, "decision", ""))) { /* made by hand: it must not get into the log, which nobody could read on */
		error_set(e, ERR_INVALID, "'gates/%s' gives no decision that there is", name);
		error_hint(e, "remove that file; decisions by file go into inbox/");
		return ERR_INVALID;
	}
	*ret = js_ref(decision);
	return ERR_OK;
}

enum err_code gatefile_decision(const char *task_dir, const char *gate, struct js **ret, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	AUTO_FREE char *name = mem_printf("%s.decision", gate);
	enum err_code rc = open_in(task_dir, "gates", &dir, e);
	return rc ? rc : read_decision(dir, name, ret, e);
}

/* A whole file under a name of its own first: what is linked into place is never half a decision. */
static enum err_code write_candidate(int dir, const char *name, const struct js *decision, struct error *e)
{
	AUTO_FREE char *text = js_pretty(decision);
	AUTO_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return error_errno(e, "make 'gates/%s'", name);
	enum err_code rc = file_write_all(fd, text, strlen(text), e);
	if (!rc)
		rc = file_write_all(fd, "\n", 1, e);
	if (!rc && fsync(fd) < 0)
		rc = error_errno(e, "sync 'gates/%s'", name);
	return rc;
}

enum err_code gatefile_settle(const char *task_dir, const char *gate, const struct js *decision, struct js **ret_winner, bool *ret_won, struct error *e)
{
	char id[ID_SIZE];
	AUTO_CLOSE int dir = -1;
	clock_new_id(id);
	AUTO_FREE char *candidate = mem_printf(".%s.%s", gate, id);
	AUTO_FREE char *name = mem_printf("%s.decision", gate);
	enum err_code rc = open_in(task_dir, "gates", &dir, e);
	if (rc)
		return rc;
	rc = write_candidate(dir, candidate, decision, e);
	*ret_won = !rc && linkat(dir, candidate, dir, name, 0) == 0;
	if (!rc && !*ret_won && errno != EEXIST)
		rc = error_errno(e, "settle 'gates/%s'", name);
	unlinkat(dir, candidate, 0);
	if (!rc && fsync(dir) < 0) /* the loser too: what it reports as settled must stay so */
		rc = error_errno(e, "sync 'gates'");
	if (rc)
		return rc;
	if (*ret_won) {
		*ret_winner = js_copy(decision);
		return ERR_OK;
	}
	return read_decision(dir, name, ret_winner, e);
}

bool gatefile_inbox_gate(const char *name, char *ret_id, size_t size)
{
	const char *dot = strrchr(name, '.');
	if (!dot || (!str_eq(dot, ".yaml") && !str_eq(dot, ".yml")))
		return false;
	snprintf(ret_id, size, "%.*s", (int)(dot - name), name);
	return clock_is_id(ret_id);
}

enum err_code gatefile_parse(const char *text, size_t len, struct js **ret_body, struct error *e)
{
	static const char *const members[] = { "decision", "scope", "answer", "note" };
	AUTO_JS struct js *given = yaml_parse(text, len, e);
	AUTO_JS struct js *body = js_object();
	if (!given)
		return e ? e->code : ERR_INVALID;
	if (js_type(given) != JS_OBJECT || !js_str(given, "decision"))
		return error_set(e, ERR_INVALID, "it gives no decision");
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) { /* a copy of the whole gate's file with a decision added is fine too */
		const struct js *v = js_get(given, members[i]);
		if (v && js_type(v) != JS_NULL && !(js_text(v) && !js_text_len(v)))
			js_set(body, members[i], js_ref(v));
	}
	*ret_body = js_ref(body);
	return ERR_OK;
}

/* Somebody may still write it. A time that is not near now, on either side, says nothing of that. */
static bool is_fresh(const struct stat *st)
{
	int64_t age = clock_wall_ms() - ((int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000);
	return age < GATEFILE_FRESH_MS && age > -GATEFILE_FRESH_MS;
}

/* Whose it is and what it says are of the same file. */
static enum err_code read_inbox(int inbox, const char *name, struct stat *st, struct strbuf *ret, struct error *e)
{
	AUTO_CLOSE int fd = openat(inbox, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, st) < 0)
		return error_errno(e, "open '%s'", name);
	if (!S_ISREG(st->st_mode))
		return error_set(e, ERR_INVALID, "'%s' is not a regular file", name);
	enum err_code rc = file_read_fd(fd, GATEFILE_MAX, ret, e);
	return rc ? error_wrap(e, "'%s'", name) : ERR_OK;
}

/* done/ is not reached through a link. What cannot be moved is removed: else it would be taken again by every scan. */
static void move_to_done(int inbox, const char *name, const char *suffix)
{
	AUTO_CLOSE int done = -1;
	AUTO_FREE char *kept = mem_printf("%.*s%s", DONE_NAME_MAX, name, suffix);
	if (file_open_beneath(inbox, "done", O_RDONLY | O_DIRECTORY, &done, NULL) || renameat(inbox, name, done, kept) < 0)
		unlinkat(inbox, name, 0);
}

/* The dot-files of editors are not ours; done/ is no file. True when it was one for us. */
static bool look_at(int inbox, const char *name, inbox_take take, void *ctx)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(GATEFILE_MAX);
	struct error e = ERROR_INIT;
	struct stat st;
	if (name[0] == '.' || str_ends(name, "~") || fstatat(inbox, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(st.st_mode))
		return false;
	enum err_code rc = read_inbox(inbox, name, &st, &text, &e);
	struct inbox_file file = { .name = name, .text = rc ? NULL : strbuf_str(&text), .len = text.len, .problem = rc ? e.text : NULL, .owner = st.st_uid,
		.fresh = is_fresh(&st) };
	enum inbox_fate fate = take(ctx, &file);
	if (fate == INBOX_REMOVE)
		unlinkat(inbox, name, 0);
	else if (fate != INBOX_LEAVE)
		move_to_done(inbox, name, fate == INBOX_REFUSED ? ".refused" : "");
	return true;
}

void gatefile_inbox(const char *task_dir, inbox_take take, void *ctx)
{
	int inbox = -1;
	if (open_in(task_dir, "inbox", &inbox, NULL))
		return;
	DIR *d = fdopendir(inbox);
	if (!d) {
		close(inbox);
		return;
	}
	struct dirent *entry;
	int looked = 0;
	for (int seen = 0; seen < GATEFILE_ENTRIES_MAX && looked < GATEFILE_INBOX_MAX && (entry = readdir(d)); seen++)
		looked += look_at(dirfd(d), entry->d_name, take, ctx);
	closedir(d);
}
