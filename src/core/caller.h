/* Who asks, and for which project.  What belongs to another project does not exist for him: every lookup that people's words lead to takes the
 * caller's project (task_find, run_find, gate_find, and the lists). */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include <stdbool.h>

#define PROJECT_DEFAULT "default" /* the owner's, and that of tokens which name none */
#define PROJECT_ANY "*"		  /* the server itself looks: no project's name */
#define PROJECT_SIZE 33		  /* with its NUL */

/* Passed by value; the texts live as long as the request. */
struct caller {
	const char *who;     /* the authenticated principal */
	const char *project; /* NULL sees nothing */
	bool local;	     /* may name directories and files of the server's machine as a source */
};

/* [a-z0-9][a-z0-9-]{0,31} */
MUST_USE enum err_code project_check(const char *name, struct error *e);

/* Whether who acts for `project` may touch what is of the project `of`. */
static inline bool project_has(const char *project, const char *of)
{
	return project && of && (str_eq(project, of) || str_eq(project, PROJECT_ANY));
}
