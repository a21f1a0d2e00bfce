/* Where things live on this host: the data directory (the record), the runtime directory (sockets), the configuration files.
 * Environment overrides are SIGNALBOX_DATA, SIGNALBOX_RUNTIME, SIGNALBOX_CONFIG.  The caller frees what is returned. */
#pragma once
#include "base/err.h"

#define PATHS_SOCKET_NAME "signalbox.sock"

char *paths_data_dir(void);
char *paths_runtime_dir(void);
char *paths_socket(const char *runtime_dir);
/* The configuration files that exist, strongest first; NULL-ended; free each and the list. */
char **paths_config_files(void);
void paths_free_list(char **list);
/* Makes the runtime directory (0711, ours) and refuses one that belongs to somebody else. */
MUST_USE enum err_code paths_make_runtime(const char *dir, struct error *e);
