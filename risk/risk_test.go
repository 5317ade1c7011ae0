package risk_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/risk"
)

// text puts statements into a function.
func text(body string) []byte {
	return []byte("static int f(struct s *s)\n{\n" + strings.ReplaceAll(body, "; ", ";\n") + "\n}\n")
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name, old, now string
		want           []string // KIND: beginning of the detail
	}{
		// Locks.
		{"lock added", "s->n++;", "mutex_lock(&s->lock); s->n++; mutex_unlock(&s->lock);",
			[]string{"locking-changed: mutex_lock(&s->lock) is added (x.c:3); mutex_unlock(&s->lock) is added (x.c:5)"}},
		{"lock removed", "spin_lock(&s->lock); s->n++; spin_unlock(&s->lock);", "s->n++;",
			[]string{"locking-changed: spin_lock(&s->lock) is removed (x.c:3 before the patch); spin_unlock(&s->lock) is removed (x.c:5 before the patch)"}},
		{"order changed", "mutex_lock(&a); mutex_lock(&b); work(s);", "mutex_lock(&b); mutex_lock(&a); work(s);", []string{"locking-changed: mutex_lock(&a) is moved (x.c:4); locks are taken in another order: mutex_lock(&b) now comes before mutex_lock(&a) (x.c:3)"}},
		{"call moved out of the lock", "mutex_lock(&a); work(s); mutex_unlock(&a);", "work(s); mutex_lock(&a); mutex_unlock(&a);", []string{"locking-changed: mutex_lock(&a) is moved (x.c:4)"}},
		{"call moved into the lock", "mutex_lock(&a); next(s); mutex_unlock(&a); last(s); work(s);", "mutex_lock(&a); work(s); next(s); mutex_unlock(&a); last(s);", []string{"locking-changed: work(s) is moved across a lock (x.c:4)"}},
		{"calls swapped in the lock", "mutex_lock(&a); next(s); work(s); mutex_unlock(&a);", "mutex_lock(&a); work(s); next(s); mutex_unlock(&a);", nil},
		{"guard added", "s->n++;", "guard(mutex)(&s->lock); s->n++;", []string{"locking-changed: guard(mutex) is added (x.c:3)"}},
		{"another lock", "mutex_lock(&a);", "mutex_lock(&b);", []string{"locking-changed: mutex_lock(&b) is added (x.c:3); mutex_lock(&a) is removed (x.c:3 before the patch)"}},
		{"rcu added", "work(s);", "rcu_read_lock(); work(s); rcu_read_unlock();", []string{"locking-changed: rcu_read_lock() is added (x.c:3); rcu_read_unlock() is added (x.c:5)"}},
		{"indented", "mutex_lock(&a); kfree(s);", "if (s) {\n\tmutex_lock(&a); \tkfree(s); }", nil},
		{"comment", "mutex_lock(&a); kfree(s);", "/* the lock */ mutex_lock(&a); kfree(s);", nil},
		{"other edit", "mutex_lock(&a); s->n = 1; mutex_unlock(&a);", "mutex_lock(&a); s->n = 2; mutex_unlock(&a);", nil},
		{"names that only look like it", "work(s);", "mutex_init(&s->lock); spin_lock_init(&s->l); lockdep_assert_held(&a);", nil},

		// Lifetimes.
		{"free moved", "kfree(s); unlink_it(s); done(s);", "unlink_it(s); done(s); kfree(s);", []string{"lifetime-changed: kfree(s) is moved (x.c:5)"}},
		{"reference added", "work(s);", "kref_get(&s->kref); work(s);", []string{"lifetime-changed: kref_get(&s->kref) is added (x.c:3)"}},
		{"put removed", "work(s); sock_put(s->sk);", "work(s);", []string{"lifetime-changed: sock_put(s->sk) is removed (x.c:4 before the patch)"}},
		{"free after a grace period", "kfree(s);", "kfree_rcu(s, rcu);", []string{"lifetime-changed: kfree_rcu(s, rcu) is added (x.c:3); kfree(s) is removed"}},
		{"cancelled work", "work(s);", "cancel_work_sync(&s->work); work(s);", []string{"lifetime-changed: cancel_work_sync(&s->work) is added (x.c:3)"}},
		{"buffers are no references", "work(s);", "nla_put(skb, 1, 2, p); skb_put(skb, 4); get_user(x, p); regmap_field_get(x);", nil},
		{"a getter", "work(s);", "x = get_current_limit(s);", nil},

		// Sleeping.
		{"allocation under a spin lock", "spin_lock(&l); spin_unlock(&l);", "spin_lock(&l); p = kmalloc(4, GFP_KERNEL); spin_unlock(&l);",
			[]string{"sleep-in-atomic: kmalloc(GFP_KERNEL) (x.c:4) may sleep, and spin_lock(&l) (x.c:3) forbids it"}},
		{"mutex under rcu", "rcu_read_lock(); rcu_read_unlock();", "rcu_read_lock(); mutex_lock(&m); mutex_unlock(&m); rcu_read_unlock();",
			[]string{"locking-changed: mutex_lock(&m) is added", "sleep-in-atomic: mutex_lock() (x.c:4) may sleep, and rcu_read_lock() (x.c:3) forbids it"}},
		{"lock added around a sleep", "msleep(1);", "spin_lock_irqsave(&l, flags); msleep(1); spin_unlock_irqrestore(&l, flags);",
			[]string{"locking-changed: spin_lock_irqsave(&l, flags) is added", "sleep-in-atomic: msleep() (x.c:4) may sleep, and spin_lock_irqsave(&l, flags) (x.c:3) forbids it"}},
		{"after an early unlock and return", "spin_lock(&l); if (s->n) {\nspin_unlock(&l); return 0; }\nspin_unlock(&l);", "spin_lock(&l); if (s->n) {\nspin_unlock(&l); return 0; }\nmsleep(1); spin_unlock(&l);",
			[]string{"sleep-in-atomic: msleep() (x.c:8) may sleep, and spin_lock(&l) (x.c:3) forbids it"}},
		{"guard", "return 0;", "guard(spinlock)(&l); msleep(1); return 0;", []string{"locking-changed: guard(spinlock) is added", "sleep-in-atomic: msleep() (x.c:4)"}},
		{"atomic allocation", "spin_lock(&l); spin_unlock(&l);", "spin_lock(&l); p = kmalloc(4, GFP_ATOMIC); spin_unlock(&l);", nil},
		{"before the lock", "spin_lock(&l); spin_unlock(&l);", "p = kmalloc(4, GFP_KERNEL); spin_lock(&l); spin_unlock(&l);", nil},
		{"after the unlock", "spin_lock(&l); spin_unlock(&l);", "spin_lock(&l); spin_unlock(&l); p = kmalloc(4, GFP_KERNEL);", nil},
		{"after unlocks in both branches", "spin_lock(&l); if (s) {\nspin_unlock(&l); } else {\nspin_unlock(&l); }", "spin_lock(&l); if (s) {\nspin_unlock(&l); } else {\nspin_unlock(&l); }\nmsleep(1);", nil},
		{"guard's block has ended", "{ guard(rcu)(); work(s); }", "{ guard(rcu)(); work(s); }\nmsleep(1);", nil},
		{"scoped guard has ended", "scoped_guard(spinlock, &l) { work(s); }", "scoped_guard(spinlock, &l) { work(s); }\nmsleep(1);", nil},
		{"mutex is no spin lock", "mutex_lock(&m); mutex_unlock(&m);", "mutex_lock(&m); msleep(1); mutex_unlock(&m);", nil},
		{"it slept there before", "spin_lock(&l); msleep(1); spin_unlock(&l);", "spin_lock(&l); msleep(1); s->n = 1; spin_unlock(&l);", nil},
		{"a wait that unlocks", "spin_lock_irq(&l); spin_unlock_irq(&l);", "spin_lock_irq(&l); wait_event_interruptible_lock_irq(q, c, l); spin_unlock_irq(&l);", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := risk.Find("x.c", text(c.old), text(c.now))
			if len(got) != len(c.want) {
				t.Fatalf("got %d risks, want %d: %+v", len(got), len(c.want), got)
			}
			for i, r := range got {
				if s := string(r.Kind) + ": " + r.Detail; r.Function != "f" || !strings.HasPrefix(s, c.want[i]) {
					t.Errorf("got  %s: %s\nwant %s", r.Function, s, c.want[i])
				}
			}
		})
	}
}

