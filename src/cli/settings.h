/* What holds, and where it came from: flags, SIGNALBOX_*, ./.signalbox.yaml, the user's file, the system's file, the default.
 * The configuration files are the server's too: members that are not in our table are none of our business. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

enum setting {
	SET_SERVER, SET_CONTEXT, SET_TOKEN, SET_AUTOSTART, SET_DATA, SET_RUNTIME, SET_PAGER,
	SET_AGENT, SET_MODEL, SET_MODE, SET_ENVIRONMENT, SET_SETUP, SET_SETUP_NETWORK, SET_VERIFY, SET_TIMEOUT, SET_PRIORITY,
	SET_COUNT
};

struct setting_def {
	const char *name;	/* dotted member of the configuration file */
	const char *env;
	const char *flag;	/* long option, without dashes; NULL when there is none */
	bool from_project;	/* ./.signalbox.yaml may set it: that file comes with a repository, so never what says whom we talk to */
	bool secret;		/* never shown */
	const char *help;
};
extern const struct setting_def setting_defs[SET_COUNT];

struct settings {
	char *value[SET_COUNT]; /* NULL: not set */
	char *from[SET_COUNT];	/* "--server", "SIGNALBOX_SERVER", a path, "default" */
	char **files;		/* that were read, strongest first; NULL-ended */
	char *ignored;		/* a sentence about a member of a file that is not taken, or NULL */
};

/* `flag` gives the value of a long option, or NULL. */
MUST_USE enum err_code settings_load(struct settings *s, const char *(*flag)(const void *ctx, const char *name), const void *ctx, struct error *e);
void settings_release(struct settings *s);
bool setting_is_true(const char *value);
