package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// abandoned is the age from which a temporary file counts as left behind by a
// killed process: writing one takes milliseconds.
const abandoned = time.Hour

// entry is a file of the store.
type entry struct {
	path string
	kind string // manifests, results or "" for a temporary file
	size int64  // bytes on disk
	used time.Time
}

// entries lists all files of the store. One that is renamed to its place
// meanwhile is listed once or twice, never not at all.
func (s *Store) entries() ([]entry, error) {
	out, err := filesIn(s.tempDir(), "")
	errs := []error{err}
	for _, kind := range []string{manifests, results} {
		shards, err := os.ReadDir(filepath.Join(s.dir, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, d := range shards {
			found, err := filesIn(filepath.Join(s.dir, kind, d.Name()), kind)
			out = append(out, found...)
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

func filesIn(dir, kind string) ([]entry, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, e := range list {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue // gone meanwhile, or not of the store
		}
		out = append(out, entry{filepath.Join(dir, e.Name()), kind, occupied(st.Size()), st.ModTime()})
	}
	return out, nil
}

func (s *Store) count() (int64, error) {
	list, err := s.entries()
	return total(list), err
}

func total(list []entry) int64 {
	var sum int64
	for _, e := range list {
		sum += e.size
	}
	return sum
}

// evict removes what has not been used for longest until at most goal bytes are
// in use, not counting a temporary file of the given size that the caller has
// not reserved yet. If another process is at it, nothing happens.
func (s *Store) evict(goal, unreserved int64) (err error) {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := lockFile(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	// What others reserve from here on is added to the count, whether the
	// count has seen their files or not.
	before, _, err := s.raise(0)
	if err != nil {
		return err
	}
	list, err := s.entries()
	if err != nil {
		return err
	}
	now := s.now()
	slices.SortFunc(list, func(a, b entry) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path))
	})
	sum := total(list) - unreserved
	for _, e := range list {
		old := e.kind == "" && now.Sub(e.used) > abandoned
		if !old && (sum <= goal || e.kind == "") {
			continue
		}
		if err := removeFile(e.path); err != nil {
			return err
		}
		sum -= e.size
	}
	return s.recount(before, sum)
}

// recount sets the usage to sum and what has been reserved since it was before.
func (s *Store) recount(before, sum int64) error {
	u, err := s.lockUsage()
	if err != nil {
		return err
	}
	if now, ok := u.get(); ok && now > before {
		sum += now - before
	}
	return errors.Join(u.set(sum), u.close())
}

// removeAbandoned removes temporary files that killed processes have left.
func (s *Store) removeAbandoned() {
	list, err := filesIn(s.tempDir(), "")
	if err != nil {
		return // the write that follows says why
	}
	for _, e := range list {
		if s.now().Sub(e.used) > abandoned {
			_ = removeFile(e.path) // eviction tries again
		}
	}
}

// Stats is what a store holds.
type Stats struct {
	Dir      string `json:"dir"`
	Limit    int64  `json:"limit"`    // bytes; 0: the cache is off
	Bytes    int64  `json:"bytes"`    // on disk, of all files
	Commands int    `json:"commands"` // with at least one result
	Results  int    `json:"results"`  // kept in files of their own
}

// Stats counts what the store holds.
func (s *Store) Stats() (Stats, error) {
	list, err := s.entries()
	if err != nil {
		return Stats{}, fmt.Errorf("cache: %w", err)
	}
	st := Stats{Dir: s.dir, Limit: s.limit, Bytes: total(list)}
	for _, e := range list {
		switch e.kind {
		case manifests:
			st.Commands++
		case results:
			st.Results++
		}
	}
	return st, nil
}

// Trim evicts until the store is within its limit.
func (s *Store) Trim() error {
	n, err := s.count()
	if err == nil && n > s.limit {
		s.evicting.Lock()
		defer s.evicting.Unlock()
		err = s.evict(s.limit, 0)
	}
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// Clear removes all entries. Processes that use the store at the same time go
// on, and may put new ones into it.
func (s *Store) Clear() error {
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	before, _, err := s.raise(0)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	list, err := s.entries()
	errs := []error{err}
	for _, e := range list {
		errs = append(errs, removeFile(e.path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return s.recount(before, 0)
}