func TestNewFunction(t *testing.T) {
	const was = "int g(void)\n{\n\treturn 0;\n}\n"
	now := "static void n(void)\n{\n\tspin_lock(&l);\n\tmutex_lock(&m);\n\tkfree(p);\n}\n" + was
	got := risk.Find("x.c", []byte(was), []byte(now))
	want := []risk.Risk{{Kind: risk.SleepInAtomic, Function: "n", Detail: "mutex_lock() (x.c:4) may sleep, and spin_lock(&l) (x.c:3) forbids it"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("a new function's locks are no change of rules (-want +got):\n%s", d)
	}
}

// twice defines f under #ifdef and again under #else, with h, which is edited,
// before them.
func twice(h, first, second string) []byte {
	return []byte("static inline int h(void)\n{\n\t" + h + "\n}\n#ifdef CONFIG_OWNER\nstatic inline void f(struct sock *sk)\n{\n\t" + first +
		"\n}\n#else\nstatic inline void f(struct sock *sk)\n{\n\t" + second + "\n}\n#endif\n")
}

// The definitions of a function that a header has twice are compared with their
// own originals.
func TestDefinedTwice(t *testing.T) {
	const put, lock = "module_put(sk->owner);", "mutex_lock(&sk->lock);"
	for _, c := range []struct {
		name     string
		old, now []byte
		want     []string // FUNCTION: KIND: beginning of the detail
	}{
		{"neither is touched", twice("return 0;", put, ""), twice("return 1;", put, ""), nil},
		{"neither is touched, the first is empty", twice("return 0;", "", put), twice("return 1;", "", put), nil},
		{"the first changes", twice("return 0;", put, lock), twice("return 0;", put+" fput(sk->file);", lock),
			[]string{"f: lifetime-changed: fput(sk->file) is added (x.h:8): "}},
		{"the second changes", twice("return 0;", put, lock), twice("return 0;", put, "sock_put(sk);"),
			[]string{"f: locking-changed: mutex_lock(&sk->lock) is removed (x.h:13 before the patch): ", "f: lifetime-changed: sock_put(sk) is added (x.h:13): "}},
		{"the second becomes what the first is", twice("return 0;", put, ""), twice("return 0;", put, put),
			[]string{"f: lifetime-changed: module_put(sk->owner) is added (x.h:13): "}},
		{"the first becomes what the second is", twice("return 0;", "", put), twice("return 0;", put, put),
			[]string{"f: lifetime-changed: module_put(sk->owner) is added (x.h:8): "}},
		{"both change", twice("return 0;", put, lock), twice("return 0;", put+" fput(sk->file);", lock+" mutex_unlock(&sk->lock);"),
			[]string{"f: lifetime-changed: fput(sk->file) is added (x.h:8): ", "f: locking-changed: mutex_unlock(&sk->lock) is added (x.h:13): "}},
		{"a third one is new", twice("return 0;", put, lock), append(twice("return 0;", put, lock), "static inline void f(int n)\n{\n\tkfree(n);\n}\n"...), nil},
		{"the second goes", twice("return 0;", put, lock), []byte("static inline void f(struct sock *sk)\n{\n\t" + put + "\n}\n"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := risk.Find("x.h", c.old, c.now)
			if len(got) != len(c.want) {
				t.Fatalf("got %d risks, want %d: %+v", len(got), len(c.want), got)
			}
			for i, r := range got {
				if s := r.Function + ": " + string(r.Kind) + ": " + r.Detail; !strings.HasPrefix(s, c.want[i]) {
					t.Errorf("got  %s\nwant %s", s, c.want[i])
				}
			}
		})
	}
}
