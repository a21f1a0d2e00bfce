/* The database's history.  project, created_by and actor are there from the first: who owns and who did. */
#include "core/migrations.h"
#include "base/cleanup.h"

const struct db_migration migrations[] = {
	{ 1, "tasks, runs, events, queue, commands, gates",
	  "CREATE TABLE tasks("
	  " id TEXT PRIMARY KEY, name TEXT, project TEXT NOT NULL, repo TEXT NOT NULL, created_by TEXT NOT NULL,"
	  " session_id TEXT NOT NULL, phase TEXT NOT NULL, spec TEXT NOT NULL, priority INTEGER NOT NULL, labels TEXT NOT NULL,"
	  " created_at INTEGER NOT NULL, started_at INTEGER, completed_at INTEGER, created_mono INTEGER NOT NULL, boot TEXT NOT NULL, house_failures INTEGER NOT NULL DEFAULT 0,"
	  " agent_failures INTEGER NOT NULL DEFAULT 0, last_seq INTEGER NOT NULL, run_n INTEGER NOT NULL,"
	  " reason TEXT, error TEXT, progress TEXT, result TEXT, beat_at INTEGER, cancel_asked INTEGER NOT NULL DEFAULT 0, generation INTEGER NOT NULL DEFAULT 1,"
	  " turn INTEGER NOT NULL DEFAULT 1, turn_prompt TEXT);"
	  "CREATE TABLE messages(task TEXT NOT NULL, n INTEGER NOT NULL, text TEXT NOT NULL, actor TEXT NOT NULL, created_at INTEGER NOT NULL,"
	  " delivered INTEGER NOT NULL, PRIMARY KEY(task, n)) WITHOUT ROWID;"
	  "CREATE UNIQUE INDEX tasks_name ON tasks(name, repo, project) WHERE name IS NOT NULL;" /* by name first: that is how one is looked for */
	  "CREATE INDEX tasks_live ON tasks(phase) WHERE phase NOT IN ('succeeded','failed','canceled','timed_out','lost');"
	  "CREATE TABLE queue(task TEXT PRIMARY KEY, priority INTEGER NOT NULL, repo TEXT NOT NULL, not_before INTEGER NOT NULL,"
	  " boot TEXT NOT NULL, expires_mono INTEGER NOT NULL, expires_wall INTEGER NOT NULL) WITHOUT ROWID;"
	  "CREATE INDEX queue_order ON queue(priority DESC, task);"
	  "CREATE TABLE runs("
	  " id TEXT PRIMARY KEY, task TEXT NOT NULL, worker TEXT NOT NULL, n INTEGER NOT NULL, turn INTEGER NOT NULL, attempt INTEGER NOT NULL,"
	  " project TEXT NOT NULL, repo TEXT NOT NULL, phase TEXT NOT NULL, token_hash TEXT NOT NULL, pid INTEGER, start_ticks INTEGER, boot TEXT,"
	  " acked INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0, exchanges INTEGER NOT NULL DEFAULT 0, beat_at INTEGER, beat TEXT, created_at INTEGER NOT NULL, ended_at INTEGER, reason TEXT, error TEXT,"
	  " result TEXT) WITHOUT ROWID;"
	  "CREATE INDEX runs_task ON runs(task);"
	  "CREATE INDEX runs_held ON runs(task) WHERE released=0;"
	  "CREATE INDEX runs_live ON runs(phase) WHERE phase NOT IN ('succeeded','failed','canceled','timed_out','lost');"
	  "CREATE TABLE events(task TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, type TEXT NOT NULL, line TEXT NOT NULL,"
	  " PRIMARY KEY(task, seq)) WITHOUT ROWID;"
	  "CREATE TABLE commands(run TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL, created_at INTEGER NOT NULL,"
	  " actor TEXT NOT NULL, PRIMARY KEY(run, n)) WITHOUT ROWID;"
	  "CREATE TABLE gates(id TEXT PRIMARY KEY, task TEXT NOT NULL, run TEXT, kind TEXT NOT NULL, state TEXT NOT NULL, data TEXT NOT NULL,"
	  " created_at INTEGER NOT NULL, settled_at INTEGER, actor TEXT) WITHOUT ROWID;"
	  "CREATE INDEX gates_task ON gates(task);" },
};
const size_t migration_count = ARRAY_SIZE(migrations);
