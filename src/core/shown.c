/* Task objects as text, kept for those who poll one: what was shown stays true until something is committed; of a task that
 * lives for a second at most, as what it waits for (a model's answer, room on the disk) may change without a commit.
 * One generation for the whole database is coarse, and cannot be wrong: whoever got the answer to a write reads what he wrote. */
#include "core/shown.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <stdlib.h>
#include <string.h>

#define SHOWN_SLOTS 64
#define SHOWN_LIVE_MS 1000
#define SHOWN_REF_MAX 64		  /* bytes of an id or a name */
#define SHOWN_TEXT_MAX ((size_t)32 << 10) /* longer ones are made anew each time */

struct shown {
	pthread_mutex_t lock; /* guards slots */
	struct slot {
		char project[PROJECT_SIZE], ref[SHOWN_REF_MAX + 1];
		uint64_t generation;
		int64_t until_ms; /* monotonic */
		char *text;
	} slots[SHOWN_SLOTS];
};

struct shown *shown_new(void)
{
	struct shown *s = NEW(struct shown);
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void shown_free(struct shown *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < SHOWN_SLOTS; i++)
		free(s->slots[i].text);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static struct slot *slot_of(struct shown *s, const char *project, const char *ref)
{
	unsigned h = 5381;
	for (; *project; project++)
		h = h * 33 + (unsigned char)*project;
	for (; *ref; ref++)
		h = h * 33 + (unsigned char)*ref;
	return &s->slots[h % SHOWN_SLOTS];
}

static char *find(struct shown *s, const char *project, const char *ref, uint64_t generation)
{
	char *text = NULL;
	pthread_mutex_lock(&s->lock);
	const struct slot *slot = slot_of(s, project, ref);
	if (slot->text && slot->generation == generation && clock_mono_ms() < slot->until_ms && str_eq(slot->project, project) && str_eq(slot->ref, ref))
		text = mem_strdup(slot->text);
	pthread_mutex_unlock(&s->lock);
	return text;
}

static void keep(struct shown *s, const char *project, const char *ref, uint64_t generation, const char *text, int64_t until_ms)
{
	AUTO_FREE char *copy = mem_strdup(text);
	pthread_mutex_lock(&s->lock);
	struct slot *slot = slot_of(s, project, ref);
	char *old = slot->text;
	memcpy(slot->project, project, strlen(project) + 1);
	memcpy(slot->ref, ref, strlen(ref) + 1);
	slot->generation = generation;
	slot->until_ms = until_ms;
	slot->text = TAKE_PTR(copy);
	pthread_mutex_unlock(&s->lock);
	free(old);
}

enum err_code core_task_text(struct core *c, struct caller by, const char *ref, const char *repo, char **ret, struct error *e)
{
	bool is_kept = !repo && ref && by.project && strlen(by.project) < PROJECT_SIZE && strlen(ref) <= SHOWN_REF_MAX;
	uint64_t generation = db_generation(c->db); /* before the read: what it sees is at least this new */
	AUTO_JS struct js *task = NULL;
	char *text = is_kept ? find(c->shown, by.project, ref, generation) : NULL;
	enum err_code rc = text ? ERR_OK : core_task(c, by, ref, repo, &task, e);
	if (rc)
		return rc;
	if (!text) {
		text = js_dump(task);
		if (is_kept && strlen(text) <= SHOWN_TEXT_MAX)
			keep(c->shown, by.project, ref, generation, text, js_str(task, "completed_at") ? INT64_MAX : clock_mono_ms() + SHOWN_LIVE_MS);
	}
	*ret = text;
	return ERR_OK;
}
