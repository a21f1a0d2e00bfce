/* Bodies of POST /v1/tasks, from the bytes to the spec: everything but the transaction and what asks processes about a source. */
#include "fuzz.h"
#include "base/yaml.h"
#include "core/submit.c"

static const char config[] = "/proc/self/exe"; /* a program that is there */

static struct core *the_core(void)
{
	static struct core *c;
	char path[] = "/tmp/fuzz-conf-XXXXXX";
	if (c)
		return c;
	c = NEW(struct core);
	pthread_mutex_init(&c->sched_lock, NULL);
	AUTO_CLOSE int fd = mkstemp(path);
	static const char text[] = "agents: {mine: {adapter: command, command: [make, all], model: m}}\n"
		"environments: {e: {setup: x, env: {A: b}, limits: {memory: 1G}}}\ncodex: {path: /bin/true}\n";
	CHECK(fd >= 0 && write(fd, text, sizeof(text) - 1) == (ssize_t)sizeof(text) - 1);
	struct conf *conf = NULL;
	CHECK(conf_load(path, &conf, NULL) == ERR_OK);
	c->config = conf;
	unlink(path);
	c->empty_snapshot = js_object();
	c->data = mem_strdup("/nonexistent");
	c->exe = mem_strdup(config);
	return c;
}

/* A directory is looked at on the disk: not here. */
static void check_source(const struct js *given)
{
	AUTO_JS struct js *source = given ? js_copy(given) : NULL;
	AUTO_FREE char *key = NULL;
	if (source && !str_eq(js_str(source, "kind"), "local") && source_check(source, NULL) == ERR_OK)
		(void)!source_repo_key(source, &key, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct core *c = the_core();
	struct error e = ERROR_INIT;
	const struct caller by = { .who = "fuzz", .project = PROJECT_DEFAULT };
	struct submission s = { .row = { .phase = PHASE_QUEUED } };
	AUTO_JS struct js *body = js_parse((const char *)data, n, NULL);

	if (js_type(body) != JS_OBJECT)
		return 0;
	check_source(js_get(body, "source"));
	js_del(body, "source");
	s.row.spec = js_object();
	js_set_str(s.row.spec, "prompt", js_str(body, "prompt"));
	s.row.name = mem_strdup(js_str(body, "name"));
	if (resolve(c, by, body, &s, &e) == ERR_OK) {
		CHECK(s.row.name == NULL || str_is_name(s.row.name));
		fuzz_is_json(s.row.spec);
	} else {
		CHECK(e.code && e.text[0]);
	}
	task_row_release(&s.row);
	return 0;
}
