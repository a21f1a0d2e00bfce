/* The server's settings (signalbox.yaml): checked whole at the door, then read-only.  Defaults are in one table (conf.c).
 *
 *   limits:        running, running_per_repository, queued, memory, pids, cpu_percent, file_size, output, timeout, setup_timeout, stall_timeout, verify_timeout
 *   model:         default_provider, default_model, providers: {name: {base_url, key | key_env | key_file, wire: responses | messages}}
 *   agents:        {name: {adapter, command: [...], path, model, env, authenticate, projects}}
 *   environments:  {name: {setup, setup_network, verify, env, limits, projects}}   projects: [name, "*"]: who may use it beside the default one
 *   sandbox:       uid, gid (the identity that a root server gives to sandboxes); layers: auto (overlay where it works), overlay, plain
 *   codex:         path
 *   source:        schemes, allow_hosts, deny_hosts, private, user_keys, ssh_config (source/policy.h); submodules, lfs, depth (for tasks that do not say);
 *                  credentials: {git:HOST[/PATH] | ssh:HOST[/PATH]: {key | key_env | key_file, user, known_hosts | known_hosts_file}}
 *   projects:      {name: {running, queued, uploads}}: what one project may have of these limits; unlimited unless set
 *   cache:         max_bytes */
#pragma once
#include "base/js.h"

#define CONFIG_SANDBOX_ID 64913 /* an id that no Debian account range hands out */

struct conf;

/* From `path`, or from the first existing file of paths_config_files() when it is NULL; no file at all gives the defaults. */
MUST_USE enum err_code conf_load(const char *path, struct conf **ret, struct error *e);
void conf_free(struct conf *c);
const char *conf_path(const struct conf *c);		    /* "" for built-in defaults */
const struct js *conf_section(const struct conf *c, const char *name); /* as it stands in the file; NULL when it does not */
int64_t conf_limit(const struct conf *c, const char *name);	    /* one of the limits; ms and bytes */
int64_t conf_project_limit(const struct conf *c, const char *project, const char *name); /* running, queued, uploads; INT64_MAX: none is set */
bool conf_has_project_limit(const struct conf *c, const char *name);
extern const char *const conf_task_limit_names[];		    /* those that a task may set for itself; ends with NULL */
const struct js *conf_task_limits(const struct conf *c);	    /* {name: value} of them; made once, since each submit needs it */
const struct js *conf_providers(const struct conf *c);	    /* {name: {base_url, ...}}; never NULL */
const char *conf_default_provider(const struct conf *c);
const char *conf_default_model(const struct conf *c);	    /* NULL: the adapter's own */
const struct js *conf_agent(const struct conf *c, const char *project, const char *name);       /* NULL when not configured, or not for that project */
const struct js *conf_environment(const struct conf *c, const char *project, const char *name); /* the same */
int64_t conf_sandbox_uid(const struct conf *c);
int64_t conf_sandbox_gid(const struct conf *c);
const char *conf_layers(const struct conf *c);     /* "auto", "overlay" or "plain" */
const char *conf_codex_path(const struct conf *c); /* NULL: search */
int64_t conf_cache_bytes(const struct conf *c);
struct js *conf_names(const struct conf *c, const char *project, const char *section); /* array of names of agents or environments; taken by the caller */
/* A limit's permitted range, for errors and docs; false for an unknown name. */
bool conf_limit_range(const char *name, int64_t *ret_min, int64_t *ret_max, bool *ret_is_duration);
/* A per-task value: number, "30m" or "512M". */
MUST_USE enum err_code conf_parse_limit(const char *name, const struct js *value, int64_t *ret, struct error *e);
/* The key of a provider from key, key_env or key_file; ERR_NOT_FOUND when it has none. The caller frees and wipes. */
MUST_USE enum err_code conf_provider_key(const struct js *provider, const char *name, char **ret, struct error *e);
