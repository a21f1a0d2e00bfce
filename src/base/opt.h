/* Options of a verb as a const table: parsing, help, completion and man pages come out of it.
 * Long options `--name V`, `--name=V`, `--no-flag`; short ones `-f`; `--` ends options; options may stand anywhere. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

enum opt_type { OPT_FLAG, OPT_STRING, OPT_LIST, OPT_INT, OPT_DURATION, OPT_SIZE };
#define OPT_LIST_MAX 64

struct opt {
	const char *name;  /* long name */
	char letter;	   /* 0: none */
	enum opt_type type;
	const char *value; /* placeholder in help: FILE, URL, K=V; NULL for flags */
	const char *help;  /* one line */
};

struct opt_value {
	bool set;
	bool flag;
	const char *text;		 /* borrowed from argv */
	int64_t number;			 /* integer, ms, bytes */
	const char *list[OPT_LIST_MAX];
	int list_len;
};

/* argv[0] is the first argument (no program or verb name).  Fills values[i] for table[i] (table ends with name NULL), moves the rest to rest[0..*ret_rest) (rest has argc places).
 * Unknown option: ERR_USAGE that names it and the nearest known one. */
MUST_USE enum err_code opt_parse(const struct opt *table, int argc, char **argv, struct opt_value *values, char **rest, int *ret_rest, struct error *e);
