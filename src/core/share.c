/* What one project may have of what all share (`projects: {NAME: {running, queued, uploads}}`), so that none takes it all.  The queue's rows are counted by
 * project once a tick, and only where such a limit is set; what comes and goes in between is added and taken off. */
#include "core/share.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "core/uploads.h"
#include <stdio.h>
#include <stdlib.h>

#define SHARES_MAX 1024 /* projects that have something in the queue */
#define QUEUE_LONG 10000 /* tasks; then it is counted ... */
#define TICKS_LONG 10	 /* ... this seldom: it is read whole */

struct share {
	char project[PROJECT_SIZE];
	int64_t queued;
};

struct shares {
	unsigned ticks;	      /* the scheduler's own */
	pthread_mutex_t lock; /* guards the rest */
	struct share of[SHARES_MAX];
	size_t count;
};

void shares_start(struct core *c)
{
	c->shares = NEW(struct shares);
	pthread_mutex_init(&c->shares->lock, NULL);
}

void shares_stop(struct core *c)
{
	if (!c->shares)
		return;
	pthread_mutex_destroy(&c->shares->lock);
	free(c->shares);
	c->shares = NULL;
}

/* With the lock. NULL: there are too many. */
static struct share *find(struct shares *s, const char *project)
{
	for (size_t i = 0; i < s->count; i++)
		if (str_eq(s->of[i].project, project))
			return &s->of[i];
	if (s->count == SHARES_MAX)
		return NULL;
	struct share *made = &s->of[s->count++];
	snprintf(made->project, sizeof(made->project), "%s", project);
	made->queued = 0;
	return made;
}

static enum err_code count_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct shares *counted = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT tasks.project, COUNT(*) FROM queue JOIN tasks ON tasks.id=queue.task GROUP BY 1", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row) {
		struct share *of = find(counted, db_text(s, 0));
		if (of)
			of->queued = db_int(s, 1);
	}
	db_done(s);
	return rc;
}

void shares_count(struct core *c)
{
	struct error e = ERROR_INIT;
	bool long_queue = atomic_load(&c->queued_about) > QUEUE_LONG;
	if (!conf_has_project_limit(c->config, "queued") || (long_queue && c->shares->ticks++ % TICKS_LONG))
		return;
	struct shares *counted = NEW(struct shares), *s = c->shares;
	enum err_code rc = db_read(c->db, count_op, counted, &e);
	if (rc)
		log_warn("queue: %s", e.text);
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; !rc && i < counted->count; i++)
		s->of[i] = counted->of[i];
	s->count = rc ? s->count : counted->count;
	pthread_mutex_unlock(&s->lock);
	free(counted);
}

enum err_code share_take_queued(struct core *c, const char *project, struct error *e)
{
	int64_t limit = conf_project_limit(c->config, project, "queued");
	struct shares *s = c->shares;
	if (limit == INT64_MAX)
		return ERR_OK;
	pthread_mutex_lock(&s->lock);
	struct share *of = find(s, project);
	bool fits = !of || of->queued < limit;
	if (of && fits)
		of->queued++;
	pthread_mutex_unlock(&s->lock);
	if (fits)
		return ERR_OK;
	error_set(e, ERR_LIMIT, "%lld tasks of the project '%s' wait in the queue already (projects.%s.queued)", (long long)limit, project, project);
	error_hint(e, "try again when some have ended");
	return ERR_LIMIT;
}

void share_leave_queue(struct core *c, const char *project)
{
	struct shares *s = c->shares;
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->count; i++)
		if (str_eq(s->of[i].project, project) && s->of[i].queued > 0)
			s->of[i].queued--;
	pthread_mutex_unlock(&s->lock);
}

enum err_code share_check_uploads(struct core *c, struct caller by, int64_t coming, struct error *e)
{
	int64_t limit = conf_project_limit(c->config, by.project, "uploads");
	AUTO_JS struct js *kept = NULL;
	if (limit == INT64_MAX)
		return ERR_OK;
	enum err_code rc = upload_list(c, by, &kept, e);
	if (rc || (int64_t)js_len(js_get(kept, "data")) + coming <= limit)
		return rc;
	error_set(e, ERR_LIMIT, "%lld uploads of the project '%s' are kept already (projects.%s.uploads)", (long long)limit, by.project, by.project);
	error_hint(e, "delete some (DELETE /v1/uploads/ID), or wait until they are old enough to go");
	return ERR_LIMIT;
}
