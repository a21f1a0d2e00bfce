/* signalbox: THE command table, and the way from words to a command to an exit status. */
#include "api/serve.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/text.h"
#include "cli/version.h"
#include "gateway/gateway.h"
#include "model/script.h"
#include "source/credential.h"
#include "source/source.h"
#include <locale.h>
#include <string.h>

static int fetch_daemon(int argc UNUSED, char **argv UNUSED)
{
	return source_fetch_main();
}

const char *const command_groups[GROUP_COUNT] = {
	[GROUP_WORK] = "Work", [GROUP_LOOK] = "Look", [GROUP_RESULT] = "Results", [GROUP_HOUSE] = "House", [GROUP_DAEMON] = "Daemons and helpers (normally started by themselves)",
};

const struct opt global_options[] = {
	{ "json", 0, OPT_FLAG, NULL, "answer in JSON on stdout" },
	{ "server", 0, OPT_STRING, "URL|SOCKET", "talk to this server instead of your own" },
	{ "context", 0, OPT_STRING, "NAME", "talk to this one of the servers you have logged in to; local is your own" },
	{ "token", 0, OPT_STRING, "T", "bearer token for --server; SIGNALBOX_TOKEN keeps it out of the list of processes" },
	{ "data", 0, OPT_STRING, "DIR", "data directory of your own server" },
	{ "runtime", 0, OPT_STRING, "DIR", "runtime directory of your own server" },
	{ "quiet", 'q', OPT_FLAG, NULL, "only the data, no talk" },
	{ "no-color", 0, OPT_FLAG, NULL, "no colour, also on a terminal" },
	{ "help", 'h', OPT_FLAG, NULL, "what this is and what it takes" },
	{ .name = NULL },
};

static const char run_details[] =
	"PROMPT is the request; - reads it from standard input, --prompt-file from a file.\n"
	"The code is the repository of the current directory as it is, with uncommitted changes. --repo takes another\n"
	"directory or a git URL; --repo - starts with an empty workspace.\n"
	"Ctrl-C only detaches; the task goes on. The exit status tells the outcome: 0 DONE, 1 ERROR, 3 CANCELED,\n"
	"9 a human is needed, 124 TIMEOUT, 125 the runner was lost.";
static const char wait_details[] =
	"Ends when every task has ended or needs a human, and prints each with its outcome; with --any when the first has.\n"
	"--for terminal waits through questions to a human. The exit status is the first unhappy task's outcome;\n"
	"8 when --timeout (default 1h) is up, the tasks go on.";
static const char say_details[] =
	"An ended or waiting task begins its next turn: the agent goes on in its session and its workspace, and the diff is\n"
	"still against the code the task began with. An agent at work is told at once when it can be; when it cannot, or with --queue, the\n"
	"text is its next turn.";
static const char interrupt_details[] =
	"What it has done is kept, and the task ends as CANCELED (interrupted). `signalbox say` goes on from there; what was\n"
	"queued for its next turn waits for that, and is said first.";
static const char gates_details[] =
	"Without GATE: a line for each that waits. With one: everything about it, and how to reply.\n"
	"GATE is its id, or the name or id of a task with exactly one open gate; ids by their beginnings.";
static const char answer_details[] =
	"TEXT is the answer, or the number of an option (1,3 where several may be chosen; =3 is the number itself); - reads it from\n"
	"standard input. Without it you are asked at the terminal.\n"
	"A secret is taken from the terminal, where it is not shown, or from standard input, never from the words of the command.";
static const char secret_details[] =
	"set reads the secret from standard input and stores it on the server, sealed; nobody can read it back.\n"
	"NAME is git:HOST or git:HOST/PATH for http(s) URLs (a token, or a password with --user), ssh:HOST or ssh:HOST/PATH\n"
	"for ssh URLs (a private key without a passphrase; --known-hosts is what the host must be). The longest PATH that fits is used.";
static const char doctor_details[] = "With --tasks: what the server found when it last compared its rows with processes, cgroups and directories.";
static const char logs_details[] = "WHICH is agent (default: messages, commands and their output), prompt, setup, response or diff.";
static const char report_details[] =
	"  register TASK          it lives from now on; heartbeat, progress, complete, error or canceled follow\n"
	"  heartbeat TASK [TEXT]  a sign of life; without one for a minute the task ends as lost\n"
	"  progress TASK TEXT     complete TASK [SUMMARY]     error TASK TEXT     canceled TASK\n"
	"  run -- COMMAND...      runs a command and reports for it; its exit status is ours\n"
	"The exit status is 3 when somebody has asked the task to end: stop then, and say canceled.";
