/* Idempotency keys: the rows, and the rider that writes them. */
#include "core/idempotency.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX ((size_t)64 << 10) /* longer ones are made again from what is there */
#define ANSWER_WAIT_MS 2000	      /* for the answer of a caller that came a moment before us */
#define ANSWER_POLL_MS 5
#define SWEEP_MAX 4096
#define SWEEP_INTERVAL_MS 60000

struct idem {
	struct core *core;
	char *who, *key, *task;
	char request[crypto_hash_sha256_BYTES * 2 + 1];
	int status;
	bool makes_task, found, lost_race, other;
	char made[ID_SIZE];
	char *answer;
	struct db_rider rider;
};

static void hash_part(crypto_hash_sha256_state *s, const void *data, size_t n)
{
	uint64_t length = n;
	crypto_hash_sha256_update(s, (const unsigned char *)&length, sizeof(length));
	crypto_hash_sha256_update(s, data, n);
}

static void hash_request(const struct idem_request *q, char ret[crypto_hash_sha256_BYTES * 2 + 1])
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state s;
	crypto_hash_sha256_init(&s);
	hash_part(&s, q->method, strlen(q->method));
	hash_part(&s, q->path, strlen(q->path));
	hash_part(&s, q->body, q->len);
	crypto_hash_sha256_final(&s, hash);
	sodium_bin2hex(ret, crypto_hash_sha256_BYTES * 2 + 1, hash, sizeof(hash));
}

/* The row of our key, if there is one. One that is too old counts as none: it is only waiting to be swept. */
static enum err_code look_op(struct db_conn *c, void *arg, struct error *e)
{
	struct idem *i = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT request, status, task, answer, created_at, created_mono, boot FROM idempotency WHERE principal=?1 AND key=?2", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, i->who);
	db_bind_text(s, 2, i->key);
	rc = db_step(s, &row, e);
	int64_t age = !row ? 0 : str_eq(db_text(s, 6), clock_boot_id()) ? clock_mono_ms() - db_int(s, 5) : clock_wall_ms() - db_int(s, 4);
	i->found = !rc && row && age <= IDEM_AGE_MS;
	if (i->found) {
		i->other = !str_eq(db_text(s, 0), i->request);
		i->status = (int)db_int(s, 1);
		snprintf(i->made, sizeof(i->made), "%s", db_is_null(s, 2) ? "" : db_text(s, 2));
		free(i->answer);
		i->answer = mem_strdup(db_text(s, 3));
	}
	db_done(s);
	return rc;
}

static enum err_code refuse_other(const struct idem *i, struct error *e)
{
	error_set(e, ERR_UNPROCESSABLE, "the Idempotency-Key '%.80s' was used for another request", i->key);
	error_hint(e, "a key belongs to one request and its repetitions; make a new one for a new request");
	return ERR_UNPROCESSABLE;
}

static enum err_code before_op(struct db_conn *c, void *arg, struct error *e)
{
	struct idem *i = arg;
	i->lost_race = false;
	enum err_code rc = look_op(c, i, e);
	if (rc || !i->found)
		return rc;
	i->lost_race = !i->other;
	return i->other ? refuse_other(i, e) : error_set(e, ERR_CONFLICT, "this was done already under the same Idempotency-Key");
}

static enum err_code newest_task(struct db_conn *c, char ret[ID_SIZE], struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	/* Rows are numbered upwards: the one that this transaction has made is the last. */
	enum err_code rc = db_prepare(c, "SELECT id FROM tasks WHERE rowid=(SELECT MAX(rowid) FROM tasks)", &s, e);
	if (rc)
		return rc;
	rc = db_step(s, &row, e);
	if (!rc && row)
		snprintf(ret, ID_SIZE, "%s", db_text(s, 0));
	db_done(s);
	return rc;
}

