/* Addresses: what they are of, however they are wrapped; and which names some resolver would read as a number. */
#include "base/cleanup.h"
#include "source/address.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void each_address_is_of_its_network(void **state UNUSED)
{
	static const struct { const char *text; enum address_kind kind; } cases[] = {
		{ "8.8.8.8", ADDRESS_PUBLIC }, { "127.0.0.1", ADDRESS_LOOPBACK }, { "127.255.255.255", ADDRESS_LOOPBACK }, { "128.0.0.1", ADDRESS_PUBLIC },
		{ "10.255.255.255", ADDRESS_PRIVATE }, { "11.0.0.0", ADDRESS_PUBLIC }, { "172.15.255.255", ADDRESS_PUBLIC }, { "172.16.0.0", ADDRESS_PRIVATE },
		{ "172.31.255.255", ADDRESS_PRIVATE }, { "172.32.0.0", ADDRESS_PUBLIC }, { "192.168.0.0", ADDRESS_PRIVATE }, { "192.169.0.0", ADDRESS_PUBLIC },
		{ "169.254.169.254", ADDRESS_SPECIAL }, { "100.63.255.255", ADDRESS_PUBLIC }, { "100.64.0.0", ADDRESS_PRIVATE }, { "100.100.100.200", ADDRESS_SPECIAL },
		{ "0.0.0.0", ADDRESS_SPECIAL }, { "224.0.0.1", ADDRESS_SPECIAL }, { "255.255.255.255", ADDRESS_SPECIAL }, { "223.255.255.255", ADDRESS_PUBLIC },
		{ "2606:4700::1", ADDRESS_PUBLIC }, { "::1", ADDRESS_LOOPBACK }, { "::", ADDRESS_SPECIAL }, { "fe80::1", ADDRESS_SPECIAL }, { "fc00::1", ADDRESS_PRIVATE },
		{ "fdff::1", ADDRESS_PRIVATE }, { "fd00:ec2::254", ADDRESS_SPECIAL }, { "ff02::1", ADDRESS_SPECIAL }, { "2001:db8::1", ADDRESS_SPECIAL }, { "2001:200::1", ADDRESS_PUBLIC },
		{ "2002:7f00:1::", ADDRESS_SPECIAL }, { "4000::1", ADDRESS_SPECIAL }, { "::ffff:127.0.0.1", ADDRESS_LOOPBACK }, { "::ffff:8.8.8.8", ADDRESS_PUBLIC },
		{ "64:ff9b::a9fe:a9fe", ADDRESS_SPECIAL }, { "64:ff9b::808:808", ADDRESS_PUBLIC }, { "::8.8.8.8", ADDRESS_SPECIAL },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a;
		assert_true(address_parse(cases[i].text, &a));
		if (address_kind(&a) != cases[i].kind)
			fail_msg("%s is %s", cases[i].text, address_kind_name(address_kind(&a)));
	}
}

static void only_the_plain_notation_is_an_address(void **state UNUSED)
{
	static const char *const bad[] = { "127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "127.0.0.1.", "127.0.0.256", "1.2.3.4.5", "", "::1%lo", "[::1]", "1::2::3", " 127.0.0.1", "localhost" };
	struct address a;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(address_parse(bad[i], &a));
}

static void names_that_are_numbers_to_somebody_are_known(void **state UNUSED)
{
	static const char *const numeric[] = { "127.1", "1", "0", "0x7f000001", "0X7F.1", "a.1", "a.0x1f", "127.0.0.1.", "127.0.0.1..", "0x" };
	static const char *const names[] = { "github.com", "1.com", "0x1.com", "a1", "1a", "0xg", "x", "", ".", "a.0xfg" };
	for (size_t i = 0; i < ARRAY_SIZE(numeric); i++)
		assert_true(address_looks_numeric(numeric[i]));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_false(address_looks_numeric(names[i]));
}

static void networks_hold_what_is_theirs(void **state UNUSED)
{
	static const struct { const char *network, *address; bool has; } cases[] = {
		{ "10.0.0.0/8", "10.1.2.3", true }, { "10.0.0.0/8", "11.1.2.3", false }, { "10.1.0.0/15", "10.1.255.255", true }, { "10.2.0.0/15", "10.1.0.0", false },
		{ "1.2.3.4", "1.2.3.4", true }, { "1.2.3.4", "1.2.3.5", false }, { "::/0", "::1", true }, { "::/0", "1.2.3.4", false }, { "0.0.0.0/0", "::ffff:1.2.3.4", true },
		{ "2001:db8::/33", "2001:db8:7fff::", true }, { "2001:db8::/33", "2001:db8:8000::", false },
	};
	struct network n;
	struct address a;
	struct error e = ERROR_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(network_parse(cases[i].network, &n, &e), ERR_OK);
		assert_true(address_parse(cases[i].address, &a));
		assert_int_equal(network_has(&n, &a), cases[i].has);
	}
	static const char *const bad[] = { "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/x", "10/8", "x", "", "/8" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(network_parse(bad[i], &n, NULL), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_address_is_of_its_network), cmocka_unit_test(only_the_plain_notation_is_an_address),
		cmocka_unit_test(names_that_are_numbers_to_somebody_are_known), cmocka_unit_test(networks_hold_what_is_theirs) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
