/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel's macros leave in an object: the same section names, entry
 * layouts and symbol names, and nothing else. Written for these fixtures; the
 * layouts are those of Linux 6.1 to 7.x on x86-64.
 */
#define NULL ((void *)0)
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define noinline __attribute__((noinline))
#define __always_inline inline __attribute__((always_inline))
#define __used __attribute__((used))
#define __weak __attribute__((weak))
#define __cold __attribute__((cold))
#define __section(s) __attribute__((section(s)))
#define __alias(f) __attribute__((alias(#f)))
#define notrace __attribute__((no_instrument_function))
#define __init __section(".init.text")
#define __exit __section(".exit.text")
#define __initdata __section(".init.data")
#define __percpu_data __section(".data..percpu")
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier_data(p) asm volatile("" : : "r"(p) : "memory")

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define STR_(x) #x
#define STR(x) STR_(x)

/* What unpatched files offer. */
extern int printk(const char *fmt, ...);
extern int work(int x);
extern int other(int x);
extern void use(const void *p);

/* The value of a per-CPU variable of this CPU. */
#define this_cpu_read(v)                                       \
	({                                                     \
		typeof(v) val_;                                \
		asm("mov %%gs:%1, %0" : "=r"(val_) : "m"(v));  \
		val_;                                          \
	})

/* A static branch: 16 bytes {code, target, key}, all relative to their place;
 * the key's lowest bit says which way is the likely one. */
struct static_key {
	int enabled;
	void *entries;
};
static __always_inline int static_branch(struct static_key *key, int likely)
{
	asm goto("1: jmp %l[yes]\n"
		 ".pushsection __jump_table, \"aw\"\n"
		 ".balign 8\n"
		 ".long 1b - ., %l[yes] - .\n"
		 ".quad %c0 + %c1 - .\n"
		 ".popsection\n" : : "i"(key), "i"(likely) : : yes);
	return 0;
yes:
	return 1;
}

/* A warning: 12 bytes {code, file, line, flags} up to Linux 6.18. */
#define WARN_AT(filename, lineno, flags)                       \
	asm volatile("1: .byte 0x0f, 0x0b\n"                   \
		     ".pushsection __bug_table, \"aw\"\n"      \
		     "2: .long 1b - .\n"                       \
		     ".long %c0 - .\n"                         \
		     ".word %c1, %c2\n"                        \
		     ".org 2b + 12\n"                          \
		     ".popsection\n"                           \
		     : : "i"(filename), "i"(lineno), "i"(flags))
#define WARN() WARN_AT(__FILE__, __LINE__, 0x901)

/* The same since Linux 6.19: 16 bytes {code, format, file, line, flags}. */
#define WARN_FORMAT(format, filename, lineno, flags)           \
	asm volatile("1: .byte 0x0f, 0x0b\n"                   \
		     ".pushsection __bug_table, \"aw\"\n"      \
		     "2: .long 1b - .\n"                       \
		     ".long %c0 - .\n"                         \
		     ".long %c1 - .\n"                         \
		     ".word %c2, %c3\n"                        \
		     ".org 2b + 16\n"                          \
		     ".popsection\n"                           \
		     : : "i"(format), "i"(filename), "i"(lineno), "i"(flags))

/* A read that may fault: 12 bytes {instruction, where to go on, handler type}. */
#define READ_OR_ZERO(val, ptr, type)                           \
	asm volatile("1: mov %1, %0\n"                         \
		     "2:\n"                                    \
		     ".pushsection __ex_table, \"a\"\n"        \
		     ".balign 4\n"                             \
		     ".long 1b - ., 2b - ., " #type "\n"       \
		     ".popsection\n"                           \
		     : "=r"(val) : "m"(*(ptr)), "0"(0))

/* Alternatives: 12 bytes {old, new, u16 feature, lengths} up to Linux 6.2,
 * 14 bytes {old, new, u16 feature, u16 flags, lengths} since 6.3. */
