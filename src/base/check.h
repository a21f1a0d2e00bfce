/* Programmer errors abort, with the place; limits and bad input are errors, never checks. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #cond); \
			abort(); \
		} \
	} while (0)
