/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_LIVEPATCH_HELPERS_H
#define _LINUX_LIVEPATCH_HELPERS_H

/*
 * For source patches: functions that the livepatch core calls before and after
 * an object is patched and unpatched. At most one of each kind per object
 * (vmlinux or module). The prototypes are those of struct klp_callbacks.
 */
#include <linux/livepatch.h>

#define KLPC_CALLBACK(kind, ret, func)						\
	static ret (* const __klp_ ## kind ## _callback_ ## func)		\
		(struct klp_object *) __used					\
		__section(".discard.klp_callback_ptrs") = (func)

#define KLP_PRE_PATCH_CALLBACK(func)	KLPC_CALLBACK(pre_patch, int, func)
#define KLP_POST_PATCH_CALLBACK(func)	KLPC_CALLBACK(post_patch, void, func)
#define KLP_PRE_UNPATCH_CALLBACK(func)	KLPC_CALLBACK(pre_unpatch, void, func)
#define KLP_POST_UNPATCH_CALLBACK(func)	KLPC_CALLBACK(post_unpatch, void, func)

#endif /* _LINUX_LIVEPATCH_HELPERS_H */
