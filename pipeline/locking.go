package pipeline

// During a transition some tasks run the old functions and some the new ones. A
// patch that changes what is locked, or how long something lives, must be right
// for that mixture too, which nothing in the objects tells: so its author is
// told. A function counts if the calls of locks and reference counts in its
// removed lines are others than those in its added ones.

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
)

// lockCall finds the calls that take or release a lock, or that decide how long
// an object lives. Sources: Documentation/locking, Documentation/RCU and
// include/linux/{refcount,kref,percpu-refcount}.h.
var lockCall = regexp.MustCompile(`\b(?:` +
	`(?:\w+_)?(?:lock|unlock|trylock)(?:_(?:irq|irqsave|irqrestore|bh|nested|interruptible|killable|sock|fast|sched))?` +
	`|(?:down|up)(?:_read|_write|_interruptible|_killable|_trylock|_read_trylock|_write_trylock)?|(?:un)?lock_\w+|release_sock|bh_(?:un)?lock_sock|downgrade_write` +
	`|(?:read|write|raw_write)_seq\w+|local_(?:irq|bh)_\w+|preempt_(?:en|dis)able` +
	`|rcu_assign_pointer|rcu_replace_pointer|call_s?rcu|k[v]?free_rcu|synchronize_\w+` +
	`|(?:kref|refcount|percpu_ref)_\w+|\w+_(?:hold|put|get_unless_zero)|put_(?:device|page|task_struct|pid|cred|net)|get_(?:device|page|task_struct|pid|cred|net)` +
	`|cancel_(?:delayed_)?work_sync|(?:del_timer|timer_delete|timer_shutdown)_sync` +
	`)\s*\(`)

// lockingNotes are what to say about the locking of a patch.
func lockingNotes(files []touched) []string {
	var notes []string
	for _, f := range files {
		if f.content == nil || f.isNew {
			continue
		}
		old, text := strings.Split(string(f.old), "\n"), strings.Split(string(*f.content), "\n")
		for _, fn := range diff.Functions(*f.content) {
			if line, call := changedLock(fn, f.edits, old, text); line > 0 {
				notes = append(notes, fmt.Sprintf("%s:%d: %s changes what is locked or how long it lives: %s; while the livepatch is applied and removed, tasks run old and new code side by side",
					f.path, line, fn.Name, call))
			}
		}
	}
	return notes
}

// changedLock returns the first line of a function that takes, releases or
// counts what the original did not, or where it did and does no more; 0 if none.
func changedLock(fn diff.Function, edits []diff.Edit, old, text []string) (line int, call string) {
	balance := map[string]int{}
	type place struct {
		call, text string
		line       int
	}
	var places []place
	note := func(lines []string, from, n, at, sign int) {
		for i := from; i < from+n && i <= len(lines); i++ {
			for _, m := range lockCall.FindAllString(lines[i-1], -1) {
				balance[m] += sign
				places = append(places, place{m, strings.TrimSpace(lines[i-1]), at + max(sign, 0)*(i-from)})
			}
		}
	}
	for _, e := range edits {
		if e.NewStart > fn.Last || e.NewStart+max(e.NewLines, 1) <= fn.First {
			continue
		}
		note(text, e.NewStart, e.NewLines, e.NewStart, 1)
		note(old, e.OldStart, e.OldLines, e.NewStart, -1)
	}
	i := slices.IndexFunc(places, func(p place) bool { return balance[p.call] != 0 })
	if i < 0 {
		return 0, ""
	}
	return places[i].line, places[i].text
}
