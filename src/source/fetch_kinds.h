/* The kinds of job of `signalbox fetch`, one file each. */
#pragma once
#include "base/js.h"
#include "source/identity.h"
#include "source/report.h"

struct fetch {
	const struct js *job;
	const char *cache;
	struct identity caller; /* who started us */
	struct report report;
};

/* Each fills `result` as source.h says. */
MUST_USE enum err_code fetch_git(struct fetch *f, struct js *result, struct error *e);	    /* mirror.c */
MUST_USE enum err_code fetch_snapshot(struct fetch *f, struct js *result, struct error *e); /* snapshot.c */
MUST_USE enum err_code fetch_checkout(struct fetch *f, struct js *result, struct error *e); /* fetch.c */
