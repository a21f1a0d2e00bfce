/* The WebSocket thread, as the server's other files see it; included in this room alone. */
#pragma once
#include "net/ws.h"
#include <microhttpd.h>

struct ws_loop;

MUST_USE enum err_code ws_loop_start(struct ws_loop **ret, struct error *e);
void ws_loop_stop(struct ws_loop *l);  /* says goodbye (1001), gives every socket back to MHD; later ones are given back at once. NULL is fine */
void ws_loop_free(struct ws_loop *l);  /* when MHD's threads are gone */

struct ws *ws_new(struct ws_loop *l, struct http_server *s, const struct ws_config *cfg, const struct ws_ops *ops, void *state);
void ws_abandon(struct ws *w); /* its 101 never left */
void ws_attach(struct ws *w, int fd, struct MHD_UpgradeResponseHandle *handle, const char *extra, size_t n);
