/* Decisions by file while no server is there: inbox/<gate>.yaml, checked as the server would. What is wrong with a file stays for the server to tell. */
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gatefile.h"
#include "runner/runner.h"

static struct gate *gate_of(struct runner *r, const char *name)
{
	char id[ID_SIZE + 8];
	if (!gatefile_inbox_gate(name, id, sizeof(id)))
		return NULL;
	for (int i = 0; i < r->gate_count; i++)
		if (str_eq(r->gates[i].id, id))
			return &r->gates[i];
	return NULL;
}

static enum inbox_fate take(void *ctx, const struct inbox_file *file)
{
	struct runner *r = ctx;
	struct gate *g = gate_of(r, file->name);
	struct error e = ERROR_INIT;
	AUTO_JS struct js *body = NULL;
	AUTO_JS struct js *checked = NULL;
	if (!g || file->problem || decision_is_secret(g->data)) /* a secret is sealed by the server alone */
		return INBOX_LEAVE;
	enum err_code rc = gatefile_parse(file->text, file->len, &body, &e);
	if (!rc)
		rc = decision_check(g->kind, g->data, body, &checked, &e);
	if (rc) {
		if (!file->fresh)
			log_info("inbox/%s: %s", file->name, e.text);
		return INBOX_LEAVE;
	}
	AUTO_FREE char *who = mem_printf("file:%u", (unsigned)file->owner);
	if (gates_settle(r, g, checked, who))
		return INBOX_DONE;
	r->next_inbox_ms = clock_mono_ms() + RUNNER_SETTLE_RETRY_MS;
	return INBOX_LEAVE;
}

void inbox_look(struct runner *r)
{
	gatefile_inbox(js_str_or(r->spec, "task_dir", ""), take, r);
}
