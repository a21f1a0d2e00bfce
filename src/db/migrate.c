/* Brings a file's schema to this program's version: all missing steps in one transaction, so that a file is either as old
 * as it was or as new as it should be; an older file is copied aside first. */
#include "base/check.h"
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "db/backend.h"
#include <stdio.h>

static const char TABLE_SQL[] = "CREATE TABLE IF NOT EXISTS migrations ("
				"version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)";
static const char RECORD_SQL[] = "INSERT INTO migrations (version, name, applied_at) VALUES (?, ?, ?)";

static enum err_code step_apply(struct db_conn *c, const struct db_migration *m, struct error *e)
{
	char at[RFC3339_SIZE];
	clock_rfc3339(clock_wall_ms(), at);
	enum err_code rc = c->backend->script(c, m->sql, m->version, e);
	if (!rc)
		rc = db_exec(c, e, RECORD_SQL, "iss", (int64_t)m->version, m->name, at);
	return rc ? error_wrap(e, "migration %d (%s)", m->version, m->name) : ERR_OK;
}

static enum err_code steps_apply(struct db_conn *c, const struct db_migration *migrations, size_t n, struct error *e)
{
	enum err_code rc = c->backend->tx(c, DB_TX_BEGIN_WRITE, e);
	if (!rc)
		rc = db_exec(c, e, TABLE_SQL, "");
	for (size_t i = (size_t)c->version; !rc && i < n; i++)
		rc = step_apply(c, &migrations[i], e);
	db_statements_end(c);
	if (!rc)
		rc = c->backend->tx(c, DB_TX_COMMIT, e);
	if (rc)
		c->backend->tx(c, DB_TX_ROLLBACK, NULL);
	return rc;
}

/* Under a temporary name first: what bears the backup's name is complete. */
static enum err_code copy_aside(struct db_conn *c, const char *path, struct error *e)
{
	AUTO_FREE char *to = mem_printf("%s.backup-v%d", path, c->version);
	AUTO_FREE char *tmp = mem_printf("%s.tmp", to);
	AUTO_FREE char *dir = file_dirname(path);
	(void)unlink(tmp); /* left by a run that was killed here */
	enum err_code rc = c->backend->backup(c, tmp, e);
	if (!rc && rename(tmp, to))
		rc = error_errno(e, "rename '%s' to '%s'", tmp, to);
	if (!rc)
		rc = file_sync_dir(dir, e);
	if (rc)
		(void)unlink(tmp);
	return rc ? error_wrap(e, "back up before migrating") : ERR_OK;
}

enum err_code db_migrate(struct db_conn *c, const char *path, const struct db_migration *migrations, size_t n, struct error *e)
{
	for (size_t i = 0; i < n; i++)
		CHECK(migrations[i].version == (int)i + 1);
	if ((size_t)c->version == n)
		return ERR_OK;
	enum err_code rc = c->version > 0 ? copy_aside(c, path, e) : ERR_OK;
	if (!rc)
		rc = steps_apply(c, migrations, n, e);
	if (rc)
		return rc;
	c->version = (int)n;
	return ERR_OK;
}
