/* The record of model traffic: one file per run, <dir>/<run>.jsonl, a line when an exchange starts and a line when it has ended.
 *
 *	{"n":1,"phase":"start","at","request_id","provider","model","stream","bytes","input_items","input_from","input_chain","input_delta":[...]}
 *	{"n":1,"phase":"end","at","ms","status","usage":{...}|null,"bytes_out","error":text|null,"output":[...]}
 *
 * An agent sends its whole conversation with every request; input_delta has only what the run's previous request did not have
 * (input_from is the index of its first item, after which input_echoed items are the model's own last answer, on record as the
 * output before), so that the file reads as one conversation.  Items are cut at METER_ITEM_MAX.
 * The file itself is the state: numbers, spent requests and tokens are folded from its lines, so they survive a restart, and two
 * gateways (an old one that drains, its successor) may write the same file; a lock on the file keeps their lines whole.
 * People's secret answers, which an agent tells its model, are told to record_hide before it hears them, and are cut out of all that is
 * written of the task's runs from then on.  They are kept in memory only.
 * Thread-safe. */
#pragma once
#include "base/js.h"
#include "model/meter.h"
#include "model/token.h"
#include <stdbool.h>
#include <sys/types.h>

#define RECORD_RUNS_MAX 1024		      /* runs whose state is remembered; the longest unused is forgotten and read again */
#define RECORD_LINE_MAX ((size_t)2 << 20)     /* bytes of a line that is read back */
#define RECORD_DELTA_MAX ((size_t)512 << 10)  /* bytes of input kept of one exchange */
#define RECORD_FILE_MAX ((off_t)512 << 20)    /* a run's record; beyond it the run's requests are refused */
#define RECORD_CHAIN_BYTES 16
#define RECORD_HIDE_TASKS_MAX 4096 /* tasks with secrets; the longest unused is forgotten, and told again before its next run */

struct recorder;

struct record_request {
	const char *request_id;
	const char *provider;
	const char *model;
	const struct js *input; /* the request's `input` */
	bool stream;
	size_t bytes;
};

/* One exchange between its start and its end line. */
struct record_ticket {
	int fd;
	int64_t n;
	int64_t started_mono_ms;
	struct scrub scrub; /* the task's secrets as they were at the start: what is told later the model cannot know now */
};
#define RECORD_TICKET_INIT { .fd = -1 }

struct record_result {
	int status;		/* what the agent got */
	int64_t bytes_out;
	const char *error;	/* NULL: none */
	const struct meter *meter; /* NULL: the upstream never answered */
};

/* `dir` exists already; it is opened here, so that the process may become another user afterwards. */
MUST_USE enum err_code recorder_open(const char *dir, struct recorder **ret, struct error *e);
void recorder_free(struct recorder *r);
/* From now on a run's file must be there already: whoever begins a run makes it, and takes the right to write away when it has ended. */
void recorder_expect_files(struct recorder *r);

/* Cuts these texts (an array) out of what is written of the runs of `task` (their ids are TASK.worker.n). Again is fine. ERR_LIMIT: too many. */
MUST_USE enum err_code record_hide(struct recorder *r, const char *task, const struct js *texts, struct error *e);

/* Counts the request against the claims' limits and writes the start line.  ERR_LIMIT: a limit of the run is used up; nothing was
 * written.  ERR_DENIED: the run has ended.  ERR_IO: it cannot be recorded, so it must not be made. */
MUST_USE enum err_code record_start(struct recorder *r, const struct token_claims *claims, const struct record_request *rq, struct record_ticket *ret, struct error *e);
/* Writes the end line, durable when it returns, and gives the ticket back. */
MUST_USE enum err_code record_end(struct recorder *r, struct record_ticket *ticket, const struct record_result *res, struct error *e);
