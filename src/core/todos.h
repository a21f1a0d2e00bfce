/* The agent's plan: the newest list beside the task's row, its history in the log. */
#pragma once
#include "core/task_db.h"

/* {worker: {items, at}}, brought up to an event. */
void todos_apply(struct js *all, const char *worker, const char *type, const struct js *data, int64_t at);
/* The same with a task's row: applies a todo.snapshot {items: [{id,text,status}]} or a todo.update {id,text,status}; what does not fit is ignored: the log has it. */
MUST_USE enum err_code todos_take(struct db_conn *c, const char *task, const char *worker, const char *type, const struct js *data, int64_t at, struct error *e);
