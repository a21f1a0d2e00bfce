/* Colour, width and the live line. */
#include "cli/term.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/text.h"
#include <string.h>
#include <sys/ioctl.h>

#define WIDTH_DEFAULT 80
#define WIDTH_MIN 20
#define REDRAW_MS 1000

static const char *const codes[COLOUR_COUNT] = {
	[COLOUR_NONE] = "", [COLOUR_BOLD] = "1", [COLOUR_DIM] = "2", [COLOUR_RED] = "31", [COLOUR_GREEN] = "32",
	[COLOUR_YELLOW] = "33", [COLOUR_BLUE] = "34", [COLOUR_CYAN] = "36",
};

static bool env_on(const char *name)
{
	const char *v = getenv(name);
	return !str_empty(v) && !str_eq(v, "0");
}

void term_init(struct term *t, FILE *file, bool no_colour)
{
	t->file = file;
	t->tty = isatty(fileno(file)) && !str_eq(getenv("TERM"), "dumb");
	t->colour = t->tty;
	if (env_on("CLICOLOR_FORCE"))
		t->colour = true;
	if (no_colour || !str_empty(getenv("NO_COLOR")))
		t->colour = false;
}

size_t term_width(const struct term *t)
{
	struct winsize size;
	if (ioctl(fileno(t->file), TIOCGWINSZ, &size) == 0 && size.ws_col >= WIDTH_MIN)
		return size.ws_col;
	int64_t columns = WIDTH_DEFAULT;
	if (getenv("COLUMNS") && str_to_i64(getenv("COLUMNS"), "COLUMNS", WIDTH_MIN, 10000, &columns, NULL))
		columns = WIDTH_DEFAULT;
	return (size_t)columns;
}

void term_add(const struct term *t, struct strbuf *out, enum colour colour, const char *s)
{
	bool paint = t->colour && colour != COLOUR_NONE && *s;
	if (paint)
		strbuf_addf(out, "\033[%sm", codes[colour]);
	strbuf_adds(out, s);
	if (paint)
		strbuf_adds(out, "\033[0m");
}

void term_addf(const struct term *t, struct strbuf *out, enum colour colour, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	strbuf_vaddf(&text, fmt, ap);
	va_end(ap);
	term_add(t, out, colour, strbuf_str(&text));
}

void term_write(const struct term *t, const struct strbuf *text)
{
	fwrite(strbuf_str(text), 1, text->len, t->file);
	fflush(t->file);
}

/* The three below: with l->lock held. */
static void clear_line(struct live *l)
{
	if (l->drawn)
		fputs("\r\033[K", l->term->file);
	l->drawn = false;
}

static void draw_line(struct live *l)
{
	AUTO_STRBUF struct strbuf plain = STRBUF_INIT, out = STRBUF_INIT;
	if (!l->on || l->held || !l->text.len)
		return;
	text_add_clock(&plain, clock_wall_ms() - l->since_ms);
	strbuf_addf(&plain, "  %s", strbuf_str(&l->text));
	AUTO_STRBUF struct strbuf cut = STRBUF_INIT;
	text_add_cut(&cut, strbuf_str(&plain), term_width(l->term) - 1);
	strbuf_adds(&out, "\r\033[K");
	term_add(l->term, &out, COLOUR_DIM, strbuf_str(&cut));
	term_write(l->term, &out);
	l->drawn = true;
}

static void wait_for_redraw(struct live *l)
{
	int64_t at = clock_mono_ms() + REDRAW_MS;
	struct timespec until = { .tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000 };
	pthread_cond_timedwait(&l->wake, &l->lock, &until);
}

static void *draw_forever(void *arg)
{
	struct live *l = arg;
	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		draw_line(l);
		wait_for_redraw(l);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

void live_start(struct live *l, const struct term *t, bool wanted, int64_t since_ms)
{
	*l = (struct live){ .term = t, .since_ms = since_ms };
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attr);
	pthread_condattr_destroy(&attr);
	/* Without the thread the line still moves with each event. */
	l->on = wanted && t->tty && pthread_create(&l->thread, NULL, draw_forever, l) == 0;
}

void live_text(struct live *l, const char *text)
{
	pthread_mutex_lock(&l->lock);
	strbuf_reset(&l->text);
	text_add_line(&l->text, text);
	draw_line(l);
	pthread_mutex_unlock(&l->lock);
}

void live_print(struct live *l, const struct strbuf *lines)
{
	pthread_mutex_lock(&l->lock);
	clear_line(l);
	term_write(l->term, lines);
	draw_line(l);
	pthread_mutex_unlock(&l->lock);
}

void live_hold(struct live *l, bool hold)
{
	pthread_mutex_lock(&l->lock);
	clear_line(l);
	fflush(l->term->file);
	l->held = hold;
	draw_line(l);
	pthread_mutex_unlock(&l->lock);
}

void live_stop(struct live *l)
{
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	clear_line(l);
	fflush(l->term->file);
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	if (l->on)
		pthread_join(l->thread, NULL);
	l->on = false;
	strbuf_release(&l->text);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
}