static const char apply_details[] =
	"Applies the task's diff to the directory it came from, or to the current directory, or to --dir.\n"
	"Nothing is changed when any part does not fit; the exit status is 6 then.";
static const char completion_details[] =
	"bash: put  eval \"$(signalbox completion bash)\"  into ~/.bashrc; zsh: the same with zsh, after compinit, into ~/.zshrc;\n"
	"fish: signalbox completion fish > ~/.config/fish/completions/signalbox.fish. Installed packages bring all three.";
static const char attach_details[] =
	"Shows what comes from now on (--tail N: and the last N events before). On a terminal what you type is said to the task, a line at a time: into its\n"
	"running turn when its agent can be steered, else as its next turn; to a question it is the answer. Ctrl-C detaches, the task goes on.\n"
	"The exit status tells the outcome, as with run.";
static const char open_details[] =
	"Prints the address of the task's page when the server has one, else its directory on the server's machine.\n"
	"In a graphical session it is opened too; --print only prints.";
static const char server_details[] =
	"stop ends your server in order: runs go on without it, and the next server finds them; with --runs they are ended too.\n"
	"reload has it read its configuration again and tells what changed and what waits for a restart; SIGHUP does the same.";
static const char token_details[] =
	"For `signalbox serve --listen ADDR:PORT` (or server.listen in its configuration). create prints a token, once; only its hash is kept.\n"
	"Without --project it is as good as you are. With it, it acts for that project and sees nothing else; the first token makes a project.\n"
	"A TLS proxy in front is told to pass the Host header, and its name is given as serve --host NAME (server.hosts).";
static const char login_details[] =
	"Reads a token from the terminal (unseen) or from standard input, tries it, and keeps it in $XDG_CONFIG_HOME/signalbox/servers.json (0600).\n"
	"From then on that server is meant; `signalbox context use local` goes back to your own. SIGNALBOX_SERVER and SIGNALBOX_TOKEN do it without a file.";
static const char context_details[] =
	"local is your own server. --context NAME, SIGNALBOX_CONTEXT and --server mean another for one command.";

