/* What the doctor's checks share.  doctor.c has the walls, the programs and the server, doctor_checks.c the machine round them. */
#pragma once
#include "cli/cli.h"
#include "core/conf.h"
#include "sandbox/sandbox.h"

#define PROBE_OUTPUT_MAX ((size_t)64 << 10)

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

/* What the checks look at. */
struct doctor {
	const struct cli *c;
	struct conf *conf; /* NULL when it is broken */
	struct error conf_error;
	struct sandbox_probe probe;
	int64_t server_pid; /* 0: none runs here */
};

struct finding {
	enum verdict verdict;
	struct strbuf text, hint;
};

void doctor_conclude(struct finding *f, enum verdict verdict, const char *text, const char *hint);
/* Runs a program; true when it ended with 0. Its first line of output (or of complaint) is in *ret_line. */
bool doctor_probe(const char *const *argv, struct strbuf *ret_line);

typedef void doctor_check(const struct doctor *d, struct finding *f);
doctor_check doctor_disk, doctor_inodes, doctor_memory, doctor_files, doctor_clock, doctor_login, doctor_service, doctor_provider, doctor_gateway;
