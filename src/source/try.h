/* The room's one shorthand for passing an error on. */
#pragma once
#include "base/err.h"

/* Returns from the function with the error already set. */
#define TRY(call) \
	do { \
		enum err_code try_ = (call); \
		if (try_ != ERR_OK) \
			return try_; \
	} while (0)
