/* A plan is data: what it prints, what it refuses.  Nothing is started here. */
#include "sandbox_site.h"
#include "sandbox/etc.h"

static const char *const argv[] = { "/bin/true", NULL };
static const char *const env[] = { "PATH=/bin", "TOKEN=hush", NULL };

static struct sandbox_plan plan_make(void)
{
	return (struct sandbox_plan){
		.id = "run-1", .uid = AGENT_UID, .gid = AGENT_UID, .home = "/h", .env = env, .argv = argv, .init_path = "/i/signalbox-init",
		.layers = { .mode = LAYERS_OVERLAY, .lower = { "/l1", "/l2" }, .lower_count = 2, .upper = "/u", .work = "/w", .merged = "/m" },
		.stdin_fd = PROC_NULL, .stdout_fd = PROC_NULL, .stderr_fd = PROC_NULL,
	};
}

static void print(const struct sandbox_plan *p, struct strbuf *out)
{
	strbuf_reset(out);
	sandbox_plan_print(p, out);
}

static void has_line(const struct strbuf *out, const char *line)
{
	AUTO_FREE char *framed = mem_printf("\n%s\n", line);
	AUTO_FREE char *all = mem_printf("\n%s", strbuf_str(out));

	if (!strstr(all, framed))
		fail_msg("no line '%s' in:\n%s", line, strbuf_str(out));
}

static void lacks(const struct strbuf *out, const char *text)
{
	if (strstr(strbuf_str(out), text))
		fail_msg("'%s' is in:\n%s", text, strbuf_str(out));
}

static void every_wall_is_in_the_plan(void **state UNUSED)
{
	static const char *const lines[] = { "workspace overlay lower=/l1 lower=/l2 upper=/u work=/w at=/m", "unshare-all", "unshare-user", "uid 1000", "gid 1000", "disable-userns",
		"die-with-parent", "new-session", "as-pid-1", "cap-drop ALL", "clearenv", "hostname run-1", "ro-bind /usr /usr", "perms 0444 file /etc/passwd", "proc /proc",
		"dev /dev", "remount-ro /dev", "perms 1777 size 1073741824 tmpfs /tmp", "bind /m /workspace", "bind /h /home/agent", "ro-bind /i/signalbox-init /run/signalbox/init",
		"chdir /workspace", "seccomp", "exec /bin/true" };
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct sandbox_plan p = plan_make();

	print(&p, &out);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		has_line(&out, lines[i]);
	lacks(&out, "share-net");
	lacks(&out, "resolv.conf");
}

static void the_root_becomes_read_only_last(void **state UNUSED)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct sandbox_plan p = plan_make();

	print(&p, &out);
	const char *last = strstr(strbuf_str(&out), "remount-ro /\n");
	assert_non_null(last);
	assert_null(strstr(last, "bind"));
	assert_null(strstr(last, "tmpfs"));
}

static void values_of_the_environment_are_not_printed(void **state UNUSED)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct sandbox_plan p = plan_make();

	print(&p, &out);
	has_line(&out, "setenv TOKEN");
	lacks(&out, "hush");
}

static void the_hosts_network_brings_name_resolution(void **state UNUSED)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct sandbox_plan p = plan_make();

	p.share_net = true;
	print(&p, &out);
	has_line(&out, "share-net");
	if (file_exists("/etc/resolv.conf"))
		has_line(&out, "perms 0444 file /etc/resolv.conf");
}

static void the_gateways_directory_is_read_only_and_its_port_forwarded(void **state UNUSED)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct sandbox_plan p = plan_make();

	p.gateway_dir = "/g";
	p.gateway_port = 8080;
	print(&p, &out);
	has_line(&out, "ro-bind /g /run/signalbox/gateway");
	has_line(&out, "forward 127.0.0.1:8080 /run/signalbox/gateway/model.sock");
}

static void refused(const struct sandbox_plan *p, const char *words)
{
	struct sandbox b = SANDBOX_INIT_VALUE;
	struct error e = ERROR_INIT;

	assert_int_not_equal(sandbox_start(p, &b, &e), ERR_OK);
	if (!strstr(e.text, words))
		fail_msg("'%s' does not say '%s'", e.text, words);
}

static void plans_that_cannot_be_walls_are_refused(void **state UNUSED)
{
	static const char *const no_agent[] = { NULL };
	static const char *const relative[] = { "true", NULL };
	static const char *const nameless[] = { "=x", NULL };
	struct sandbox_plan p = plan_make();

	p.id = "../x";
	refused(&p, "not a name");
	p = plan_make();
	p.argv = no_agent;
	refused(&p, "absolute path inside");
	p.argv = relative;
	refused(&p, "absolute path inside");
	p = plan_make();
	p.env = nameless;
	refused(&p, "NAME=VALUE");
	p = plan_make();
	p.layers.upper = "upper";
	refused(&p, "absolute");
	p = plan_make();
	p.layers.lower_count = 0;
	refused(&p, "layers");
	p = plan_make();
	p.gateway_port = 80;
	refused(&p, "gateway's directory");
	p.gateway_dir = "/g";
	p.share_net = true;
	refused(&p, "exclude each other");
}

static void nothing_is_bound_where_the_agent_may_have_left_a_link(void **state UNUSED)
{
	static const char *const bad[] = { "/workspace", "/workspace/x", "/home/agent/.codex", "/opt/../workspace", "/opt/..", "opt" };
	static const char *const good[] = { "/workspaces", "/opt/x", "/run/signalbox/objects" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct sandbox_plan p = plan_make();
		p.binds[p.bind_count++] = (struct sandbox_bind){ "/usr", bad[i], true };
		refused(&p, bad[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		AUTO_STRBUF struct strbuf out = STRBUF_INIT;
		AUTO_FREE char *line = mem_printf("ro-bind /usr %s", good[i]);
		struct sandbox_plan p = plan_make();

		p.binds[p.bind_count++] = (struct sandbox_bind){ "/usr", good[i], false };
		print(&p, &out);
		has_line(&out, line);
	}
}

static void too_large_an_environment_is_a_limit_and_not_a_crash(void **state UNUSED)
{
	static const char *many[3000];
	struct sandbox_plan p = plan_make();

	for (size_t i = 0; i + 1 < ARRAY_SIZE(many); i++)
		many[i] = "A=1";
	p.env = many;
	refused(&p, "more than 1024 operations");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_wall_is_in_the_plan),
		cmocka_unit_test(the_root_becomes_read_only_last),
		cmocka_unit_test(values_of_the_environment_are_not_printed),
		cmocka_unit_test(the_hosts_network_brings_name_resolution),
		cmocka_unit_test(the_gateways_directory_is_read_only_and_its_port_forwarded),
		cmocka_unit_test(plans_that_cannot_be_walls_are_refused),
		cmocka_unit_test(nothing_is_bound_where_the_agent_may_have_left_a_link),
		cmocka_unit_test(too_large_an_environment_is_a_limit_and_not_a_crash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
