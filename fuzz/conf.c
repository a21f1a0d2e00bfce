/* The server's configuration: what the checks let through can be asked for everything. */
#include "fuzz.h"
#include "core/conf.c"

static void ask(const struct conf *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		int64_t v = conf_limit(c, limits[i].name);
		CHECK(v >= limits[i].min && v <= limits[i].max);
	}
	for (struct js_iter it = js_iter(conf_providers(c)); it.key; js_next(&it)) {
		AUTO_FREE char *key = NULL;
		if (!js_str(it.value, "key_file"))
			(void)!conf_provider_key(it.value, it.key, &key, NULL);
	}
	conf_default_provider(c);
	conf_default_model(c);
	conf_agent(c, "default", "a");
	conf_environment(c, "other", "a");
	conf_codex_path(c);
	CHECK(conf_sandbox_uid(c) > 0 && conf_sandbox_gid(c) > 0);
	js_free(conf_names(c, "other", "agents"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	struct conf *c = NEW(struct conf);

	c->path = mem_strdup("");
	c->empty = js_object();
	c->root = yaml_parse((const char *)data, n, &e);
	if (c->root && check_all(c, &e) == ERR_OK)
		ask(c);
	else
		CHECK(e.code && e.text[0]);
	conf_free(c);
	return 0;
}
