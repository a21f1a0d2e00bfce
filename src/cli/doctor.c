/* doctor: what this machine has and lacks for running agents behind walls; every finding says how to mend it.
 * Local checks are tried, not guessed; the server adds its own. */
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/doctor.h"
#include "cli/server.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/version.h"
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define PROBE_TIMEOUT_MS 10000
#define PROBE_OUTPUT_MAX ((size_t)64 << 10)
#define SOCKET_PATH_MAX 107
#define HINT_COLUMN 26

static const struct { const char *word; enum colour colour; } verdicts[] = {
	[VERDICT_OK] = { "ok", COLOUR_GREEN }, [VERDICT_WARN] = { "warn", COLOUR_YELLOW }, [VERDICT_FAIL] = { "fail", COLOUR_RED },
};

void doctor_conclude(struct finding *f, enum verdict verdict, const char *text, const char *hint)
{
	f->verdict = verdict;
	text_add_line(&f->text, text);
	strbuf_adds(&f->hint, hint);
}

/* Runs a program; true when it ended with 0. Its first line of output (or of complaint) is in *ret_line. */
bool doctor_probe(const char *const *argv, struct strbuf *ret_line)
{
	struct proc_spec spec = PROC_SPEC_INIT;
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(PROBE_OUTPUT_MAX), err = STRBUF_LIMIT(PROBE_OUTPUT_MAX);
	struct error e = ERROR_INIT;
	int status = -1;
	spec.argv = argv;
	spec.cwd = "/";
	enum err_code rc = proc_run(&spec, NULL, 0, PROBE_TIMEOUT_MS, &out, &err, &status, &e);
	const char *said = rc ? e.text : out.len ? strbuf_str(&out) : strbuf_str(&err);
	strbuf_add(ret_line, said, strcspn(said, "\n"));
	return !rc && status == 0;
}

static void check_program(struct finding *f, const char *name, const char *package, enum verdict without)
{
	const char *argv[] = { name, "--version", NULL };
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	AUTO_FREE char *hint = mem_printf("install it: apt-get install %s", package);
	if (doctor_probe(argv, &line))
		doctor_conclude(f, VERDICT_OK, strbuf_str(&line), "");
	else
		doctor_conclude(f, without, strbuf_str(&line), hint);
}

static void check_bwrap(const struct doctor *d UNUSED, struct finding *f)
{
	check_program(f, "bwrap", "bubblewrap", VERDICT_FAIL);
}

static void check_git(const struct doctor *d UNUSED, struct finding *f)
{
	check_program(f, "git", "git", VERDICT_FAIL);
}

/* As the server will look for it: configured, beside the program, in PATH. */
static void check_codex(const struct doctor *d, struct finding *f)
{
	AUTO_JS struct js *agent = js_object();
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	struct error e = ERROR_INIT;
	js_set_str(agent, "adapter", "codex-exec");
	if (agent_check(agent, d->conf ? conf_codex_path(d->conf) : NULL, &e)) {
		doctor_conclude(f, VERDICT_WARN, e.text, e.hint[0] ? e.hint : "npm install -g @openai/codex; other agents do not need it");
		return;
	}
	const char *argv[] = { js_str_or(agent, "program", "codex"), "--version", NULL };
	bool runs = doctor_probe(argv, &line);
	strbuf_addf(&line, "  %s", argv[0]);
	doctor_conclude(f, runs ? VERDICT_OK : VERDICT_WARN, strbuf_str(&line), runs ? "" : "npm install -g @openai/codex, or set codex.path in the configuration");
}

static void add_what_it_lacks(struct strbuf *out, const struct js *one)
{
	bool first = true;
	for (struct js_iter it = js_iter(one); it.key; js_next(&it))
		if (js_type(it.value) == JS_BOOL && !js_true(it.value)) {
			strbuf_addf(out, "%s%s", first ? " (no " : ", ", it.key);
			first = false;
		}
	strbuf_adds(out, first ? "" : ")");
}