static enum err_code after_op(struct db_conn *c, void *arg, struct error *e)
{
	struct idem *i = arg;
	enum err_code rc = i->makes_task ? newest_task(c, i->made, e) : ERR_OK;
	return rc ? rc : db_exec(c, e, "INSERT OR REPLACE INTO idempotency(principal,key,request,status,task,created_at,created_mono,boot) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
		"sssisiis", i->who, i->key, i->request, (int64_t)i->status, i->made[0] ? i->made : NULL, clock_wall_ms(), clock_mono_ms(), clock_boot_id());
}

static enum err_code check_key(struct core *c, const char *key, struct error *e)
{
	size_t n = strlen(key);
	bool good = n > 0 && n <= IDEM_KEY_MAX;
	for (size_t i = 0; i < n; i++)
		good = good && key[i] > ' ' && key[i] < 0x7f;
	if (!good)
		return error_set(e, ERR_INVALID, "Idempotency-Key: expected 1 to %d visible ASCII characters", IDEM_KEY_MAX);
	if (atomic_load(&c->idem_about) < IDEM_KEYS_MAX)
		return ERR_OK;
	error_set(e, ERR_LIMIT, "%d idempotency keys of the last 24 hours are kept already", IDEM_KEYS_MAX);
	error_hint(e, "send the request without a key, or later");
	return ERR_LIMIT;
}

enum err_code idem_begin(struct core *c, const struct idem_request *q, struct idem **ret, bool *ret_found, struct error *e)
{
	enum err_code rc = check_key(c, q->key, e);
	if (rc)
		return rc;
	struct idem *i = NEW(struct idem);
	i->core = c;
	/* A token's name may be given again, to another project's. */
	i->who = str_eq(q->by.project, PROJECT_DEFAULT) ? mem_strdup(q->by.who) : mem_printf("%s@%s", q->by.who, q->by.project);
	i->key = mem_strdup(q->key);
	i->task = mem_strdup(q->task);
	i->status = q->status;
	i->makes_task = q->makes_task;
	i->rider = (struct db_rider){ before_op, after_op, i, true };
	hash_request(q, i->request);
	rc = db_read(c->db, look_op, i, e);
	if (!rc && i->found && i->other)
		rc = refuse_other(i, e);
	if (rc) {
		idem_free(i);
		return rc;
	}
	*ret_found = i->found;
	if (!i->found)
		db_ride(c->db, &i->rider);
	*ret = i;
	return ERR_OK;
}

bool idem_lost_race(const struct idem *i)
{
	return i && i->lost_race;
}

struct born {
	struct core *core;
	const char *id;
	char *out;
};

/* The task as it was answered when it was made. */
static enum err_code born_op(struct db_conn *c, void *arg, struct error *e)
{
	struct born *b = arg;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(c, b->id, &t, e);
	if (rc == ERR_NOT_FOUND)
		return error_set(e, ERR_GONE, "the task %s, which this Idempotency-Key made, was removed", b->id);
	if (rc)
		return rc;
	AUTO_FREE char *dir = core_task_dir(b->core, t.id);
	free(TAKE_PTR(t.reason));
	free(TAKE_PTR(t.error));
	free(TAKE_PTR(t.progress));
	js_free(TAKE_PTR(t.result));
	t.phase = PHASE_QUEUED;
	t.started_at = t.completed_at = t.beat_at = t.run_n = 0;
	t.last_seq = 1;
	b->out = task_to_text(&t, dir);
	return ERR_OK;
}

static enum err_code reply_born(struct idem *i, char **ret, struct error *e)
{
	struct born b = { .core = i->core, .id = i->made };
	enum err_code rc = db_read(i->core->db, born_op, &b, e);
	if (!rc)
		*ret = b.out;
	return rc;
}

static enum err_code reply_from_task(struct idem *i, char **ret, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	enum err_code rc = core_task(i->core, THE_SERVER, i->task, NULL, &task, e);
	if (!rc)
		*ret = js_dump(task);
	return rc;
}

