/* SQLite's view of files for the connection that writes: its log is written in few large pieces (wal_file.c). */
#pragma once

struct sqlite3;
const char *wal_file_vfs(void); /* the name to open the database with */
/* After a transaction was rolled back: what is gathered was part of it.  Written later, it could overwrite what another program has put there since. */
void wal_file_forget(struct sqlite3 *db);
