/* Batches of a runner against a real database with a run in it: what the transaction makes of them, then undone. The second half of the
 * inputs comes as a spool's lines do. */
#include "fuzz.h"
#include "core/ingest.c"
#include "core/migrations.h"

static const char schema[] = "INSERT INTO tasks(id,project,repo,created_by,session_id,phase,spec,priority,labels,created_at,created_mono,boot,last_seq,run_n)"
	" VALUES(?1,'default','r','user:a','s','running','{\"source\":{\"kind\":\"git\",\"url\":\"x\"},\"limits\":{},\"retry\":{\"max\":2}}',0,'{}',1,1,'b',5,1)";
static const char a_run[] = "INSERT INTO runs(id,task,worker,n,turn,attempt,project,repo,phase,token_hash,created_at)"
	" VALUES(?1,?1,'main',1,1,1,'default','r','running','x',1)";
#define THE_ID "01kahfzzzzzzzzzzzzzzzzzzzz"

static enum err_code make_op(struct db_conn *c, void *arg UNUSED, struct error *e)
{
	enum err_code rc = db_exec(c, e, schema, "s", THE_ID);
	return rc ? rc : db_exec(c, e, a_run, "s", THE_ID);
}

static struct db *the_db(void)
{
	static struct db *db;
	struct error e = ERROR_INIT;
	if (db)
		return db;
	AUTO_FREE char *path = file_join(fuzz_tmpdir(), "db");
	if (db_open(path, migrations, migration_count, &db, &e) == ERR_OK && db_write(db, make_op, NULL, &e) == ERR_OK)
		return db;
	fprintf(stderr, "%s\n", e.text);
	abort();
}

struct attempt {
	struct batch batch;
	enum err_code rc;
};

static enum err_code try_op(struct db_conn *c, void *arg, struct error *e)
{
	struct attempt *t = arg;
	t->rc = batch_op(c, &t->batch, e);
	if (!t->rc)
		for (size_t i = 0; i < t->batch.out.count; i++) {
			const char *line = t->batch.out.lines[i].line;
			AUTO_JS struct js *v = js_parse(line, strlen(line), NULL);
			CHECK(v && !strchr(line, '\n') && js_i64(v, "seq", 0) == 6 + (int64_t)i);
		}
	return ERR_CANCELED; /* undone */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *body = js_parse((const char *)data, n, NULL);
	struct db *db = the_db();

	if (js_type(body) != JS_OBJECT)
		return 0;
	struct core core = { .db = db };
	struct attempt t = { .batch = { .core = &core, .run_id = THE_ID, .events = js_get(body, "events"), .beat = js_get(body, "beat"), .from_disk = true } };
	CHECK(db_write(db, try_op, &t, &e) != ERR_OK);
	CHECK(t.rc == ERR_OK || e.text[0]);
	outbox_release(&t.batch.out);
	return 0;
}
