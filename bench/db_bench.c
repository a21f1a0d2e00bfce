/* What one data directory's database can do: durable single-row writes by T callers, and point reads.
 * usage: db_bench PATH [threads] [seconds]; prints one JSON line per measurement. */
#include "base/clock.h"
#include "base/str.h"
#include "db/db.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define THREADS_MAX 256
#define SECONDS_MAX 600
#define LATENCIES_MAX (1u << 20)

struct bench {
	struct db *db;
	db_op *op;
	bool writes;
	atomic_bool stop;
	atomic_uint_fast64_t next, failed;
	uint32_t *latency_us;
	atomic_size_t latencies;
};

static const struct db_migration migrations[] = {
	{ 1, "bench",
	  "CREATE TABLE task (id INTEGER PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL);"
	  "CREATE INDEX task_state ON task (state, at);" },
};

static enum err_code op_insert(struct db_conn *c, void *arg, struct error *e)
{
	int64_t id = *(int64_t *)arg;
	return db_exec(c, e, "INSERT INTO task (id, name, state, at) VALUES (?, ?, 'queued', ?)", "isi", id, "a task of the bench", id);
}

static enum err_code op_select(struct db_conn *c, void *arg, struct error *e)
{
	struct db_stmt *s = NULL;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT name, state, at FROM task WHERE id = ?", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, *(int64_t *)arg);
	return db_step(s, &row, e);
}

static void *caller(void *arg)
{
	struct bench *b = arg;
	struct error e = ERROR_INIT;
	while (!atomic_load_explicit(&b->stop, memory_order_relaxed)) {
		int64_t id = (int64_t)atomic_fetch_add(&b->next, 1) + 1;
		int64_t from = clock_mono_us();
		enum err_code rc = b->writes ? db_write(b->db, b->op, &id, &e) : db_read(b->db, b->op, &id, &e);
		if (rc && atomic_fetch_add(&b->failed, 1) == 0)
			fprintf(stderr, "db_bench: %s\n", e.text);
		size_t at = atomic_fetch_add(&b->latencies, 1);
		if (at < LATENCIES_MAX)
			b->latency_us[at] = (uint32_t)(clock_mono_us() - from);
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void measure(struct db *db, const char *what, db_op *op, bool writes, int threads, int seconds)
{
	struct bench b = { .db = db, .op = op, .writes = writes, .latency_us = calloc(LATENCIES_MAX, sizeof(uint32_t)) };
	if (!b.latency_us)
		return;
	if (writes)
		b.next = (uint_fast64_t)clock_wall_ms() * 1000;
	pthread_t t[THREADS_MAX];
	struct db_stats before, after;
	db_stats(db, &before);
	int64_t from = clock_mono_us();
	for (int i = 0; i < threads; i++)
		pthread_create(&t[i], NULL, caller, &b);
	struct timespec left = { .tv_sec = seconds };
	while (nanosleep(&left, &left))
		;
	b.stop = true;
	for (int i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	double took_s = (double)(clock_mono_us() - from) / 1e6;
	db_stats(db, &after);
	size_t n = b.latencies < LATENCIES_MAX ? b.latencies : LATENCIES_MAX;
	qsort(b.latency_us, n, sizeof(uint32_t), by_value);
	printf("{\"what\":\"%s\",\"threads\":%d,\"per_s\":%.0f,\"p50_us\":%u,\"p99_us\":%u,\"failed\":%zu,\"commits\":%llu}\n", what, threads,
		(double)b.latencies / took_s, n ? b.latency_us[n / 2] : 0, n ? b.latency_us[n - 1 - n / 100] : 0, (size_t)b.failed,
		(unsigned long long)(after.commits - before.commits));
	fflush(stdout);
	free(b.latency_us);
}

int main(int argc, char **argv)
{
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	int64_t threads = 64, seconds = 3;
	if (argc < 2 || (argc > 2 && str_to_i64(argv[2], "threads", 1, THREADS_MAX, &threads, &e)) ||
		(argc > 3 && str_to_i64(argv[3], "seconds", 1, SECONDS_MAX, &seconds, &e))) {
		fprintf(stderr, "usage: db_bench PATH [threads] [seconds] %s\n", e.text);
		return 2;
	}
	if (db_open(argv[1], migrations, 1, &db, &e)) {
		fprintf(stderr, "db_bench: %s\n", e.text);
		return 1;
	}
	measure(db, "write", op_insert, true, (int)threads, (int)seconds);
	measure(db, "write", op_insert, true, 1, (int)seconds);
	measure(db, "read", op_select, false, (int)threads, (int)seconds);
	db_close(db);
	return 0;
}
