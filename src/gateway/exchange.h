/* One request of an agent on its way to the provider, and the reply on its way back: checked, recorded, forwarded, measured. */
#pragma once
#include "gateway/config.h"
#include "gateway/upstream.h"
#include "model/record.h"
#include "net/server.h"
#include <pthread.h>
#include <stdatomic.h>

struct exchange;

/* What all exchanges share; lives as long as the gateway. */
struct exchange_host {
	struct upstream *upstream;
	struct recorder *recorder;
	pthread_mutex_t lock; /* guards config, admitted */
	struct config *config;
	struct exchange *admitted;
	atomic_bool draining;
	atomic_int active;
	void (*idle)(void *ctx); /* the last active exchange has ended; any thread */
	void *idle_ctx;
};

/* The routes an agent sees; http_config.ctx is the struct exchange_host. */
extern const struct http_route exchange_routes[];
struct config *exchange_config(struct exchange_host *h); /* a reference */
