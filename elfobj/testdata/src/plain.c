/* One of each kind of symbol and section that a C file makes. */
extern int outside(const char *what);

int common_int;				/* SHN_COMMON, with -fcommon */
static int zeroed;			/* SHT_NOBITS */
int initialised = 7;
const char *pointer = "pointed to";	/* relocated data */

__attribute__((weak)) int weak_one(void) { return zeroed++; }

static __attribute__((noinline)) int local_one(int x)
{
	return outside("text") + x + initialised;
}

int global_one(int x)
{
	return local_one(x) + local_one(x + 1) + weak_one() + common_int;
}
