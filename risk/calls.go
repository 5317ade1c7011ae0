package risk

// What the calls of the kernel do, by their names. Sources: Documentation/locking,
// Documentation/RCU/whatisRCU.rst, Documentation/core-api/kref.rst and
// include/linux of Linux 6.12.

import "regexp"

var (
	locks = regexp.MustCompile(`^(?:_*(?:raw_)?(?:spin|read|write)_(?:lock|unlock|trylock)(?:_(?:irq|irqsave|irqrestore|bh|nested|irqsave_nested))*` +
		`|mutex_(?:lock|unlock|trylock)(?:_[a-z]+)*|(?:down|up)(?:_(?:read|write|interruptible|killable|trylock|timeout|nested|non_owner))*|downgrade_write` +
		`|(?:percpu_)?(?:down|up)_(?:read|write)|s?rcu_read_(?:lock|unlock)(?:_[a-z]+)*|(?:bh_)?(?:lock|unlock)_sock(?:_[a-z]+)*|release_sock` +
		`|rtnl_(?:lock|unlock|trylock)(?:_[a-z]+)*|local_(?:irq|bh)_(?:disable|enable|save|restore)|preempt_(?:disable|enable)(?:_[a-z]+)*` +
		`|(?:inode|folio|page|device|task|mmap_read|mmap_write|hci_dev|l2cap_chan|netdev|netif_addr|nfnl|console)_(?:lock|unlock|trylock)(?:_[a-z]+)*` +
		`|(?:lock|unlock)_(?:page|buffer|kernel|two_nondirectories)|(?:read|write)_seq(?:lock|unlock|count_begin|count_end)(?:_[a-z]+)*|bit_spin_(?:lock|unlock)` +
		`|[a-z0-9_]+_(?:lock|unlock|trylock)|(?:ww_mutex|rt_mutex|rwsem|dma_resv|cpus_read|cgroup)_(?:lock|unlock)(?:_[a-z]+)*|guard|scoped_guard|scoped_cond_guard)$`)

	// gives are those of them that give a lock back.
	gives = regexp.MustCompile(`unlock|^up|^release_|_enable|_restore|_end|^downgrade`)

	lifetimes = regexp.MustCompile(`^(?:kref_(?:get|put|get_unless_zero|init|put_mutex|put_lock)|refcount_(?:inc|dec|add|sub|set)(?:_[a-z]+)*` +
		`|atomic(?:64|_long)?_(?:inc_not_zero|add_unless|dec_and_test|dec_and_lock)|kv?z?free(?:_[a-z]+)*|vfree|kmem_cache_free|free_(?:percpu|page|pages|netdev)` +
		`|call_rcu(?:_[a-z]+)*|synchronize_(?:rcu|net|srcu|rcu_expedited)|rcu_barrier|rcu_assign_pointer|rcu_dereference(?:_[a-z]+)*|rcu_replace_pointer|RCU_INIT_POINTER` +
		`|h?list_(?:add|del|replace)(?:_tail|_head|_init)?_rcu|(?:del_timer|timer_delete|timer_shutdown)(?:_sync)?|cancel_(?:delayed_)?work(?:_sync)?|flush_(?:delayed_)?work` +
		`|try_module_get|module_put|__module_get|fget(?:_raw)?|fput|dget|dput|iput|igrab|mntget|mntput|(?:get|put)_(?:device|net|net_track|file|task_struct|page|pid|cred|user_ns|pid_ns|mm)` +
		`|maybe_get_net|kthread_stop|free_irq|[a-z0-9_]+_(?:get|put|hold|tryget|unref|get_unless_zero))$`)
	// notLifetimes end like calls that count references, and fill buffers or
	// read values instead.
	notLifetimes = regexp.MustCompile(`^(?:_*p?skb_put|nla_put|_*nlmsg_put|genlmsg_put|xdr_[a-z_]*|[a-z0-9_]*(?:reg|state|value|field|stats|mode|speed|rate|time|size|count|level|offset|info|config|param|option|settings|ksettings|temp|addr|index|bit|bits|id)_(?:get|put)|gpiod?_get|param_get|ethtool_[a-z_]*)$`)

	// atomics begin a stretch in which nothing may sleep; ends give its end.
	atomics = regexp.MustCompile(`^(?:_*(?:raw_)?spin_lock(?:_(?:irq|irqsave|bh|nested|irqsave_nested))*|_*(?:read|write)_lock(?:_(?:irq|irqsave|bh))?|bit_spin_lock` +
		`|rcu_read_lock(?:_bh|_sched)?|local_irq_(?:disable|save)|local_bh_disable|preempt_disable(?:_notrace)?|bh_lock_sock(?:_nested)?|write_seqlock(?:_irq|_irqsave|_bh)?|kmap_atomic)$`)
	ends = regexp.MustCompile(`^(?:_*(?:raw_)?spin_unlock(?:_(?:irq|irqrestore|bh))?|_*(?:read|write)_unlock(?:_(?:irq|irqrestore|bh))?|bit_spin_unlock` +
		`|rcu_read_unlock(?:_bh|_sched)?|local_irq_(?:enable|restore)|local_bh_enable|preempt_enable(?:_[a-z]+)*|bh_unlock_sock|write_sequnlock(?:_irq|_irqrestore|_bh)?|kunmap_atomic)$`)
	atomicGuards = regexp.MustCompile(`^(?:raw_)?(?:spinlock|read_lock|write_lock|rcu|preempt|irq|migrate_none)(?:_irq|_irqsave|_bh|_nested)*$|^irqsave$`)

	sleeps = regexp.MustCompile(`^(?:mutex_lock(?:_[a-z]+)*|down(?:_(?:read|write|interruptible|killable|timeout|read_killable|write_killable))?|percpu_down_(?:read|write)` +
		`|msleep(?:_interruptible)?|ssleep|usleep_range(?:_state)?|fsleep|schedule(?:_timeout(?:_[a-z]+)?)?|io_schedule(?:_timeout)?|wait_event(?:_[a-z]+)*|wait_for_completion(?:_[a-z]+)*` +
		`|might_sleep|cond_resched|synchronize_(?:rcu|net|srcu|irq|rcu_expedited)|rcu_barrier|flush_(?:work|delayed_work|workqueue)|drain_workqueue|destroy_workqueue|cancel_(?:delayed_)?work_sync` +
		`|copy_(?:from|to)_user|get_user|put_user|strncpy_from_user|strnlen_user|clear_user|vmalloc|vzalloc|rtnl_lock|lock_sock(?:_nested)?|lock_page|folio_lock|inode_lock(?:_nested)?` +
		`|mmap_(?:read|write)_lock(?:_killable)?|device_lock|kthread_stop|request_irq|request_threaded_irq|free_irq|napi_disable|disable_irq)$`)
	// releasing are waits that give a lock back while they sleep.
	releasing   = regexp.MustCompile(`_lock(?:ed)?(?:_|$)|_cmd$`)
	sleepingGFP = regexp.MustCompile(`\bGFP_(?:KERNEL|USER|NOFS|NOIO|HIGHUSER|KERNEL_ACCOUNT)\b`)
)

func isLocking(c call) bool { return locks.MatchString(c.name) }

func isLifetime(c call) bool {
	return lifetimes.MatchString(c.name) && !notLifetimes.MatchString(c.name)
}

// maySleep tells whether a call may sleep, and why.
func maySleep(c call) (why string, yes bool) {
	switch {
	case len(c.name) > 10 && c.name[:10] == "wait_event" && releasing.MatchString(c.name):
		return "", false
	case sleeps.MatchString(c.name):
		return c.name + "()", true
	}
	if m := sleepingGFP.FindString(c.args); m != "" {
		return c.name + "(" + m + ")", true
	}
	return "", false
}
