/* `signalbox serve`: the server process. */
#pragma once
#include "base/opt.h"
extern const struct opt serve_options[];
int serve_main(int argc, char **argv); /* argv[0] is the verb; returns the exit status */
