/* What a service manager wants to know, and the sockets it may hand over: sd_notify's and socket activation's protocols (man sd_notify,
 * sd_listen_fds), which are a datagram and two environment variables.  Without such a manager everything here does nothing. */
#pragma once
#include <stdint.h>

void systemd_notify(const char *state);	     /* "READY=1", "STOPPING=1", "WATCHDOG=1" */
int64_t systemd_watchdog_interval_ms(void);  /* how often to say WATCHDOG=1; 0: never */
int systemd_listen_fd(void);		     /* an activated listening AF_UNIX socket, or -1; asked once */