/* clang-format off */
const struct command commands[] = {
	{ "run", GROUP_WORK, "PROMPT", 0, 1, "submit a task and follow it to its end", run_details, submit_options, cmd_run, NULL },
	{ "start", GROUP_WORK, "PROMPT", 0, 1, "submit a task; print id, session id and URL", run_details, submit_options, cmd_start, NULL },
	{ "wait", GROUP_WORK, "TASK...", 1, ARGS_ANY, "block until tasks are done", wait_details, wait_options, cmd_wait, NULL },
	{ "say", GROUP_WORK, "TASK TEXT", 2, 2, "tell the agent something: while it works, or as its next turn", say_details, say_options, cmd_say, NULL },
	{ "gates", GROUP_WORK, "[GATE]", 0, 2, "what waits for you to decide or answer", gates_details, gates_options, cmd_gates, NULL },
	{ "approve", GROUP_WORK, "GATE", 1, 1, "let the agent do what it asks for", NULL, approve_options, cmd_approve, NULL },
	{ "reject", GROUP_WORK, "GATE [WHY]", 1, 2, "do not; the agent goes on without", NULL, reject_options, cmd_reject, NULL },
	{ "answer", GROUP_WORK, "GATE [TEXT]", 1, 2, "answer a question", answer_details, answer_options, cmd_answer, NULL },
	{ "interrupt", GROUP_WORK, "TASK", 1, 1, "ask the agent to end its turn", interrupt_details, NULL, cmd_interrupt, NULL },
	{ "retry", GROUP_WORK, "TASK...", 1, ARGS_ANY, "begin ended tasks again, in the workspace they left", NULL, NULL, cmd_retry, NULL },
	{ "attach", GROUP_WORK, "TASK", 1, 1, "follow a task from now on, and say things to it", attach_details, attach_options, cmd_attach, NULL },
	{ "cancel", GROUP_WORK, "TASK...", 1, ARGS_ANY, "stop tasks; what was done so far is kept", NULL, NULL, cmd_cancel, NULL },
	{ "report", GROUP_WORK, "VERB [TASK] [TEXT]", 1, ARGS_ANY, "tell how an agent fares that Signalbox did not start", report_details, report_options, cmd_report, NULL },
	{ "ls", GROUP_LOOK, "", 0, 0, "list tasks, newest first", NULL, ls_options, cmd_ls, NULL },
	{ "show", GROUP_LOOK, "TASK", 1, 1, "everything about one task", NULL, NULL, cmd_show, NULL },
	{ "logs", GROUP_LOOK, "TASK [WHICH]", 1, 2, "what the agent said and ran", logs_details, logs_options, cmd_logs, NULL },
	{ "events", GROUP_LOOK, "TASK", 1, 1, "the task's event log", NULL, events_options, cmd_events, NULL },
	{ "open", GROUP_LOOK, "TASK", 1, 1, "where a task can be looked at: its page, or its directory", open_details, open_options, cmd_open, NULL },
	{ "todos", GROUP_LOOK, "TASK", 1, 1, "the agent's plan", NULL, todos_options, cmd_todos, NULL },
	{ "diff", GROUP_RESULT, "TASK", 1, 1, "what the task changed", NULL, diff_options, cmd_diff, NULL },
	{ "apply", GROUP_RESULT, "TASK", 1, 1, "apply the task's diff to your directory", apply_details, apply_options, cmd_apply, NULL },
	{ "artifacts", GROUP_RESULT, "TASK [PATH]", 1, 2, "list the files handed in, or print one", NULL, artifacts_options, cmd_artifacts, NULL },
	{ "rm", GROUP_RESULT, "TASK...", 1, ARGS_ANY, "remove tasks and their record", NULL, rm_options, cmd_rm, NULL },
	{ "secret", GROUP_HOUSE, "set NAME|ls|rm NAME", 1, 2, "what opens private repositories", secret_details, secret_options, cmd_secret, NULL },
	{ "prune", GROUP_HOUSE, "", 0, 0, "remove from the cache what nothing needs", NULL, prune_options, cmd_prune, NULL },
	{ "doctor", GROUP_HOUSE, "", 0, 0, "check what this machine has and lacks", doctor_details, doctor_options, cmd_doctor, NULL },
	{ "server", GROUP_HOUSE, "status|start|stop|reload", 0, 1, "your own server's process", server_details, server_options, cmd_server, NULL },
	{ "token", GROUP_HOUSE, "create NAME|ls|revoke NAME", 1, 2, "what opens your server over the net", token_details, token_options, cmd_token, NULL },
	{ "login", GROUP_HOUSE, "URL", 1, 1, "use a server elsewhere", login_details, login_options, cmd_login, NULL },
	{ "context", GROUP_HOUSE, "ls|use NAME|rm NAME", 0, 2, "which of several servers is meant", context_details, NULL, cmd_context, NULL },
	{ "config", GROUP_HOUSE, "[NAME]", 0, 1, "settings that hold, and where they came from", NULL, NULL, cmd_config, NULL },
	{ "version", GROUP_HOUSE, "", 0, 0, "versions of the program and of the server", NULL, NULL, cmd_version, NULL },
	{ "completion", GROUP_HOUSE, "bash|zsh|fish", 0, 1, "print a completion script for your shell", completion_details, NULL, cmd_completion, NULL },
	{ "help", GROUP_HOUSE, "[COMMAND]", 0, 1, "this text, or a command's", NULL, help_options, cmd_help, NULL },
	{ "serve", GROUP_DAEMON, "", 0, ARGS_ANY, "the server", NULL, serve_options, NULL, serve_main },
	{ "gateway", GROUP_DAEMON, "", 0, ARGS_ANY, "the door to models", NULL, gateway_options, NULL, gateway_main },
	{ "model", GROUP_DAEMON, "", 0, ARGS_ANY, "a scripted model, for tests and demos", NULL, model_options, NULL, model_main },
	{ "fetch", GROUP_DAEMON, "", 0, ARGS_ANY, "fetches code; reads one job from standard input", NULL, NULL, NULL, fetch_daemon },
	{ .name = NULL },
};
/* clang-format on */

const struct command *command_find(const char *name)
{
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (str_eq(cmd->name, name))
			return cmd;
	return NULL;
}

static const char *command_name_at(size_t i, const void *ctx UNUSED)
{
	return commands[i].name;
}

const char *command_nearest(const char *name)
{
	return text_nearest(name, command_name_at, NULL);
}

const struct opt_value *cli_opt(const struct cli *c, const char *name)
{
	size_t i = 0;
	while (c->options[i].name && !str_eq(c->options[i].name, name))
		i++;
	CHECK(c->options[i].name); /* the caller misspelt it */
	return &c->values[i];
}

