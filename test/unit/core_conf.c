/* The server's settings: defaults, ranges, errors that name the place. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/conf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static enum err_code load(const char *text, struct conf **ret, struct error *e)
{
	char *dir = NULL;
	assert_int_equal(file_tmpdir("/tmp", "conf-", &dir, NULL), ERR_OK);
	char *path = file_join(dir, "c.yaml");
	assert_int_equal(file_replace(path, text, strlen(text), 0600, FILE_NOSYNC, NULL), ERR_OK);
	enum err_code rc = conf_load(path, ret, e);
	assert_int_equal(file_remove_tree(dir, NULL), ERR_OK);
	free(path);
	free(dir);
	return rc;
}

static void limits_have_defaults_and_take_sizes_and_durations(void **state)
{
	struct conf *c = NULL;
	(void)state;
	assert_int_equal(load("limits: {memory: 512M, timeout: 90s, running: 3}\n", &c, NULL), ERR_OK);
	assert_int_equal(conf_limit(c, "memory"), 512 << 20);
	assert_int_equal(conf_limit(c, "timeout"), 90000);
	assert_int_equal(conf_limit(c, "running"), 3);
	assert_int_equal(conf_limit(c, "pids"), 1024);
	conf_free(c);
}

static void a_project_may_have_limits_of_its_own(void **state)
{
	struct conf *c = NULL;
	(void)state;
	assert_int_equal(load("projects: {beta: {running: 2, uploads: 3}, default: {queued: 7}}\n", &c, NULL), ERR_OK);
	assert_int_equal(conf_project_limit(c, "beta", "running"), 2);
	assert_int_equal(conf_project_limit(c, "default", "queued"), 7);
	assert_int_equal(conf_project_limit(c, "beta", "queued"), 1000); /* all of them are passed over when it is full */
	assert_true(conf_project_limit(c, "default", "running") == INT64_MAX && conf_project_limit(c, "alpha", "queued") == INT64_MAX);
	assert_true(conf_has_project_limit(c, "uploads"));
	conf_free(c);
	assert_int_equal(load("projects: {beta: {uploads: 2}}\n", &c, NULL), ERR_OK);
	assert_false(conf_has_project_limit(c, "queued") || conf_has_project_limit(c, "running"));
	conf_free(c);
}

static void nonsense_is_refused_with_its_place_and_the_range(void **state)
{
	static const struct { const char *text, *expected; } bad[] = {
		{ "limits: {memroy: 1G}\n", "memroy" }, { "limits: 3\n", "limits: expected an object" }, { "agents: x\n", "agents" }, { "environments: [1]\n", "environments" },
		{ "model: {providers: [1]}\n", "providers" }, { "limits: {running: 0}\n", "running" }, { "limits: {timeout: -5}\n", "timeout" },
		{ "limits: {timeout: 9999d}\n", "timeout" }, { "limits: {timeout: 9223372036854775807}\n", "timeout" }, { "limits: {timeout: -9223372036854775807}\n", "timeout" },
		{ "limits: {timeout: 18446744073709552}\n", "timeout" }, { "modle: {}\n", "modle" }, { "agents: {x: {adaptor: command}}\n", "agents.x" },
		{ "limits: [1\n", "line" }, { "sandbox: {uid: 0}\n", "sandbox.uid" }, { "sandbox: {uid: nobody}\n", "sandbox.uid" },
		{ "environments: {strict: {approvals: {ask: sometimes}}}\n", "environments.strict: approvals.ask" },
		{ "environments: {x: {projects: beta}}\n", "environments.x.projects" }, { "agents: {x: {projects: [ok, No]}}\n", "agents.x.projects[1]" },
		{ "agents: {x: {projects: [3]}}\n", "agents.x.projects[0]" },
		{ "projects: {beta: {running: 0}}\n", "projects.beta.running" }, { "projects: {beta: {memory: 1}}\n", "projects.beta.memory" },
		{ "projects: {No: {running: 1}}\n", "projects" }, { "projects: [beta]\n", "projects" }, { "projects: {beta: {queued: many}}\n", "projects.beta.queued" },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct conf *c = NULL;
		struct error e = ERROR_INIT;
		assert_int_not_equal(load(bad[i].text, &c, &e), ERR_OK);
		assert_non_null(strstr(e.text, bad[i].expected));
		assert_null(c);
	}
}

static void agents_and_environments_are_for_the_projects_that_they_name(void **state)
{
	static const struct { const char *project, *name; bool has; } looks[] = { { "default", "mine", true }, { "beta", "mine", false }, { "beta", "ours", true }, { "default", "ours", true },
		{ "gamma", "ours", false }, { "gamma", "all", true }, { "gamma", "none", false }, { "*", "mine", false }, { "", "mine", false } };
	struct conf *c = NULL;
	(void)state;
	assert_int_equal(load("environments: {mine: {}, ours: {projects: [beta]}, all: {projects: ['*']}}\nagents: {mine: {}, ours: {projects: [beta]}, all: {projects: ['*']}}\n", &c, NULL), ERR_OK);
	for (size_t i = 0; i < ARRAY_SIZE(looks); i++) {
		assert_true((conf_environment(c, looks[i].project, looks[i].name) != NULL) == looks[i].has);
		assert_true((conf_agent(c, looks[i].project, looks[i].name) != NULL) == looks[i].has);
	}
	AUTO_JS struct js *names = conf_names(c, "gamma", "agents");
	assert_int_equal(js_len(names), 1);
	assert_string_equal(js_text(js_at(names, 0)), "all");
	conf_free(c);
}

static void a_key_comes_from_the_file_it_names(void **state)
{
	char *dir = NULL, *key = NULL;
	(void)state;
	assert_int_equal(file_tmpdir("/tmp", "conf-", &dir, NULL), ERR_OK);
	char *path = file_join(dir, "key");
	assert_int_equal(file_replace(path, "sk-x\n", 5, 0600, FILE_NOSYNC, NULL), ERR_OK);
	struct js *provider = js_object();
	js_set_str(provider, "key_file", path);
	assert_int_equal(conf_provider_key(provider, "p", &key, NULL), ERR_OK);
	assert_string_equal(key, "sk-x");
	free(key);
	js_del(provider, "key_file");
	assert_int_equal(conf_provider_key(provider, "p", &key, NULL), ERR_NOT_FOUND);
	js_free(provider);
	assert_int_equal(file_remove_tree(dir, NULL), ERR_OK);
	free(path);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_have_defaults_and_take_sizes_and_durations), cmocka_unit_test(nonsense_is_refused_with_its_place_and_the_range),
		cmocka_unit_test(a_project_may_have_limits_of_its_own), cmocka_unit_test(a_key_comes_from_the_file_it_names), cmocka_unit_test(agents_and_environments_are_for_the_projects_that_they_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
