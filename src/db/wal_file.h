/* SQLite's view of files for the connection that writes: its log is written in few large pieces (wal_file.c). */
#pragma once

const char *wal_file_vfs(void); /* the name to open the database with */
