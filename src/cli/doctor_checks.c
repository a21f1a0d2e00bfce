/* The machine round a run: space, files, memory, clock, who ends whom at a logout or a restart, model keys and their gateway. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/doctor.h"
#include "cli/server.h"
#include "cli/text.h"
#include <dirent.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#define DISK_LEAST ((int64_t)512 << 20)
#define DISK_LITTLE ((int64_t)5 << 30)
#define INODES_LEAST 10000
#define INODES_LITTLE 200000
#define MEMORY_LITTLE_KIB ((int64_t)1 << 20)
#define FILES_LITTLE 4096	      /* each watcher and each run takes some */
#define CLOCK_OLDEST "2026-01-01T00:00:00.000Z" /* no right clock is behind the program that reads it */
#define GATEWAY_TIMEOUT_MS 10000
#define UNIT_TEXT_MAX 4096

/* The data directory, or the nearest above it that is there. */
static bool data_space(const struct doctor *d, struct statvfs *ret)
{
	AUTO_FREE char *dir = mem_strdup(cli_setting(d->c, SET_DATA));
	while (!file_is_dir(dir) && !str_eq(dir, "/") && !str_eq(dir, ".")) {
		char *up = file_dirname(dir);
		free(dir);
		dir = up;
	}
	return statvfs(dir, ret) == 0;
}

static enum verdict judge(int64_t left, int64_t least, int64_t little)
{
	return left < least ? VERDICT_FAIL : left < little ? VERDICT_WARN : VERDICT_OK;
}

void doctor_disk(const struct doctor *d, struct finding *f)
{
	struct statvfs vfs;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	if (!data_space(d, &vfs)) {
		doctor_conclude(f, VERDICT_WARN, "cannot be told", "");
		return;
	}
	int64_t left = (int64_t)vfs.f_bavail * (int64_t)vfs.f_frsize;
	str_add_size(&text, left);
	strbuf_addf(&text, " free for %s", cli_setting(d->c, SET_DATA));
	enum verdict verdict = judge(left, DISK_LEAST, DISK_LITTLE);
	doctor_conclude(f, verdict, strbuf_str(&text), verdict == VERDICT_OK ? "" : "signalbox prune, signalbox rm old tasks, or choose another place with --data");
}

void doctor_inodes(const struct doctor *d, struct finding *f)
{
	struct statvfs vfs;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	if (!data_space(d, &vfs) || !vfs.f_files) { /* some file systems do not count them */
		doctor_conclude(f, VERDICT_OK, "not counted here", "");
		return;
	}
	strbuf_addf(&text, "%llu files can still be made", (unsigned long long)vfs.f_favail);
	enum verdict verdict = judge((int64_t)vfs.f_favail, INODES_LEAST, INODES_LITTLE);
	doctor_conclude(f, verdict, strbuf_str(&text), verdict == VERDICT_OK ? "" : "signalbox prune, or a data directory on a file system with more inodes");
}

void doctor_memory(const struct doctor *d UNUSED, struct finding *f)
{
	AUTO_STRBUF struct strbuf info = STRBUF_LIMIT(PROBE_OUTPUT_MAX), text = STRBUF_INIT;
	const char *at = file_read("/proc/meminfo", PROBE_OUTPUT_MAX, &info, NULL) ? NULL : strstr(strbuf_str(&info), "MemAvailable:");
	int64_t kib = at ? strtoll(at + strlen("MemAvailable:"), NULL, 10) : -1;
	if (kib < 0) {
		doctor_conclude(f, VERDICT_OK, "cannot be told", "");
		return;
	}
	str_add_size(&text, kib * 1024);
	strbuf_adds(&text, " available");
	bool little = kib < MEMORY_LITTLE_KIB;
	doctor_conclude(f, little ? VERDICT_WARN : VERDICT_OK, strbuf_str(&text), little ? "lower limits.memory and limits.running in the configuration, or free some" : "");
}

void doctor_files(const struct doctor *d UNUSED, struct finding *f)
{
	struct rlimit l;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	if (getrlimit(RLIMIT_NOFILE, &l)) {
		doctor_conclude(f, VERDICT_WARN, "cannot be told", "");
		return;
	}
	strbuf_addf(&text, "a process may open %llu files", (unsigned long long)l.rlim_max);
	bool little = l.rlim_max < FILES_LITTLE;
	doctor_conclude(f, little ? VERDICT_WARN : VERDICT_OK, strbuf_str(&text), little ? "raise it: `ulimit -Hn 65536`, or LimitNOFILE=65536 in the service" : "");
}

void doctor_clock(const struct doctor *d UNUSED, struct finding *f)
{
	struct timex t = { 0 };
	char now[RFC3339_SIZE];
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	int state = adjtimex(&t);
	clock_rfc3339(clock_wall_ms(), now);
	strbuf_addf(&text, "%s%s", now, state < 0 || state == TIME_ERROR || t.status & STA_UNSYNC ? ", not synchronised by a time service" : ", synchronised");
	bool wrong = clock_wall_ms() < clock_parse_rfc3339(CLOCK_OLDEST);
	doctor_conclude(f, wrong ? VERDICT_FAIL : VERDICT_OK, strbuf_str(&text), wrong ? "set the clock: certificates and ages depend on it (timedatectl set-ntp true)" : "");
}

static bool says_kill(const char *path, bool *ret)
{
	AUTO_STRBUF struct strbuf conf = STRBUF_INIT;
	if (file_read(path, PROBE_OUTPUT_MAX, &conf, NULL))
		return false;
	for (const char *line = strbuf_str(&conf); line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (str_starts(line, "KillUserProcesses="))
			*ret = line[strlen("KillUserProcesses=")] == 'y' || line[strlen("KillUserProcesses=")] == '1' || line[strlen("KillUserProcesses=")] == 't';
	}
	return true;
}

