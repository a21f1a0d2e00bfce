/* Which network an address is of: the special-purpose registries (RFC 6890 and what came after) as two tables. */
#include "source/address.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <string.h>

#define V4_BITS 32
#define V6_BITS 128
#define TEXT_MAX 64

static const struct {
	const char *network;
	enum address_kind kind;
} known[] = { /* the first that fits holds */
	{ "100.100.100.200/32", ADDRESS_SPECIAL }, /* a metadata service */
	{ "0.0.0.0/8", ADDRESS_SPECIAL },
	{ "10.0.0.0/8", ADDRESS_PRIVATE },
	{ "100.64.0.0/10", ADDRESS_PRIVATE },
	{ "127.0.0.0/8", ADDRESS_LOOPBACK },
	{ "169.254.0.0/16", ADDRESS_SPECIAL },
	{ "172.16.0.0/12", ADDRESS_PRIVATE },
	{ "192.0.0.0/24", ADDRESS_SPECIAL },
	{ "192.0.2.0/24", ADDRESS_SPECIAL },
	{ "192.88.99.0/24", ADDRESS_SPECIAL },
	{ "192.168.0.0/16", ADDRESS_PRIVATE },
	{ "198.18.0.0/15", ADDRESS_SPECIAL },
	{ "198.51.100.0/24", ADDRESS_SPECIAL },
	{ "203.0.113.0/24", ADDRESS_SPECIAL },
	{ "224.0.0.0/3", ADDRESS_SPECIAL },
	{ "0.0.0.0/0", ADDRESS_PUBLIC },
	{ "::1/128", ADDRESS_LOOPBACK },
	{ "fd00:ec2::/32", ADDRESS_SPECIAL }, /* metadata services */
	{ "fd20:ce::/32", ADDRESS_SPECIAL },
	{ "fc00::/7", ADDRESS_PRIVATE },
	{ "2001::/23", ADDRESS_SPECIAL },
	{ "2001:db8::/32", ADDRESS_SPECIAL },
	{ "2002::/16", ADDRESS_SPECIAL },
	{ "3fff::/20", ADDRESS_SPECIAL },
	{ "2000::/3", ADDRESS_PUBLIC },
	{ "::/0", ADDRESS_SPECIAL },
};

/* v4-mapped, and NAT64's well-known prefix: what is reached is the IPv4 address. */
static void unwrap(struct address *a)
{
	static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	static const unsigned char nat64[12] = { 0, 0x64, 0xff, 0x9b };

	if (!a->is_v6 || (memcmp(a->bytes, mapped, sizeof(mapped)) != 0 && memcmp(a->bytes, nat64, sizeof(nat64)) != 0))
		return;
	memmove(a->bytes, a->bytes + 12, 4);
	memset(a->bytes + 4, 0, 12);
	a->is_v6 = false;
}

bool address_parse(const char *text, struct address *ret)
{
	struct address a = { .is_v6 = strchr(text, ':') != NULL };

	if (inet_pton(a.is_v6 ? AF_INET6 : AF_INET, text, a.bytes) != 1)
		return false;
	unwrap(&a);
	*ret = a;
	return true;
}

bool address_from_sockaddr(const struct sockaddr *sa, struct address *ret)
{
	struct address a = { .is_v6 = sa->sa_family == AF_INET6 };

	if (sa->sa_family == AF_INET)
		memcpy(a.bytes, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else if (sa->sa_family == AF_INET6)
		memcpy(a.bytes, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	else
		return false;
	unwrap(&a);
	*ret = a;
	return true;
}

/* As browsers decide it: the last part is a number (decimal or 0x...). A final dot does not make it a name. */
bool address_looks_numeric(const char *host)
{
	size_t n = strlen(host), from;

	while (n && host[n - 1] == '.')
		n--;
	for (from = n; from && host[from - 1] != '.';)
		from--;
	if (from == n)
		return false;
	if (n - from >= 2 && host[from] == '0' && (host[from + 1] | 0x20) == 'x') {
		for (from += 2; from < n && isxdigit((unsigned char)host[from]);)
			from++;
		return from == n;
	}
	while (from < n && isdigit((unsigned char)host[from]))
		from++;
	return from == n;
}

enum address_kind address_kind(const struct address *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		struct network n;

		if (network_parse(known[i].network, &n, NULL) == ERR_OK && network_has(&n, a))
			return known[i].kind;
	}
	return ADDRESS_SPECIAL;
}

const char *address_kind_name(enum address_kind kind)
{
	switch (kind) {
	case ADDRESS_PUBLIC:
		return "public";
	case ADDRESS_PRIVATE:
		return "private";
	case ADDRESS_LOOPBACK:
		return "loopback";
	case ADDRESS_SPECIAL:
		break;
	}
	return "special";
}

void address_add(struct strbuf *out, const struct address *a)
{
	char text[TEXT_MAX];

	strbuf_adds(out, inet_ntop(a->is_v6 ? AF_INET6 : AF_INET, a->bytes, text, sizeof(text)) ? text : "?");
}

/* The table's own networks are not unwrapped: "::/0" stays what it says. */
enum err_code network_parse(const char *text, struct network *ret, struct error *e)
{
	size_t n = strcspn(text, "/");
	AUTO_FREE char *base = mem_strndup(text, n);
	struct network made = { .base.is_v6 = strchr(base, ':') != NULL };
	int64_t bits = made.base.is_v6 ? V6_BITS : V4_BITS;

	if (inet_pton(made.base.is_v6 ? AF_INET6 : AF_INET, base, made.base.bytes) != 1)
		return error_set(e, ERR_INVALID, "'%.80s' is not a network such as 10.0.0.0/8", text);
	if (text[n] && str_to_i64(text + n + 1, text, 0, bits, &bits, e) != ERR_OK)
		return ERR_INVALID;
	made.bits = (int)bits;
	*ret = made;
	return ERR_OK;
}

bool network_has(const struct network *n, const struct address *a)
{
	size_t whole = (size_t)n->bits / 8;
	int rest = n->bits % 8;

	if (n->base.is_v6 != a->is_v6 || memcmp(n->base.bytes, a->bytes, whole) != 0)
		return false;
	return rest == 0 || ((n->base.bytes[whole] ^ a->bytes[whole]) >> (8 - rest)) == 0;
}