/* The adapters whose programs are there, and what each cannot do. */
static void check_agents(const struct doctor *d, struct finding *f)
{
	AUTO_JS struct js *all = agent_capabilities();
	AUTO_STRBUF struct strbuf here = STRBUF_INIT, missing = STRBUF_INIT;
	for (size_t i = 0; i < js_len(all); i++) {
		AUTO_JS struct js *agent = js_object(), *command = js_array();
		const char *name = js_str_or(js_at(all, i), "name", "");
		js_push_str(command, "true"); /* for those that are a command line */
		js_set_str(agent, "adapter", name);
		js_set(agent, "command", js_ref(command));
		bool found = agent_check(agent, d->conf ? conf_codex_path(d->conf) : NULL, NULL) == ERR_OK;
		struct strbuf *out = found ? &here : &missing;
		strbuf_addf(out, "%s%s", out->len ? ", " : "", name);
		if (found)
			add_what_it_lacks(out, js_at(all, i));
	}
	if (missing.len)
		strbuf_addf(&here, "; not installed: %s", strbuf_str(&missing));
	doctor_conclude(f, VERDICT_OK, strbuf_str(&here), "");
}

static void check_settings(const struct doctor *d, struct finding *f)
{
	const char *path = d->conf ? conf_path(d->conf) : "";
	if (!d->conf)
		doctor_conclude(f, VERDICT_FAIL, d->conf_error.text, d->conf_error.hint[0] ? d->conf_error.hint : "mend that file; the server will not start with it");
	else
		doctor_conclude(f, VERDICT_OK, *path ? path : "built-in defaults", "");
}

static void check_namespaces(const struct doctor *d, struct finding *f)
{
	if (d->probe.userns && d->probe.bwrap)
		doctor_conclude(f, VERDICT_OK, "a sandbox with every namespace starts", "");
	else
		doctor_conclude(f, VERDICT_FAIL, d->probe.why, "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, "
			 "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0");
}

static void check_overlay(const struct doctor *d, struct finding *f)
{
	if (d->probe.overlay)
		doctor_conclude(f, VERDICT_OK, "a workspace is a layer over the cached tree", "");
	else
		doctor_conclude(f, VERDICT_WARN, d->probe.why, "tasks still run, on a plain copy of the tree: slower to start with big repositories");
}

static void check_seccomp(const struct doctor *d, struct finding *f)
{
	if (d->probe.seccomp)
		doctor_conclude(f, VERDICT_OK, "system calls are filtered", "");
	else
		doctor_conclude(f, VERDICT_FAIL, "no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER");
}

static void check_cgroup(const struct doctor *d, struct finding *f)
{
	bool held = d->probe.confinement != CONFINED_BY_RLIMITS;
	doctor_conclude(f, held ? VERDICT_OK : VERDICT_WARN, held ? sandbox_confinement_name(d->probe.confinement) : "none with memory and pids controllers",
		 held ? "" : "limits are held by rlimits and namespaces alone; systemd-run --user --scope -p Delegate=yes gives a group of your own");
}

static void check_socket(const struct doctor *d, struct finding *f)
{
	const struct cli *c = d->c;
	AUTO_FREE char *path = server_socket(c);
	struct stat st;
	if (!path) {
		doctor_conclude(f, VERDICT_OK, cli_setting(c, SET_SERVER), "");
		return;
	}
	AUTO_FREE char *dir = file_dirname(path);
	if (strlen(path) > SOCKET_PATH_MAX)
		doctor_conclude(f, VERDICT_FAIL, "the socket's path is too long for the system", "choose a shorter directory with --runtime");
	else if (lstat(dir, &st) == 0 && st.st_uid != geteuid())
		doctor_conclude(f, VERDICT_FAIL, "the runtime directory belongs to somebody else", "set SIGNALBOX_RUNTIME to a directory of yours");
	else
		doctor_conclude(f, VERDICT_OK, path, "");
}

