/* A sandbox's plan as a list of operations, in bwrap's own words: printed for the record and for tests, written out as bwrap's
 * arguments.  Data before effects: nothing here touches anything but to look. */
#pragma once
#include "sandbox/sandbox.h"

#define PLAN_OPS_MAX 1024
#define PLAN_ARGS_BYTES_MAX ((size_t)4 << 20)
#define PLAN_HOSTNAME_MAX 63
#define PLAN_UID_INSIDE "1000"
#define PLAN_TMP_BYTES_DEFAULT ((int64_t)1 << 30)
#define PLAN_SHM_BYTES_MAX ((int64_t)256 << 20)

struct op {
	const char *option; /* bwrap's, without the dashes */
	char *a, *b;	    /* its operands */
	char *data;	    /* the text behind the descriptor of `file`, else NULL */
	const char *perms;  /* NULL: bwrap's default */
	int64_t size_bytes; /* of a tmpfs; 0: none */
	bool private;	    /* b is not for the record */
};

struct op_list {
	struct op ops[PLAN_OPS_MAX];
	int count;
	bool over;
};

void op_list_release(struct op_list *l);
/* Refuses what cannot be carried out (relative paths, uid 0, no agent). */
MUST_USE enum err_code plan_check(const struct sandbox_plan *p, struct error *e);
MUST_USE enum err_code plan_build(const struct sandbox_plan *p, struct op_list *ret, struct error *e);
const char *plan_workspace(const struct sandbox_plan *p); /* the host directory bound at SANDBOX_WORKSPACE */
