/* What was acknowledged survives a power cut.  Threads write over a disk that remembers what was not synced; at many moments of its life copies are
 * made of what a cut could leave at that moment, and each is opened as a server opens its database after a cut.
 *
 * Each write has a number of its writer's own and changes two tables: `a` has a row for each write, `b` the data of the newest write of each slot.
 *
 *   SIGNALBOX_POWER_SEED=n        other moments, other luck (threads run as they like: the same seed is not the same run)
 *   SIGNALBOX_POWER_ROUNDS=n      the long run: n rounds of the load, and a cut before and after each sync */
#include "base/clock.h"
#include "base/str.h"
#include "db/db.h"
#include "db_power_disk.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/statvfs.h>

#define VARIANTS 20 /* of each cut */
#define CHECKERS 2
#define PROGRESS_IMAGES 1000
#define CUTS_WAITING_MAX 3
#define ROUNDS 3
#define MEMORY_BYTES_MIN (512u << 20)
#define SLOTS 2 /* as the queries below say */
#define LATER_MAX 16 /* writes of one thread that nobody waits for */
#define SMALL_BYTES_MAX 3000
#define LARGE_BYTES_MAX (300 << 10) /* more than what is gathered of the log, in one commit */
#define HUGE_BYTES (700 << 10)	    /* more than the writer's cache: the log is written, and looked at, before the commit */
#define DATA_SHIFT_BYTES 65536
#define FAILS_EACH 7 /* of those that fail at times: one in so many */
#define LOOKS_EACH 16
#define BEGINNINGS_MIN 3 /* of the log in each run */

static const struct db_migration migrations[] = {
	{ 1, "first", "CREATE TABLE a (seq INTEGER PRIMARY KEY, who INTEGER NOT NULL, n INTEGER NOT NULL, UNIQUE (who, n));"
		      "CREATE TABLE b (who INTEGER NOT NULL, slot INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (who, slot));" },
	{ 2, "second", "CREATE TABLE more (x INTEGER PRIMARY KEY); ALTER TABLE a ADD COLUMN more INTEGER; CREATE INDEX a_more ON a (more, n);" },
};

enum how { WAITS, AGAIN, LATER };

static const struct { enum how how; int ops, bytes_min, bytes_max, large_each; bool fails, looks; } writers[] = {
	{ WAITS, 120, 1, SMALL_BYTES_MAX, 3, false, false },
	{ AGAIN, 250, 1, SMALL_BYTES_MAX, 0, false, false },
	{ LATER, 400, 1, SMALL_BYTES_MAX, 40, false, false },
	{ WAITS, 150, 1, 200, 0, true, true },
	{ AGAIN, 250, 1, SMALL_BYTES_MAX, 0, true, false },
	{ WAITS, 20, HUGE_BYTES, HUGE_BYTES, 0, true, false },
};
#define WRITERS ARRAY_SIZE(writers)

/* One cut in so many, of what happens there. */
static const struct { unsigned usual, all; } chances[AT_COUNT] = {
	[AT_LOG_WRITE] = { 6000, 200 },
	[AT_LOG_SYNC] = { 300, 1 },
	[AT_LOG_SYNCED] = { 150, 1 },
	[AT_DB_WRITE] = { 9000, 300 },
	[AT_DB_SYNC] = { 30, 1 },
	[AT_DB_SYNCED] = { 30, 1 },
	[AT_OTHER] = { 10, 1 },
};

struct moment {
	struct cut *cut;
	enum disk_point point;
	uint64_t nr, seed;
	int64_t acked[WRITERS], begun[WRITERS];
	int version; /* of the schema, that db_open has promised */
	int next, done; /* variants */
	struct moment *after;
};

struct fixture {
	char *dir, *run, *path;
	struct disk disk;
	struct db *db;
	uint64_t seed;
	bool all;
	int rounds;
	char *random; /* what data is made of */
	_Atomic int64_t acked[WRITERS], begun[WRITERS];
	atomic_int version, in_flight, failed;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	struct moment *first, **last;
	int waiting;
	bool end;
	uint64_t moments, images;
};

