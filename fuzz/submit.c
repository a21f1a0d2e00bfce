/* Bodies of POST /v1/tasks, from the bytes to the spec: everything but the snapshot of a local directory and the transaction. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct core *c = the_core();
	struct error e = ERROR_INIT;
	struct submit s = { .row = { .phase = PHASE_QUEUED } };
	AUTO_JS struct js *body = js_parse((const char *)data, n, NULL);

	if (js_type(body) != JS_OBJECT || str_eq(js_str(js_get(body, "source"), "kind"), "local"))
		return 0;
	s.row.spec = js_object();
	js_set_str(s.row.spec, "prompt", js_str(body, "prompt"));
	s.row.name = mem_strdup(js_str(body, "name"));
	if (resolve(c, body, &s, &e) == ERR_OK) {
		CHECK(s.row.name == NULL || str_is_name(s.row.name));
		fuzz_is_json(s.row.spec);
	} else {
		CHECK(e.code && e.text[0]);
	}
	task_row_release(&s.row);
	return 0;
}
