/* What the daemons say on stderr: one line, `time level name=value text`.  Never a secret, never an agent's text unescaped.
 * Thread-safe (one write per line). */
#pragma once
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
void log_open(const char *program, enum log_level least); /* SIGNALBOX_LOG=debug|info|warn|error overrides */
void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
