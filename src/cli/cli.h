/* The frame of the command line: what a command is, what it is given, and what it may lean on.
 *
 *   main.c    THE command table; parses, dispatches, reports the one error
 *   server.c  finds the server, starts one when there is none
 *   remote.c  tasks by id or name; exit statuses
 *   follow.c  the event stream to its end, over broken connections
 *
 * A command returns ERR_OK with c->exit_status set (0 unless it says otherwise), or an error that main prints and maps. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include "base/opt.h"
#include "cli/settings.h"
#include "cli/term.h"
#include "net/client.h"

/* The exit statuses that are not an error's (those are err_exit_status). */
enum exit_status {
	EXIT_DONE = 0, EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_CANCELED = 3, EXIT_CONFLICT = 6, EXIT_WAIT_OVER = 8, EXIT_HUMAN = 9,
	EXIT_TIMEOUT = 124, EXIT_LOST = 125, EXIT_DETACHED = 130
};

struct cli;
typedef enum err_code command_fn(struct cli *c, struct error *e);
typedef int daemon_fn(int argc, char **argv);

enum command_group { GROUP_WORK, GROUP_LOOK, GROUP_RESULT, GROUP_HOUSE, GROUP_DAEMON, GROUP_COUNT };

#define ARGS_ANY (-1)

struct command {
	const char *name;
	enum command_group group;
	const char *args;	   /* "TASK...", for help */
	int args_min, args_max;
	const char *summary;	   /* one line */
	const char *details;	   /* more for `help NAME`; may be NULL */
	const struct opt *options; /* beside the global ones; may be NULL */
	command_fn *run;
	daemon_fn *daemon;	   /* instead of run: gets the words as they stand and parses them itself */
};

extern const struct command commands[]; /* ends with name NULL */
extern const struct opt global_options[];
extern const char *const command_groups[GROUP_COUNT];
const struct command *command_find(const char *name);
const char *command_nearest(const char *name); /* or NULL */

struct cli {
	const struct command *command;
	struct opt *options; /* the command's and the global ones in one table */
	struct opt_value *values;
	char **args;
	int arg_count;
	struct settings settings;
	struct term out, err; /* data, talk */
	bool json, quiet;
	struct client *client; /* calls; NULL until server_connect */
	struct client *stream; /* streams and long waits: without a time limit */
	int exit_status;
};

const struct opt_value *cli_opt(const struct cli *c, const char *name); /* `name` must be in one of the tables */
const char *cli_opt_text(const struct cli *c, const char *name);	/* NULL when not given */
bool cli_flag(const struct cli *c, const char *name);
const char *cli_setting(const struct cli *c, enum setting which);
void cli_say(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* a line of talk on stderr; silent with --quiet */
void cli_json(const struct cli *c, const struct js *v); /* on stdout: pretty on a terminal, one line in a pipe */

/* Each of the command's words in turn. With several, one that fails is told at once and the others go on; the exit status is the first failure's. */
typedef enum err_code cli_one_fn(struct cli *c, const char *ref, void *ctx, struct error *e);
MUST_USE enum err_code cli_each(struct cli *c, cli_one_fn *one, void *ctx, struct error *e);

/* Help, completion and manual pages out of the tables. */
void help_all(const struct term *out);
void help_command(const struct term *out, const struct command *cmd);
void man_page(struct strbuf *out, const struct command *cmd); /* NULL: signalbox(1) */

command_fn cmd_run, cmd_start, cmd_wait, cmd_ls, cmd_show, cmd_logs, cmd_events, cmd_diff, cmd_apply, cmd_artifacts, cmd_cancel, cmd_retry, cmd_say, cmd_gates, cmd_approve, cmd_answer, cmd_reject, cmd_interrupt, cmd_todos, cmd_rm, cmd_secret, cmd_prune, cmd_attach, cmd_open, cmd_login, cmd_context, cmd_token, cmd_server,
	cmd_report, cmd_doctor, cmd_config, cmd_version, cmd_completion, cmd_help;
extern const struct opt submit_options[], wait_options[], ls_options[], logs_options[], events_options[], diff_options[], apply_options[],
	artifacts_options[], rm_options[], secret_options[], prune_options[], attach_options[], open_options[], login_options[], token_options[], server_options[], help_options[], report_options[], doctor_options[], say_options[], gates_options[], approve_options[], reject_options[], answer_options[], todos_options[];