#define ALT_CODE_(old, entry, new)                             \
	asm volatile("1: " old "\n"                            \
		     "2:\n"                                    \
		     ".pushsection .altinstructions, \"a\"\n"  \
		     ".long 1b - ., 3f - .\n" entry            \
		     ".byte 2b - 1b, 4f - 3f\n"                \
		     ".popsection\n"                           \
		     ".pushsection .altinstr_replacement, \"ax\"\n" \
		     "3: " new "\n"                            \
		     "4:\n"                                    \
		     ".popsection\n" : : : "memory")
#define ALT12(old, feature, new) \
	ALT_CODE_(old, ".word " STR(feature) "\n", new)
#define ALT14(old, feature, flags, new) \
	ALT_CODE_(old, ".word " STR(feature) ", " STR(flags) "\n", new)

/* Exports since Linux 6.4, and what modpost used to read before. */
#define EXPORT_SYMBOL(s)                                       \
	asm(".pushsection .export_symbol, \"a\"\n"             \
	    "__export_symbol_" #s ":\n"                        \
	    ".asciz \"\"\n.asciz \"\"\n.balign 8\n.quad " #s "\n" \
	    ".popsection\n")
#define EXPORT_SYMBOL_OLD(s)                                   \
	asm(".pushsection __ksymtab_strings, \"aMS\", @progbits, 1\n" \
	    "__kstrtab_" #s ": .asciz \"" #s "\"\n"            \
	    "__kstrtabns_" #s ": .asciz \"\"\n"                \
	    ".popsection\n"                                    \
	    ".pushsection ___ksymtab+" #s ", \"a\"\n"          \
	    ".balign 4\n"                                      \
	    "__ksymtab_" #s ": .long " #s " - .\n"             \
	    ".long __kstrtab_" #s " - ., __kstrtabns_" #s " - .\n" \
	    ".popsection\n")

/* Something that runs when the kernel boots. The name holds the line. */
#define initcall(fn)                                           \
	asm(".pushsection .initcall6.init, \"a\"\n"            \
	    "__initcall__kmod_unit__" STR(__COUNTER__) "_" STR(__LINE__) "_" #fn "6: .long " #fn " - .\n" \
	    ".popsection\n")

#define MODULE_INFO(tag, value)                                \
	static const char PASTE(__UNIQUE_ID_##tag, __COUNTER__)[] __used \
		__section(".modinfo") __attribute__((aligned(1))) = #tag "=" value

/* Dynamic debug: a descriptor for each call. */
struct _ddebug {
	const char *modname, *function, *filename, *format;
	unsigned int lineno, flags;
	struct static_key key;
};
#define DYNAMIC_DEBUG_(name, fmt, ...)                         \
	do {                                                   \
		static struct _ddebug __attribute__((aligned(8))) \
			__section("__dyndbg") name = {         \
			"unit", __func__, __FILE__, fmt, __LINE__, 0, \
			{ 0, NULL } };                         \
		if (static_branch(&name.key, 0))               \
			ddebug(&name, fmt, ##__VA_ARGS__);     \
	} while (0)
extern void ddebug(struct _ddebug *d, const char *fmt, ...);
#define pr_debug(fmt, ...) \
	DYNAMIC_DEBUG_(PASTE(__UNIQUE_ID_ddebug, __COUNTER__), fmt, ##__VA_ARGS__)
/* As the kernel names them since Linux 6.19. */
#define pr_debug_new(fmt, ...) \
	DYNAMIC_DEBUG_(PASTE(__UNIQUE_ID_ddebug_, __COUNTER__), fmt, ##__VA_ARGS__)

/* Something to say once. */
#define WARN_ONCE(cond, msg)                                   \
	do {                                                   \
		static _Bool __section(".data.once") __already_done; \
		if (unlikely(cond) && !__already_done) {       \
			__already_done = 1;                    \
			printk(msg);                           \
		}                                              \
	} while (0)

/* Something to say now and then. */
struct ratelimit_state {
	int interval, burst, printed, missed;
};
extern int ___ratelimit(struct ratelimit_state *rs, const char *func);
#define printk_ratelimited(every, times, fmt)                  \
	do {                                                   \
		static struct ratelimit_state _rs = { every, times, 0, 0 }; \
		if (___ratelimit(&_rs, __func__))              \
			printk(fmt);                           \
	} while (0)
