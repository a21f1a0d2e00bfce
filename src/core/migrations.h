/* The database's history, oldest first; a released migration is never edited. */
#pragma once
#include "db/db.h"
extern const struct db_migration migrations[];
extern const size_t migration_count;