static void check_server(const struct doctor *d, struct finding *f)
{
	const struct cli *c = d->c;
	AUTO_JS struct js *reply = NULL;
	struct error e = ERROR_INIT;
	int status = 0;
	if (!c->client) {
		doctor_conclude(f, cli_setting(c, SET_SERVER) ? VERDICT_FAIL : VERDICT_OK, "does not run now", cli_setting(c, SET_SERVER) ? "look at --server" : "");
		return;
	}
	if (client_call(c->client, "GET", "/version", NULL, &status, &reply, &e)) {
		doctor_conclude(f, VERDICT_FAIL, e.text, e.hint);
		return;
	}
	const char *version = js_str_or(reply, "version", "?");
	if (str_eq(version, SIGNALBOX_VERSION))
		doctor_conclude(f, VERDICT_OK, version, "");
	else
		doctor_conclude(f, VERDICT_WARN, version, "another version than this program's: restart the server; runs go on meanwhile");
}

static const struct {
	const char *name;
	void (*check)(const struct doctor *d, struct finding *f);
} checks[] = {
	{ "bwrap", check_bwrap }, { "git", check_git }, { "codex", check_codex }, { "agents", check_agents }, { "namespaces", check_namespaces }, { "overlay", check_overlay },
	{ "seccomp", check_seccomp }, { "cgroup", check_cgroup }, { "disk", doctor_disk }, { "inodes", doctor_inodes }, { "memory", doctor_memory },
	{ "files", doctor_files }, { "clock", doctor_clock }, { "login", doctor_login }, { "service", doctor_service }, { "settings", check_settings },
	{ "provider", doctor_provider }, { "socket", check_socket }, { "server", check_server }, { "gateway", doctor_gateway },
};

static void add(struct js *list, const char *where, const char *name, const struct finding *f)
{
	AUTO_STRBUF struct strbuf clean_name = STRBUF_INIT;
	struct js *one = js_object();
	text_add_line(&clean_name, name);
	js_set_str(one, "where", where);
	js_set_str(one, "name", strbuf_str(&clean_name));
	js_set_bool(one, "ok", f->verdict != VERDICT_FAIL);
	js_set_str(one, "verdict", verdicts[f->verdict].word);
	js_set_str(one, "text", strbuf_str(&f->text));
	js_set_str(one, "hint", strbuf_str(&f->hint));
	js_push(list, one);
}

/* The same trial the server makes, under the same identity. Must come before anything makes a thread. */
static void try_walls(struct doctor *d)
{
	const char *data = cli_setting(d->c, SET_DATA);
	bool root = geteuid() == 0;
	int64_t id = d->conf ? conf_sandbox_uid(d->conf) : CONFIG_SANDBOX_ID;
	sandbox_probe(file_is_dir(data) ? data : "/tmp", root ? (uid_t)id : geteuid(), root ? (gid_t)id : getegid(), &d->probe);
}

static int64_t server_pid(const struct cli *c)
{
	AUTO_JS struct js *reply = NULL;
	AUTO_FREE char *path = server_socket(c);
	int status = 0;
	return path && c->client && !client_call(c->client, "GET", "/version", NULL, &status, &reply, NULL) ? js_i64(reply, "pid", 0) : 0;
}

static bool check_here(const struct cli *c, struct js *list)
{
	struct doctor d = { .c = c };
	bool good = true;
	if (conf_load(NULL, &d.conf, &d.conf_error))
		d.conf = NULL;
	try_walls(&d);
	d.server_pid = server_pid(c);
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct finding f = { .verdict = VERDICT_OK };
		checks[i].check(&d, &f);
		add(list, "here", checks[i].name, &f);
		good = good && f.verdict != VERDICT_FAIL;
		strbuf_release(&f.text);
		strbuf_release(&f.hint);
	}
	conf_free(d.conf);
	return good;
}

/* What is wanting but not needed by every agent (a model's key) does not keep the server from being ready. */
static bool server_is_ready(const struct cli *c)
{
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	return !client_call(c->client, "GET", "/readyz", NULL, &status, &reply, NULL);
}

