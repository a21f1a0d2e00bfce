/* Proofs at submit, and what a run's fetch is given. */
#include "core/proof.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "core/fetch_child.h"
#include "core/inside.h"
#include "core/secrets.h"
#include "source/source.h"

#define PROOF_TIMEOUT_MS ((int64_t)30000)
#define PROOFS_MAX 16 /* at once: each holds a thread of the API */

/* The default project is the owner's; others get neither the machine's files nor the keys of whoever runs the server. */
static void narrow_rules(struct js *rules)
{
	AUTO_JS struct js *allowed = js_get(rules, "schemes") ? js_ref(js_get(rules, "schemes")) : NULL;
	struct js *schemes = js_array();
	js_set_bool(rules, "user_keys", false);
	js_set_bool(rules, "ssh_config", false);
	for (size_t i = 0; i < js_len(allowed); i++)
		if (!str_eq(js_text(js_at(allowed, i)), "file"))
			js_push_str(schemes, js_text(js_at(allowed, i)));
	if (allowed)
		js_set(rules, "schemes", schemes);
	else
		js_free(schemes); /* what is not said does not hold files either */
}

/* The rules without the credentials. A directory that was named as one is read whatever they say of URLs. */
static struct js *rules_of(struct core *c, const char *project, const struct js *source)
{
	static const char *const members[] = { "schemes", "allow_hosts", "deny_hosts", "private", "user_keys", "ssh_config", NULL };
	const struct js *section = conf_section(c->config, "source");
	struct js *rules = js_object();
	for (const char *const *m = members; *m; m++)
		if (js_get(section, *m))
			js_set(rules, *m, js_ref(js_get(section, *m)));
	if (!str_eq(project, PROJECT_DEFAULT))
		narrow_rules(rules);
	else if (js_flag(source, "local", false)) {
		struct js *schemes = js_array();
		js_push_str(schemes, "file");
		js_set(rules, "schemes", schemes);
	}
	return rules;
}

static void name_credential(struct js *source, const struct secret *s)
{
	struct js *o = js_object();
	js_set_str(o, "name", s->name);
	js_set_str(o, "fingerprint", s->fingerprint);
	js_set(source, "credential", o);
}

static enum err_code open_credential(struct core *c, const char *project, struct js *source, int *ret_fd, struct error *e)
{
	AUTO(secret_release) struct secret s = { .name = NULL };
	enum err_code rc = secret_find(c, project, js_str(source, "url"), &s, e);
	if (rc || !s.name)
		return rc;
	name_credential(source, &s);
	return credential_pack(&s.credential, ret_fd, e);
}

static struct js *make_job(struct core *c, const char *project, const struct js *source, bool secret)
{
	struct js *job = js_object();
	js_set_str(job, "kind", "prove");
	js_set_str(job, "url", js_str(source, "url"));
	js_set(job, "ref", js_get(source, "ref") ? js_ref(js_get(source, "ref")) : js_null());
	js_set_str(job, "credential", js_str(js_get(source, "credential"), "fingerprint"));
	js_set_bool(job, "secret", secret);
	js_set(job, "rules", rules_of(c, project, source));
	return job;
}

static void take_result(struct js *source, const struct js *result)
{
	js_set_bool(source, "proven", true);
	js_set_str(source, "commit", js_str(result, "commit"));
	js_set_str(source, "branch", js_str(result, "branch"));
}

static enum err_code ask(struct core *c, const char *project, struct js *source, int fd, struct error *e)
{
	AUTO_JS struct js *job = make_job(c, project, source, fd >= 0);
	AUTO_JS struct js *result = NULL;
	enum err_code rc = fetch_child_run(c, project, job, fd, PROOF_TIMEOUT_MS, &result, e);
	if (!rc)
		take_result(source, result);
	if (rc != ERR_UNREACHABLE && rc != ERR_TIMEOUT && rc != ERR_BUSY && rc != ERR_IO)
		return rc;
	log_info("submit: %s; the run will ask again", e->text);
	error_clear(e);
	return ERR_OK;
}

/* What the server does for tasks that do not say otherwise. */
static void set_defaults(struct core *c, struct js *source)
{
	static const char *const members[] = { "submodules", "lfs", "depth", NULL };
	const struct js *section = conf_section(c->config, "source");
	for (const char *const *m = members; *m; m++)
		if (!js_get(source, *m) && js_get(section, *m))
			js_set(source, *m, js_ref(js_get(section, *m)));
}

enum err_code proof_take(struct core *c, const char *project, struct js *source, struct error *e)
{
	AUTO_JS struct js *rules = rules_of(c, project, source);
	AUTO_CLOSE int fd = -1;
	if (!str_eq(js_str(source, "kind"), "git"))
		return ERR_OK;
	enum err_code rc = source_check_rules(source, rules, e);
	set_defaults(c, source);
	if (rc || !source_needs_proof(source))
		return rc;
	rc = open_credential(c, project, source, &fd, e);
	if (rc)
		return rc;
	if (atomic_fetch_add(&c->proofs_now, 1) < PROOFS_MAX)
		rc = ask(c, project, source, fd, e); /* over that, the run asks */
	atomic_fetch_sub(&c->proofs_now, 1);
	return rc;
}

struct renewed {
	const char *task, *credential;
};

/* What keeps a task's mirror in the cache is found by this. */
static enum err_code renew_op(struct db_conn *conn, void *arg, struct error *e)
{
	const struct renewed *r = arg;
	return db_exec(conn, e, "UPDATE tasks SET spec=CASE WHEN ?2='' THEN json_remove(spec,'$.source.credential') ELSE json_set(spec,'$.source.credential',json(?2)) END WHERE id=?1",
		"ss", r->task, r->credential);
}

static enum err_code note_credential(struct core *c, const char *task, const struct js *source, struct error *e)
{
	AUTO_FREE char *text = js_get(source, "credential") ? js_dump(js_get(source, "credential")) : NULL;
	struct renewed r = { .task = task, .credential = text ? text : "" };
	return db_write(c->db, renew_op, &r, e);
}

enum err_code proof_equip(struct core *c, const char *project, struct js *spec, int *ret_fd, struct error *e)
{
	struct js *source = js_get(spec, "source");
	AUTO_CLOSE int fd = -1;
	*ret_fd = -1;
	if (!str_eq(js_str(source, "kind"), "git"))
		return ERR_OK;
	if (js_str(source, "commit")) /* an earlier run of the task has fetched it: that was a proof too */
		js_set_bool(source, "proven", true);
	AUTO_JS struct js *before = js_get(source, "credential") ? js_ref(js_get(source, "credential")) : NULL;
	js_del(source, "credential");
	enum err_code rc = open_credential(c, project, source, &fd, e);
	if (rc)
		return rc;
	if (!str_eq(js_str(before, "fingerprint"), js_str(js_get(source, "credential"), "fingerprint"))) {
		js_set_bool(source, "proven", false);
		rc = note_credential(c, js_str(spec, "task"), source, e);
	}
	if (rc)
		return rc;
	struct js *fetch = js_object();
	js_set(fetch, "rules", rules_of(c, project, source));
	js_set_bool(fetch, "secret", fd >= 0);
	if (fd >= 0) {
		AUTO_FREE char *scope = secret_scope(js_str(js_get(source, "credential"), "name"));
		js_set_str(fetch, "scope", scope);
	}
	js_set(spec, "fetch", fetch);
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
}