const char *cli_opt_text(const struct cli *c, const char *name)
{
	return cli_opt(c, name)->text;
}

bool cli_flag(const struct cli *c, const char *name)
{
	return cli_opt(c, name)->flag;
}

const char *cli_setting(const struct cli *c, enum setting which)
{
	return c->settings.value[which];
}

void cli_say(const struct cli *c, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT, clean = STRBUF_INIT;
	va_list ap;
	if (c->quiet)
		return;
	va_start(ap, fmt);
	strbuf_vaddf(&text, fmt, ap);
	va_end(ap);
	/* Names, paths and errors in it may be somebody else's words. */
	str_add_printable(&clean, strbuf_str(&text), text.len);
	strbuf_addc(&clean, '\n');
	term_write(&c->err, &clean);
}

void cli_json(const struct cli *c, const struct js *v)
{
	AUTO_FREE char *text = c->out.tty ? js_pretty(v) : js_dump(v);
	size_t n = strlen(text);
	fputs(text, c->out.file);
	if (!n || text[n - 1] != '\n')
		fputc('\n', c->out.file);
	fflush(c->out.file);
}

static const struct opt *global_find(const char *word)
{
	for (const struct opt *o = global_options; o->name; o++) {
		size_t n = strlen(o->name);
		if (str_starts(word, "--") && strncmp(word + 2, o->name, n) == 0 && (!word[2 + n] || word[2 + n] == '='))
			return o;
		if (o->letter && word[0] == '-' && word[1] == o->letter)
			return o;
	}
	return NULL;
}

/* Where the verb stands: the first word that is neither a global option nor its value; argc when there is none. */
static int verb_position(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const struct opt *o = global_find(argv[i]);
		if (argv[i][0] != '-' || !argv[i][1])
			return i;
		if (o && o->type != OPT_FLAG && !strchr(argv[i], '='))
			i++;
	}
	return argc;
}

static void merge_options(struct cli *c, const struct opt *own)
{
	size_t n_own = 0, n_global = 0;
	while (own && own[n_own].name)
		n_own++;
	while (global_options[n_global].name)
		n_global++;
	c->options = mem_alloc((n_own + n_global + 1) * sizeof(*c->options));
	c->values = mem_alloc((n_own + n_global + 1) * sizeof(*c->values));
	if (n_own)
		memcpy(c->options, own, n_own * sizeof(*own));
	memcpy(c->options + n_own, global_options, n_global * sizeof(*global_options));
}

static const char *flag_value(const void *ctx, const char *name)
{
	const struct cli *c = ctx;
	for (size_t i = 0; c->options[i].name; i++)
		if (str_eq(c->options[i].name, name))
			return c->values[i].text;
	return NULL;
}

/* argv without its verb: the words of the command, the global options that stood before it included. */
static int words_of(int argc, char **argv, int verb, char **ret)
{
	int n = 0;
	for (int i = 1; i < argc; i++)
		if (i != verb)
			ret[n++] = argv[i];
	ret[n] = NULL;
	return n;
}

static enum err_code check_args(const struct cli *c, struct error *e)
{
	const struct command *cmd = c->command;
	if (c->arg_count < cmd->args_min) {
		error_set(e, ERR_USAGE, "needs %s", cmd->args);
	} else if (cmd->args_max != ARGS_ANY && c->arg_count > cmd->args_max) {
		AUTO_STRBUF struct strbuf word = STRBUF_INIT;
		text_add_line(&word, c->args[cmd->args_max]);
		error_set(e, ERR_USAGE, "does not know what to do with '%s'%s", strbuf_str(&word),
			  str_eq(cmd->args, "PROMPT") ? "; PROMPT is one word to the shell: quote it" : "");
	} else {
		return ERR_OK;
	}
	error_hint(e, "signalbox %s %s", cmd->name, cmd->args[0] ? cmd->args : "--help");
	return ERR_USAGE;
}

