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
	/* A gate's request is the agent's own key for it: NULL when the agent has ended its turn and asks with its last words. */
	{ 2, "gates with decisions and deadlines, messages that steer, waiting that does not count",
	  "ALTER TABLE gates ADD COLUMN request TEXT;"
	  "ALTER TABLE gates ADD COLUMN turn INTEGER NOT NULL DEFAULT 1;"
	  "ALTER TABLE gates ADD COLUMN decision TEXT;"
	  "ALTER TABLE gates ADD COLUMN delivered_at INTEGER;"
	  "ALTER TABLE gates ADD COLUMN deadline_at INTEGER;"
	  "ALTER TABLE gates ADD COLUMN deadline_mono INTEGER;"
	  "ALTER TABLE gates ADD COLUMN boot TEXT;"
	  "CREATE INDEX gates_open ON gates(id) WHERE state='blocked';"
	  "ALTER TABLE messages ADD COLUMN id TEXT;"
	  "CREATE UNIQUE INDEX messages_id ON messages(task, id) WHERE id IS NOT NULL;"
	  "ALTER TABLE tasks ADD COLUMN waited_ms INTEGER NOT NULL DEFAULT 0;"
	  "ALTER TABLE tasks ADD COLUMN waiting_since INTEGER;"
	  "ALTER TABLE tasks ADD COLUMN todos TEXT;" },
	/* Labels are kept beside the rows in the same transactions; the index of words is filled later: search_mark is the last row that is in it.
	 * Live tasks are found by their phase in the order of lists, and ended ones too. */
	{ 3, "labels, search, idempotency keys, tokens",
	  "DROP INDEX tasks_live;"
	  "CREATE INDEX tasks_live ON tasks(phase, id) WHERE phase NOT IN ('succeeded','failed','canceled','timed_out','lost');"
	  "CREATE INDEX tasks_over ON tasks(phase, id) WHERE phase IN ('succeeded','failed','canceled','timed_out','lost');"
	  "CREATE INDEX tasks_repo ON tasks(repo, id);"
	  "CREATE TABLE task_labels(key TEXT NOT NULL, value TEXT NOT NULL, task TEXT NOT NULL, PRIMARY KEY(key, value, task)) WITHOUT ROWID;"
	  "INSERT INTO task_labels(key, value, task) SELECT j.key, j.value, t.id FROM tasks AS t, json_each(t.labels) AS j WHERE t.labels<>'{}';"
	  "CREATE TABLE search_mark(n INTEGER NOT NULL);"
	  "INSERT INTO search_mark VALUES(0);"
	  "CREATE TABLE search_tasks(n INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL UNIQUE);"
	  "CREATE VIRTUAL TABLE search USING fts5(prompt, content='', tokenize='unicode61 remove_diacritics 2');"
	  "CREATE TRIGGER tasks_relabelled AFTER UPDATE OF labels ON tasks BEGIN"
	  " DELETE FROM task_labels WHERE (key, value, task) IN (SELECT j.key, j.value, old.id FROM json_each(old.labels) AS j);"
	  " INSERT INTO task_labels(key, value, task) SELECT j.key, j.value, new.id FROM json_each(new.labels) AS j; END;"
	  "CREATE TRIGGER tasks_go AFTER DELETE ON tasks BEGIN"
	  " UPDATE search_mark SET n=MIN(n, (SELECT COALESCE(MAX(rowid), 0) FROM tasks));" /* the number of the last row is given again */
	  " DELETE FROM task_labels WHERE (key, value, task) IN (SELECT j.key, j.value, old.id FROM json_each(old.labels) AS j); END;"
	  /* What a key made: `task` is the task, or `answer` is what was said; NULL both: it was made, but the answer had not been kept yet. */
	  "CREATE TABLE idempotency(principal TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL, status INTEGER NOT NULL, task TEXT, answer TEXT,"
	  " created_at INTEGER NOT NULL, created_mono INTEGER NOT NULL, boot TEXT NOT NULL, PRIMARY KEY(principal, key)) WITHOUT ROWID;"
	  "CREATE INDEX idempotency_age ON idempotency(boot, created_mono);"
	  "CREATE TABLE tokens(id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash TEXT NOT NULL UNIQUE, created_by TEXT NOT NULL, created_at INTEGER NOT NULL,"
	  " expires_at INTEGER, revoked_at INTEGER) WITHOUT ROWID;" },
	{ 4, "nothing: uploads are files", "SELECT 1;" },
	/* What opens a private repository: sealed, by the URL's host and path (secrets.c). */
	{ 5, "credentials",
	  "CREATE TABLE secrets(project TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, sealed TEXT NOT NULL, created_by TEXT NOT NULL,"
	  " created_at INTEGER NOT NULL, PRIMARY KEY(project, name)) WITHOUT ROWID;" },
	/* In the order of their commits: what a reader of all tasks follows. */
	{ 6, "the log of all tasks",
	  "CREATE TABLE feed(n INTEGER PRIMARY KEY, task TEXT NOT NULL, seq INTEGER NOT NULL);"
	  "INSERT INTO feed(task, seq) SELECT task, seq FROM events ORDER BY at, task, seq;" },
	/* The tasks of other projects are listed by an index of their own, so that those of the owner pay nothing for it. */
	{ 7, "tokens that act for a project",
	  "ALTER TABLE tokens ADD COLUMN project TEXT NOT NULL DEFAULT 'default';"
	  "ALTER TABLE tokens ADD COLUMN local INTEGER NOT NULL DEFAULT 1;" /* may name directories of the server's machine */
	  "CREATE INDEX tasks_projects ON tasks(project, id) WHERE project<>'default';" },
	/* The same tasks and runs in each, in other words: see SQL_LIVE. */
	{ 8, "indexes of states that cost no table of their own",
	  "DROP INDEX tasks_live; DROP INDEX tasks_over; DROP INDEX runs_live;"
	  "CREATE INDEX tasks_live ON tasks(phase, id) WHERE phase<>'succeeded' AND phase<>'failed' AND phase<>'canceled' AND phase<>'timed_out' AND phase<>'lost';"
	  "CREATE INDEX tasks_over ON tasks(phase, id) WHERE phase='succeeded' OR phase='failed' OR phase='canceled' OR phase='timed_out' OR phase='lost';"
	  "CREATE INDEX runs_live ON runs(phase) WHERE phase<>'succeeded' AND phase<>'failed' AND phase<>'canceled' AND phase<>'timed_out' AND phase<>'lost';" },
};
const size_t migration_count = ARRAY_SIZE(migrations);