/* The last word counts, drop-ins after the file itself. */
static bool logout_kills(void)
{
	static const char dir[] = "/etc/systemd/logind.conf.d";
	bool kills = false;
	says_kill("/etc/systemd/logind.conf", &kills);
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		AUTO_FREE char *path = file_join(dir, names[i]->d_name);
		if (str_ends(names[i]->d_name, ".conf"))
			says_kill(path, &kills);
		free(names[i]);
	}
	free(names);
	return kills;
}

static bool lingers(void)
{
	const struct passwd *pw = getpwuid(geteuid());
	AUTO_FREE char *path = pw ? file_join("/var/lib/systemd/linger", pw->pw_name) : NULL;
	return path && file_exists(path);
}

void doctor_login(const struct doctor *d UNUSED, struct finding *f)
{
	if (!logout_kills())
		doctor_conclude(f, VERDICT_OK, "logging out leaves runs alive", "");
	else if (geteuid() == 0 || lingers())
		doctor_conclude(f, VERDICT_OK, "logging out ends what you started in the session, but not what runs as a service", "");
	else
		doctor_conclude(f, VERDICT_WARN, "logging out ends your server and its runs", "loginctl enable-linger, and run the server as a user service");
}

/* "signalbox.service" of ".../signalbox.service/..." in /proc/PID/cgroup; NULL when the server is no service. */
static char *service_of(int64_t pid)
{
	AUTO_FREE char *path = mem_printf("/proc/%" PRId64 "/cgroup", pid);
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(UNIT_TEXT_MAX);
	const char *end = pid && !file_read(path, UNIT_TEXT_MAX, &text, NULL) ? strstr(strbuf_str(&text), ".service") : NULL;
	/* The innermost one: user@1000.service holds the units of that user. */
	for (const char *next = end; next; next = strstr(next + 1, ".service"))
		end = next;
	if (!end)
		return NULL;
	const char *from = end;
	while (from > strbuf_str(&text) && from[-1] != '/')
		from--;
	return mem_strndup(from, (size_t)(end - from) + strlen(".service"));
}

void doctor_service(const struct doctor *d, struct finding *f)
{
	AUTO_FREE char *unit = service_of(d->server_pid);
	AUTO_STRBUF struct strbuf mode = STRBUF_INIT, text = STRBUF_INIT;
	if (!unit || str_starts(unit, "user@")) {
		doctor_conclude(f, VERDICT_OK, d->server_pid ? "the server is no service of systemd" : "no server of this machine was asked", "");
		return;
	}
	const char *own[] = { "systemctl", geteuid() == 0 ? "--system" : "--user", "show", "-p", "KillMode", "--value", unit, NULL };
	bool told = doctor_probe(own, &mode);
	bool good = told && str_eq(strbuf_str(&mode), "process");
	strbuf_addf(&text, "%s has KillMode=%s", unit, told ? strbuf_str(&mode) : "?");
	doctor_conclude(f, good || !told ? VERDICT_OK : VERDICT_WARN, strbuf_str(&text), good || !told ? "" : "a restart ends the runs: set KillMode=process and Delegate=yes, as deploy/signalbox.service does");
}

void doctor_provider(const struct doctor *d, struct finding *f)
{
	if (!d->conf) {
		doctor_conclude(f, VERDICT_WARN, "cannot be told: the settings are broken", "");
		return;
	}
	const char *name = conf_default_provider(d->conf);
	const struct js *provider = js_get(conf_providers(d->conf), name);
	AUTO_FREE char *key = NULL;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	struct error e = ERROR_INIT;
	bool asks_none = provider && !js_str(provider, "key") && !js_str(provider, "key_env") && !js_str(provider, "key_file");
	bool has = asks_none || (provider ? conf_provider_key(provider, name, &key, &e) == ERR_OK : !str_empty(getenv("OPENAI_API_KEY")));
	if (key)
		memset(key, 0, strlen(key));
	strbuf_addf(&text, "%s: %s", name, asks_none ? "needs no key" : has ? "has a key" : e.text[0] ? e.text : "has no key");
	doctor_conclude(f, has ? VERDICT_OK : VERDICT_WARN, strbuf_str(&text),
		has ? "" : "export OPENAI_API_KEY, or configure model.providers; agents that need no model work without");
}

void doctor_gateway(const struct doctor *d, struct finding *f)
{
	AUTO_FREE char *path = file_join(cli_setting(d->c, SET_RUNTIME), "gateway-control.sock");
	struct client_config cfg = { .socket = path, .connect_timeout_ms = GATEWAY_TIMEOUT_MS, .timeout_ms = GATEWAY_TIMEOUT_MS };
	AUTO_JS struct js *reply = NULL;
	struct client *client = NULL;
	struct error e = ERROR_INIT;
	int status = 0;
	enum err_code rc = client_open(&cfg, &client, &e);
	if (!rc)
		rc = client_call(client, "GET", "/version", NULL, &status, &reply, &e);
	client_close(client);
	if (!rc)
		doctor_conclude(f, VERDICT_OK, "the door to models answers", "");
	else if (!d->server_pid)
		doctor_conclude(f, VERDICT_OK, "does not run now", "");
	else
		doctor_conclude(f, VERDICT_FAIL, e.text, "the server restarts it by itself; its log says why it ended: signalbox server status tells where");
}