static enum err_code run_command(struct cli *c, int argc, char **argv, struct error *e)
{
	merge_options(c, c->command->options);
	c->args = mem_alloc(((size_t)argc + 1) * sizeof(char *));
	enum err_code rc = opt_parse(c->options, argc, argv, c->values, c->args, &c->arg_count, e);
	if (rc) {
		error_hint(e, "signalbox %s --help", c->command->name);
		return rc;
	}
	c->json = cli_flag(c, "json");
	c->quiet = cli_flag(c, "quiet");
	term_init(&c->out, stdout, cli_flag(c, "no-color"));
	term_init(&c->err, stderr, cli_flag(c, "no-color"));
	if (cli_flag(c, "help")) {
		help_command(&c->out, c->command);
		return ERR_OK;
	}
	rc = check_args(c, e);
	if (!rc)
		rc = settings_load(&c->settings, flag_value, c, e);
	if (!rc && c->settings.ignored)
		cli_say(c, "signalbox: %s", c->settings.ignored);
	return rc ? rc : c->command->run(c, e);
}

static void cli_release(struct cli *c)
{
	client_close(c->client);
	client_close(c->stream);
	settings_release(&c->settings);
	free(c->options);
	free(c->values);
	free(c->args);
}

static int report(const char *verb, const struct error *e)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct term err;
	term_init(&err, stderr, false);
	term_add(&err, &out, COLOUR_RED, "signalbox:");
	strbuf_addf(&out, " %s%s", verb ? verb : "", verb ? ": " : "");
	str_add_printable(&out, e->text, strlen(e->text));
	if (e->hint[0]) {
		strbuf_adds(&out, "\n  try: ");
		str_add_printable(&out, e->hint, strlen(e->hint));
	}
	strbuf_addc(&out, '\n');
	term_write(&err, &out);
	return err_exit_status(e->code);
}

enum err_code cli_each(struct cli *c, cli_one_fn *one, void *ctx, struct error *e)
{
	for (int i = 0; i < c->arg_count; i++) {
		struct error mine = ERROR_INIT;
		enum err_code rc = one(c, c->args[i], ctx, &mine);
		if (rc && (c->arg_count == 1 || rc == ERR_UNREACHABLE)) {
			*e = mine;
			return rc;
		}
		int status = rc ? report(c->command->name, &mine) : 0;
		if (status && !c->exit_status)
			c->exit_status = status;
	}
	return ERR_OK;
}

static int unknown_verb(const char *word)
{
	struct error e = ERROR_INIT;
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	const char *near = command_nearest(word);
	text_add_line(&shown, word);
	error_set(&e, ERR_USAGE, "there is no command '%s'%s%s%s", strbuf_str(&shown), near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
	error_hint(&e, near ? "signalbox help %s" : "signalbox help", near);
	return report(NULL, &e);
}

/* No verb: --help and --version stand alone, anything else is a question about how to begin. */
static int without_verb(int argc, char **argv)
{
	struct term out;
	for (int i = 1; i < argc; i++) {
		if (str_eq(argv[i], "--version")) {
			puts("signalbox " SIGNALBOX_VERSION);
			return EXIT_DONE;
		}
		if (str_eq(argv[i], "--help") || str_eq(argv[i], "-h")) {
			term_init(&out, stdout, false);
			help_all(&out);
			return EXIT_DONE;
		}
	}
	term_init(&out, stderr, false);
	help_all(&out);
	return EXIT_USAGE;
}

/* A daemon parses its words itself; only the question what it is is answered here. */
static int run_daemon(const struct command *cmd, int argc, char **words)
{
	struct term out;
	for (int i = 1; i < argc; i++)
		if (str_eq(words[i], "--help") || str_eq(words[i], "-h")) {
			term_init(&out, stdout, false);
			help_command(&out, cmd);
			return EXIT_DONE;
		}
	return cmd->daemon(argc, words);
}

int main(int argc, char **argv)
{
	struct error e = ERROR_INIT;
	struct cli c = { .exit_status = EXIT_DONE };
	int verb = verb_position(argc, argv);
	if (askpass_is_asked()) /* git has started us with its question as the only word */
		return askpass_main(argc, argv);
	setlocale(LC_CTYPE, "C.UTF-8"); /* for wcwidth; messages and numbers stay as they are */
	if (verb >= argc)
		return without_verb(argc, argv);
	c.command = command_find(argv[verb]);
	if (!c.command)
		return unknown_verb(argv[verb]);
	AUTO_FREE char **words = mem_alloc(((size_t)argc + 1) * sizeof(char *));
	if (c.command->daemon) {
		words[0] = argv[verb];
		return run_daemon(c.command, words_of(argc, argv, verb, words + 1) + 1, words);
	}
	int n = words_of(argc, argv, verb, words);
	enum err_code rc = run_command(&c, n, words, &e);
	int status = rc ? report(c.command->name, &e) : c.exit_status;
	cli_release(&c);
	return status;
}