enum err_code idem_reply(struct idem *i, int *ret_status, char **ret_text, struct error *e)
{
	int64_t until = clock_mono_ms() + ANSWER_WAIT_MS;
	enum err_code rc = ERR_OK;
	*ret_status = i->status;
	if (i->made[0])
		return reply_born(i, ret_text, e);
	while (!rc && !i->answer && !i->task && clock_mono_ms() < until) {
		poll(NULL, 0, ANSWER_POLL_MS);
		rc = db_read(i->core->db, look_op, i, e);
	}
	if (rc)
		return rc;
	if (!i->answer && i->task)
		return reply_from_task(i, ret_text, e);
	if (!i->answer)
		return error_set(e, ERR_CONFLICT, "this was done under the same Idempotency-Key, but the server ended before it had kept the answer");
	*ret_text = TAKE_PTR(i->answer);
	return ERR_OK;
}

struct keep {
	const struct idem *idem;
	const char *answer;
};

static enum err_code keep_op(struct db_conn *c, void *arg, struct error *e)
{
	const struct keep *k = arg;
	return db_exec(c, e, "UPDATE idempotency SET answer=?3 WHERE principal=?1 AND key=?2 AND task IS NULL", "sss", k->idem->who, k->idem->key, k->answer);
}

void idem_keep(struct idem *i, const char *answer)
{
	struct keep k = { .idem = i, .answer = answer };
	struct error e = ERROR_INIT;
	if (!i)
		return;
	atomic_fetch_add(&i->core->idem_about, 1);
	if (i->makes_task || strlen(answer) > ANSWER_MAX)
		return;
	db_ride(i->core->db, NULL);
	if (db_write(i->core->db, keep_op, &k, &e))
		log_warn("idempotency: the answer to a key was not kept: %s", e.text);
}

void idem_free(struct idem *i)
{
	if (!i)
		return;
	db_ride(i->core->db, NULL);
	free(i->who);
	free(i->key);
	free(i->task);
	free(i->answer);
	free(i);
}

static enum err_code sweep_op(struct db_conn *c, void *arg, struct error *e)
{
	int64_t *gone = arg;
	static const char *const statements[] = {
		"DELETE FROM idempotency WHERE (principal, key) IN (SELECT principal, key FROM idempotency WHERE boot=?1 AND created_mono<?2 LIMIT 4096)",
		"DELETE FROM idempotency WHERE (principal, key) IN (SELECT principal, key FROM idempotency WHERE (boot<?1 OR boot>?1) AND created_at<?2 LIMIT 4096)",
	};
	const int64_t before[] = { clock_mono_ms() - IDEM_AGE_MS, clock_wall_ms() - IDEM_AGE_MS };
	enum err_code rc = ERR_OK;
	for (size_t i = 0; i < ARRAY_SIZE(statements) && !rc; i++) {
		rc = db_exec(c, e, statements[i], "si", clock_boot_id(), before[i]);
		*gone += rc ? 0 : db_changes(c);
	}
	return rc;
}

static enum err_code count_op(struct db_conn *c, void *arg, struct error *e)
{
	return db_number(c, e, arg, "SELECT COUNT(*) FROM idempotency", "");
}

void idem_tick(struct core *c)
{
	int64_t gone = 0, count = 0;
	struct error e = ERROR_INIT;
	if (clock_mono_ms() < c->idem_next)
		return;
	enum err_code rc = db_read(c->db, count_op, &count, &e);
	if (!rc && count)
		rc = db_write(c->db, sweep_op, &gone, &e);
	if (rc)
		log_warn("idempotency: %s", e.text);
	else
		atomic_store(&c->idem_about, (unsigned long long)(count - gone));
	if (gone < SWEEP_MAX) /* else there is more to do at the next tick */
		c->idem_next = clock_mono_ms() + SWEEP_INTERVAL_MS;
}