static bool check_there(const struct cli *c, struct js *list)
{
	AUTO_JS struct js *reply = NULL;
	bool good = true;
	int status = 0;
	if (!c->client || client_call(c->client, "GET", "/v1/doctor", NULL, &status, &reply, NULL))
		return true;
	const struct js *theirs = js_get(reply, "checks");
	enum verdict bad = server_is_ready(c) ? VERDICT_WARN : VERDICT_FAIL;
	for (size_t i = 0; i < js_len(theirs); i++) {
		const struct js *one = js_at(theirs, i);
		bool ok = js_flag(one, "ok", true);
		struct finding f = { .verdict = ok ? VERDICT_OK : bad };
		text_add_line(&f.text, js_str_or(one, "text", ""));
		text_add_line(&f.hint, js_str_or(one, "hint", ""));
		add(list, "server", js_str_or(one, "name", "?"), &f);
		good = good && f.verdict != VERDICT_FAIL;
		strbuf_release(&f.text);
		strbuf_release(&f.hint);
	}
	return good;
}

static enum colour colour_of(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(verdicts); i++)
		if (str_eq(verdicts[i].word, word))
			return verdicts[i].colour;
	return COLOUR_NONE;
}

static void print_one(const struct cli *c, const struct js *one)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const char *verdict = js_str_or(one, "verdict", "?"), *hint = js_str_or(one, "hint", "");
	if (!c->out.tty) {
		strbuf_addf(&out, "%s\t%s\t%s\t%s\t%s\n", verdict, js_str_or(one, "where", ""), js_str_or(one, "name", ""), js_str_or(one, "text", ""), hint);
		term_write(&c->out, &out);
		return;
	}
	term_addf(&c->out, &out, colour_of(verdict), "%-5s", verdict);
	strbuf_addf(&out, " %-7s %-11s %s\n", js_str_or(one, "where", ""), js_str_or(one, "name", ""), js_str_or(one, "text", ""));
	/* How to mend it stands below what was found: both may be long. */
	if (*hint)
		strbuf_addf(&out, "%*s%s\n", HINT_COLUMN, "", hint);
	term_write(&c->out, &out);
}

const struct opt doctor_options[] = {
	{ "tasks", 0, OPT_FLAG, NULL, "findings about tasks instead: what did not fit together, and what was done" },
	{ 0 },
};

/* What the server's comparisons of rows, processes and directories found lately. */
static enum err_code doctor_tasks(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "AT", "KIND", "SUBJECT", "ACTION", NULL };
	static const char *const members[] = { "at", "kind", "subject", "action" };
	AUTO_JS struct js *answer = NULL;
	int status = 0;
	struct table t;
	enum err_code rc = server_connect_running(c, e);
	if (!rc)
		rc = client_call(c->client, "GET", "/v1/reconcile", NULL, &status, &answer, e);
	if (rc)
		return rc;
	const struct js *findings = js_get(answer, "findings");
	if (c->json)
		cli_json(c, answer);
	table_init(&t, titles);
	for (size_t i = 0; i < js_len(findings) && !c->json; i++)
		for (size_t m = 0; m < ARRAY_SIZE(members); m++)
			table_add(&t, COLOUR_NONE, js_str_or(js_at(findings, i), members[m], ""));
	table_print(&t, &c->out);
	table_release(&t);
	if (!js_len(findings))
		cli_say(c, "signalbox: everything fits together (last looked %s)", js_str_or(js_get(answer, "last"), "at", "never"));
	return ERR_OK;
}

enum err_code cmd_doctor(struct cli *c, struct error *e)
{
	if (cli_flag(c, "tasks"))
		return doctor_tasks(c, e);
	AUTO_JS struct js *answer = js_object();
	struct js *list = js_array();
	js_set(answer, "checks", list);
	/* That none runs is a finding, not an error. */
	if (server_connect_running(c, NULL))
		c->client = NULL;
	bool good = check_here(c, list);
	good = check_there(c, list) && good;
	js_set_bool(answer, "ok", good);
	if (c->json)
		cli_json(c, answer);
	else
		for (size_t i = 0; i < js_len(list); i++)
			print_one(c, js_at(list, i));
	c->exit_status = good ? EXIT_DONE : EXIT_ERROR;
	return ERR_OK;
}
