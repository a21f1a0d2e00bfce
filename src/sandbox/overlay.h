/* The workspace's layers, mounted in the caller's own (private) mount namespace. */
#pragma once
#include "sandbox/sandbox.h"

#define OVERLAY_BUSY_WAIT_MS 5000 /* for the mount of a run that has just ended to go */
#define OVERLAY_BUSY_STEP_MS 2

/* OVERLAY: mounts at merged. PLAIN: binds upper at merged when that is given. `cancel_fd` >= 0: gives up when it is readable. */
MUST_USE enum err_code overlay_mount(const struct sandbox_layers *l, int cancel_fd, struct error *e);