static void blame(struct fixture *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void blame(struct fixture *f, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	if (!atomic_fetch_add(&f->failed, 1)) {
		fprintf(stderr, "SIGNALBOX_POWER_SEED=%" PRIu64 ": ", f->seed);
		vfprintf(stderr, fmt, ap);
		fputc('\n', stderr);
	}
	va_end(ap);
}

/* What is written. */

struct put {
	struct fixture *f;
	int who;
	int64_t n;
	size_t bytes;
	bool refuses;
};

static uint64_t mixed(uint64_t a, uint64_t b)
{
	uint64_t state = a ^ (b * 0xd6e8feb86659fd93u);
	return random_of(&state);
}

static const char *data_of(const struct fixture *f, int64_t who, int64_t n)
{
	return f->random + mixed((uint64_t)who, (uint64_t)n) % DATA_SHIFT_BYTES;
}

static enum err_code op_put(struct db_conn *c, void *arg, struct error *e)
{
	const struct put *p = arg;
	struct db_stmt *s = NULL;
	bool row;
	enum err_code rc = db_exec(c, e, "INSERT INTO a (seq, who, n) SELECT ifnull(max(seq), 0) + 1, ?, ? FROM a", "ii", (int64_t)p->who, p->n);
	if (!rc)
		rc = db_prepare(c, "REPLACE INTO b (who, slot, n, data) VALUES (?, ?, ?, ?)", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, p->who);
	db_bind_int(s, 2, p->n % SLOTS);
	db_bind_int(s, 3, p->n);
	db_bind_blob(s, 4, data_of(p->f, p->who, p->n), p->bytes);
	rc = db_step(s, &row, e);
	return rc || !p->refuses ? rc : error_set(e, ERR_STALE, "no");
}

static size_t bytes_of(const struct put *p, uint64_t *random)
{
	int min = writers[p->who].bytes_min, max = writers[p->who].bytes_max, each = writers[p->who].large_each;
	if (each && random_of(random) % (uint64_t)each == 0)
		min = max = LARGE_BYTES_MAX - (int)(random_of(random) % 4096);
	return (size_t)min + random_of(random) % (uint64_t)(max - min + 1);
}

static void acknowledge(const struct put *p)
{
	_Atomic int64_t *acked = &p->f->acked[p->who];
	int64_t now = atomic_load(acked);
	while (now < p->n && !atomic_compare_exchange_weak(acked, &now, p->n))
		;
}

static void put_then(void *arg, const struct error *e)
{
	struct put *p = arg;
	if (e)
		blame(p->f, "a write was refused: %s", e->text);
	else
		acknowledge(p);
	atomic_fetch_sub(&p->f->in_flight, 1);
	free(p);
}

static void put_later(struct put *p)
{
	struct error e = ERROR_INIT;
	while (atomic_load(&p->f->in_flight) >= LATER_MAX)
		sched_yield();
	struct put *own = NEW(struct put);
	*own = *p;
	atomic_fetch_add(&p->f->in_flight, 1);
	if (db_write_later(p->f->db, op_put, own, put_then, own, &e))
		blame(p->f, "a write was refused: %s", e.text);
}

static void put_now(struct put *p)
{
	struct error e = ERROR_INIT;
	enum err_code want = p->refuses ? ERR_STALE : ERR_OK;
	enum err_code rc = writers[p->who].how == AGAIN ? db_write_again(p->f->db, op_put, p, &e) : db_write(p->f->db, op_put, p, &e);
	if (rc != want)
		blame(p->f, "a write ended with %d: %s", (int)rc, e.text);
	else if (!rc)
		acknowledge(p);
}

/* What must hold of any database, whenever it is looked at. */
struct look {
	const struct fixture *f;
	int64_t least[WRITERS], most[WRITERS];
};

static enum err_code op_look(struct db_conn *c, void *arg, struct error *e);

struct writer { struct fixture *f; int who; int ops; };

static void look_beside(struct fixture *f)
{
	struct error e = ERROR_INIT;
	struct look l = { .f = f };
	for (size_t i = 0; i < WRITERS; i++) {
		l.least[i] = atomic_load(&f->acked[i]);
		l.most[i] = INT64_MAX;
	}
	if (db_read(f->db, op_look, &l, &e))
		blame(f, "beside the writers: %s", e.text);
}

static void *writer_main(void *arg)
{
	const struct writer *w = arg;
	struct fixture *f = w->f;
	struct put p = { .f = f, .who = w->who };
	int64_t n = atomic_load(&f->begun[w->who]);
	uint64_t random = mixed(f->seed, (uint64_t)n * WRITERS + (uint64_t)w->who);
	for (int i = 0; i < w->ops && !atomic_load(&f->failed); i++) {
		p.refuses = writers[w->who].fails && i % FAILS_EACH == FAILS_EACH - 1;
		p.n = p.refuses ? -1 : ++n;
		p.bytes = bytes_of(&p, &random);
		if (!p.refuses)
			atomic_store(&f->begun[w->who], n);
		if (writers[w->who].how == LATER)
			put_later(&p);
		else
			put_now(&p);
		if (writers[w->who].looks && i % LOOKS_EACH == 0)
			look_beside(f);
	}
	return NULL;
}

/* What must be there. */

static enum err_code look_whole(struct db_conn *c, struct error *e)
{
	struct db_stmt *s = NULL;
	bool row = false;
	enum err_code rc = db_prepare(c, "PRAGMA integrity_check", &s, e);
	if (!rc)
		rc = db_step(s, &row, e);
	if (rc)
		return rc;
	const char *text = row ? db_text(s, 0) : "";
	return str_eq(text, "ok") ? ERR_OK : error_set(e, ERR_IO, "integrity_check: %s", text);
}

static const struct { const char *sql, *what; } never[] = {
	{ "SELECT count(*) - ifnull(max(seq), 0) FROM a", "rows are missing in the order of commits" },
	{ "SELECT count(*) FROM a x JOIN a y ON y.who = x.who AND y.n = x.n + 1 WHERE y.seq < x.seq", "a writer's rows are not in its order" },
	{ "SELECT count(*) FROM a WHERE n < 1", "a write that failed is there" },
	{ "SELECT count(*) FROM b WHERE n IS NOT (SELECT max(n) FROM a WHERE a.who = b.who AND a.n % 2 = b.slot)", "a write is there in part" },
	{ "SELECT (SELECT count(*) FROM b) - (SELECT count(*) FROM (SELECT DISTINCT who, n % 2 FROM a))", "a write is there in half" },
};

static enum err_code look_writer(struct db_conn *c, const struct look *l, int who, struct error *e)
{
	int64_t n = 0, last = 0;
	enum err_code rc = db_number(c, e, &n, "SELECT count(*) FROM a WHERE who = ?", "i", (int64_t)who);
	if (!rc)
		rc = db_number(c, e, &last, "SELECT max(n) FROM a WHERE who = ?", "i", (int64_t)who);
	if (rc)
		return rc;
	if (n != last)
		return error_set(e, ERR_IO, "writer %d has %" PRId64 " rows, the last is %" PRId64, who, n, last);
	if (n < l->least[who] || n > l->most[who])
		return error_set(e, ERR_IO, "writer %d has %" PRId64 " rows; %" PRId64 " were acknowledged, %" PRId64 " begun", who, n, l->least[who], l->most[who]);
	return ERR_OK;
}

static enum err_code look_data(struct db_conn *c, const struct fixture *f, struct error *e)
{
	struct db_stmt *s = NULL;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT who, n, data FROM b", &s, e);
	while (!rc && !(rc = db_step(s, &row, e)) && row) {
		size_t len = 0;
		const void *data = db_blob(s, 2, &len);
		if (!len || len > HUGE_BYTES || memcmp(data, data_of(f, db_int(s, 0), db_int(s, 1)), len))
			rc = error_set(e, ERR_IO, "the data of writer %d's row %d is another", (int)db_int(s, 0), (int)db_int(s, 1));
	}
	return rc;
}

static enum err_code op_look(struct db_conn *c, void *arg, struct error *e)
{
	const struct look *l = arg;
	enum err_code rc = ERR_OK;
	int64_t n = 0;
	for (size_t i = 0; !rc && i < ARRAY_SIZE(never); i++) {
		rc = db_number(c, e, &n, never[i].sql, "");
		if (!rc && n)
			rc = error_set(e, ERR_IO, "%s (%" PRId64 ")", never[i].what, n);
	}
	for (int i = 0; !rc && i < (int)WRITERS; i++)
		rc = look_writer(c, l, i, e);
	return rc ? rc : look_data(c, l->f, e);
}

static enum err_code op_look_whole(struct db_conn *c, void *arg, struct error *e)
{
	enum err_code rc = look_whole(c, e);
	return rc ? rc : op_look(c, arg, e);
}

/* Opened, looked at, and written to once more. */
static enum err_code image_look(struct fixture *f, const struct moment *m, const char *path, struct error *e)
{
	struct db *db = NULL;
	struct look l = { .f = f };
	memcpy(l.least, m->acked, sizeof(l.least));
	memcpy(l.most, m->begun, sizeof(l.most));
	enum err_code rc = db_open(path, migrations, ARRAY_SIZE(migrations), &db, e);
	if (!rc)
		rc = db_read(db, op_look_whole, &l, e);
	struct put more = { .f = f, .who = 0, .n = m->begun[0] + 1, .bytes = 1 };
	if (!rc)
		rc = db_write(db, op_put, &more, e);
	db_close(db);
	AUTO_FREE char *backup = mem_printf("%s.backup-v1", path);
	if (!rc && m->version == (int)ARRAY_SIZE(migrations) && file_exists(backup))
		rc = error_set(e, ERR_IO, "the schema was the older one again");
	return rc;
}

static const char *const point_names[AT_COUNT] = {
	"a write to the log", "the log's sync (before)", "the log's sync (after)", "a write to the database", "the database's sync (before)",
	"the database's sync (after)", "another file",
};

/* What fails is left where it is. */
static void image_check(struct fixture *f, const struct moment *m, int variant)
{
	struct error e = ERROR_INIT;
	char *dir = NULL;
	if (file_tmpdir(f->dir, "cut", &dir, &e)) {
		blame(f, "%s", e.text);
		return;
	}
	cut_restore(m->cut, dir, variant, m->seed + (uint64_t)variant);
	AUTO_FREE char *path = file_join(dir, "x.db");
	if (image_look(f, m, path, &e))
		blame(f, "power cut at %s %" PRIu64 ", variant %d, in '%s': %s", point_names[m->point], m->nr, variant, dir, e.text);
	else if (file_remove_tree(dir, &e))
		blame(f, "%s", e.text);
	free(dir);
}

/* Moments. */

/* What is acknowledged now was acknowledged before the cut, what is begun later cannot be in it. */
static struct moment *moment_make(struct fixture *f, enum disk_point p, uint64_t nr, uint64_t seed)
{
	struct moment *m = NEW(struct moment);
	*m = (struct moment){ .cut = disk_cut(&f->disk), .point = p, .nr = nr, .seed = seed, .version = atomic_load(&f->version) };
	for (size_t i = 0; i < WRITERS; i++) {
		m->acked[i] = atomic_load(&f->acked[i]);
		m->begun[i] = atomic_load(&f->begun[i]);
	}
	return m;
}

static void moment_come(void *ctx, enum disk_point p, uint64_t nr)
{
	struct fixture *f = ctx;
	unsigned each = f->all ? chances[p].all : chances[p].usual;
	uint64_t seed = mixed(f->seed + (uint64_t)p, nr);
	if (seed % each || atomic_load(&f->failed))
		return;
	struct moment *m = moment_make(f, p, nr, seed);
	pthread_mutex_lock(&f->lock);
	while (f->waiting >= CUTS_WAITING_MAX)
		pthread_cond_wait(&f->changed, &f->lock);
	*f->last = m;
	f->last = &m->after;
	f->waiting++;
	f->moments++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

/* With the lock. */
static struct moment *moment_claim(struct fixture *f, int *ret_variant)
{
	while (!f->first && !f->end)
		pthread_cond_wait(&f->changed, &f->lock);
	struct moment *m = f->first;
	if (!m)
		return NULL;
	*ret_variant = m->next++;
	if (m->next == VARIANTS)
		f->first = m->after;
	if (!f->first)
		f->last = &f->first;
	return m;
}

static void *checker_main(void *arg)
{
	struct fixture *f = arg;
	struct moment *m;
	int variant = 0;
	pthread_mutex_lock(&f->lock);
	while ((m = moment_claim(f, &variant))) {
		pthread_mutex_unlock(&f->lock);
		if (!atomic_load(&f->failed))
			image_check(f, m, variant);
		pthread_mutex_lock(&f->lock);
		if (++f->images % PROGRESS_IMAGES == 0)
			print_message("%" PRIu64 " images of %" PRIu64 " moments\n", f->images, f->moments);
		if (++m->done < VARIANTS)
			continue;
		cut_free(m->cut);
		free(m);
		f->waiting--;
		pthread_cond_broadcast(&f->changed);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

/* The run. */

/* All is acknowledged: so it must be there when the power is cut and the next round goes on with what is left, a log that was not closed. */
static struct cut *round_cut(struct fixture *f)
{
	while (atomic_load(&f->in_flight))
		sched_yield();
	pthread_mutex_lock(&f->disk.lock);
	struct cut *cut = disk_cut(&f->disk);
	pthread_mutex_unlock(&f->disk.lock);
	return cut;
}

static void round_go_back(struct fixture *f, struct cut *cut)
{
	CHECK(file_remove_tree(f->run, NULL) == ERR_OK && file_mkdirs(f->run, 0700, NULL) == ERR_OK);
	cut_restore(cut, f->run, CUT_KEEPS_ALL + 1, f->seed);
	disk_forget(&f->disk);
	cut_free(cut);
}

static void round_run(struct fixture *f, size_t version, bool ends_with_cut)
{
	struct error e = ERROR_INIT;
	pthread_t threads[WRITERS];
	struct writer w[WRITERS];
	if (db_open(f->path, migrations, version, &f->db, &e)) {
		blame(f, "%s", e.text);
		return;
	}
	atomic_store(&f->version, (int)version);
	for (size_t i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){ f, (int)i, writers[i].ops };
		CHECK(pthread_create(&threads[i], NULL, writer_main, &w[i]) == 0);
	}
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	struct cut *cut = ends_with_cut && !f->failed ? round_cut(f) : NULL;
	db_close(TAKE_PTR(f->db));
	if (cut)
		round_go_back(f, cut);
}

static uint64_t number_given(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void random_make(struct fixture *f)
{
	uint64_t state = 1;
	size_t n = HUGE_BYTES + DATA_SHIFT_BYTES;
	f->random = mem_alloc(n);
	for (size_t i = 0; i + sizeof(uint64_t) <= n; i += sizeof(uint64_t)) {
		uint64_t x = random_of(&state);
		memcpy(f->random + i, &x, sizeof(x));
	}
}

/* In memory where there is room for it: nothing here needs a real disk. */
static const char *place(void)
{
	struct statvfs s;
	return !statvfs("/dev/shm", &s) && (uint64_t)s.f_bavail * s.f_frsize >= MEMORY_BYTES_MIN ? "/dev/shm" : "/tmp";
}

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	struct error e = ERROR_INIT;
	f->seed = number_given("SIGNALBOX_POWER_SEED", (uint64_t)clock_wall_ms());
	f->rounds = (int)number_given("SIGNALBOX_POWER_ROUNDS", 0);
	f->all = f->rounds > 0;
	if (!f->all)
		f->rounds = ROUNDS;
	assert_int_equal(file_tmpdir(place(), "sbpower", &f->dir, &e), ERR_OK);
	f->run = file_join(f->dir, "run");
	f->path = file_join(f->run, "x.db");
	assert_int_equal(file_mkdirs(f->run, 0700, &e), ERR_OK);
	random_make(f);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	f->last = &f->first;
	f->disk.point = moment_come;
	f->disk.ctx = f;
	disk_register();
	disk_start(&f->disk, f->run);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	disk_release(&f->disk);
	if (!f->failed)
		assert_int_equal(file_remove_tree(f->dir, &e), ERR_OK);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->changed);
	free(f->dir);
	free(f->run);
	free(f->path);
	free(f->random);
	free(f);
	return 0;
}

static void what_was_acknowledged_survives_a_power_cut(void **state)
{
	struct fixture *f = *state;
	pthread_t checkers[CHECKERS];
	for (int i = 0; i < CHECKERS; i++)
		CHECK(pthread_create(&checkers[i], NULL, checker_main, f) == 0);
	for (int i = 0; i < f->rounds && !f->failed; i++) /* by turns one ends with a cut, one with an orderly end */
		round_run(f, i == 0 ? 1 : ARRAY_SIZE(migrations), i % 2 == 0);
	pthread_mutex_lock(&f->lock);
	f->end = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	for (int i = 0; i < CHECKERS; i++)
		pthread_join(checkers[i], NULL);
	print_message("seed %" PRIu64 ": %" PRIu64 " moments, %" PRIu64 " images; the log was synced %" PRIu64 " times and begun %" PRIu64 " times, the database synced %" PRIu64 " times\n",
		f->seed, f->moments, f->images, f->disk.seen[AT_LOG_SYNCED], f->disk.log_begun, f->disk.seen[AT_DB_SYNCED]);
	for (int p = 0; p < AT_COUNT; p++)
		print_message("  %s: %" PRIu64 "\n", point_names[p], f->disk.seen[p]);
	assert_int_equal(f->failed, 0);
	assert_in_range(f->disk.log_begun, BEGINNINGS_MIN, UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_acknowledged_survives_a_power_cut, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
