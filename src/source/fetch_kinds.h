/* The kinds of job of `signalbox fetch`, one file each. */
#pragma once
#include "base/js.h"
#include "source/credential.h"
#include "source/identity.h"
#include "source/report.h"

struct fetch {
	const struct js *job;
	const char *cache;
	struct identity caller; /* who started us */
	struct credential credential; /* of this job's host; empty: none */
	struct report report;
};

const struct credential *fetch_credential(const struct fetch *f); /* NULL: none was given */

/* Each fills `result` as source.h says. */
MUST_USE enum err_code fetch_git(struct fetch *f, struct js *result, struct error *e);	    /* fetch_git.c */
MUST_USE enum err_code fetch_snapshot(struct fetch *f, struct js *result, struct error *e); /* snapshot.c */
MUST_USE enum err_code fetch_archive(struct fetch *f, struct js *result, struct error *e);  /* archive.c */
MUST_USE enum err_code fetch_checkout(struct fetch *f, struct js *result, struct error *e); /* fetch.c */
MUST_USE enum err_code fetch_prove(struct fetch *f, struct js *result, struct error *e);    /* mirror.c */
